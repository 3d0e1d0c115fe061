"""A drafting campaign whose teacher fails now and then, and whose workers are killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from PIL import Image
from sqlalchemy import select

from core.recipe import DEFAULT_RECIPE, configured_recipe
from core.records import AttemptOutcome, WorkState
from core.settings import Settings, load_settings
from db.engine import Database, open_database
from db.ledger import drafts, spent
from db.tables import AttemptRow
from db.work import campaign_id_of, count_quarantined, work_counts
from teacher.faults import Faults
from teacher.rehearsal import start_rehearsal
from tests.e2e.project import ROOT, Project

MODEL = "priced"
CALLS_IN_FLIGHT = 16
TIMEOUT_S = 5
"""after which a call that hangs is given up"""
PRICES = {
    "as_of": "2026-01-01",
    "source": "made up",
    "models": {MODEL: {"input": 1, "cached_input": 1, "output": 4}},
}
KINDS_OF_FAULT = ("429", "429_bare", "500", "hang", "refusal", "truncated", "junk")
PATIENCE_S = 600.0


def faults_of(share: float, *, latency_s: float, seed: int) -> Faults:
    """Every kind of fault equally often, together in `share` of the requests."""
    rates = {f"rate_{kind}": share / len(KINDS_OF_FAULT) for kind in KINDS_OF_FAULT}
    return Faults(latency_s=latency_s, retry_after=0.5, seed=seed, **rates)


def draw_images(folder: Path, count: int) -> Path:
    """Labelled PNG files of 64 to 96 pixels a side: soft colours under grain."""
    for number in range(count):
        random = np.random.default_rng(number)
        width, height = (int(side) for side in random.integers(64, 97, 2))
        soft = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC), dtype=float)
        grainy = (pixels + random.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
        place = folder / ("real" if number % 2 else "fake/drawn") / f"{number:05}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grainy).save(place)
    return folder


@dataclass
class Campaign:
    """A project with images, asking a teacher whose log the tests read."""

    project: Project
    log: Path

    def ingest(self, folder: Path) -> None:
        done = self.project.run("generation", "ingest", folder, "--source", "drawn")
        assert done.code == 0, done

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        """`python -m generation draft`, in a process group of its own."""
        return subprocess.Popen(
            self.project.command(
                "generation", "draft", "--recipe", self.project.recipe, *arguments
            ),
            cwd=ROOT,
            env=self.project.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def asked(self) -> list[dict[str, Any]]:
        """What the teacher was asked, in the order of arrival.

        A request that was cut short by the death of its sender is none.
        """
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        requests = [request for request in map(json.loads, lines) if request["request_hash"]]
        return sorted(requests, key=lambda request: str(request["arrived"]))

    @property
    def settings(self) -> Settings:
        environment = {name.lower(): text for name, text in self.project.environment.items()}
        return load_settings(fakescope_home=self.project.home, **environment)

    @contextmanager
    def database(self) -> Iterator[tuple[Database, str]]:
        """The campaign's database and the campaign's id."""
        settings = self.settings
        database = open_database(settings, migrate=False)
        try:
            yield database, campaign_id_of(configured_recipe(self.project.recipe, settings))
        finally:
            database.dispose()


@contextmanager
def faulty_campaign(
    folder: Path, *, images: int, faults: Faults, **environment: str
) -> Iterator[Campaign]:
    """A campaign over so many drawn images, ready to draft."""
    recipe = make_recipe(folder)
    log = folder / "teacher.jsonl"
    with start_rehearsal(recipe, log=log, faults=faults) as base_url:
        project = Project(
            home=folder / "home",
            recipe=recipe,
            environment={"OPENAI_BASE_URL": base_url, "OPENAI_MODEL": MODEL, **environment},
        )
        campaign = Campaign(project=project, log=log)
        done = project.run("db", "upgrade")
        assert done.code == 0, done
        campaign.ingest(draw_images(folder / "drawn", images))
        yield campaign


def make_recipe(folder: Path) -> Path:
    """The default recipe with a teacher that costs money and is not waited for long."""
    recipe = shutil.copytree(DEFAULT_RECIPE, folder / "recipe")
    path = recipe / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["drafting"].update(calls_in_flight=CALLS_IN_FLIGHT, claim_size=32)
    values["drafting"]["arms"][0]["timeout_s"] = TIMEOUT_S
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    (recipe / "prices.yaml").write_text(yaml.safe_dump(PRICES), encoding="utf-8")
    return recipe


class Crew:
    """Celery workers that are killed and replaced; each is a parent and the child that works."""

    def __init__(self, project: Project, size: int, seed: int) -> None:
        self.kills = 0
        self._project = project
        self._random = Random(seed)
        self._size = size
        self._workers: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Crew:
        self._workers = [self._hire() for _ in range(self._size)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            end_group(worker, signal.SIGKILL)

    def kill_one(self) -> None:
        """End a worker as a power failure would: the whole of it, or the child alone."""
        place = self._random.randrange(self._size)
        children = child_processes(self._workers[place].pid)
        if children and self._random.random() < 0.5:
            os.kill(children[0], signal.SIGKILL)
        else:
            end_group(self._workers[place], signal.SIGKILL)
            self._workers[place] = self._hire()
        self.kills += 1

    def _hire(self) -> subprocess.Popen[bytes]:
        with (self._project.home.parent / "workers.log").open("ab") as log:
            return subprocess.Popen(
                self._project.command("workers", "--concurrency", 1),
                cwd=ROOT,
                env=self._project.variables(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )


def child_processes(parent: int) -> list[int]:
    """The processes that `parent` started, by their ids (proc(5), task/children)."""
    try:
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [int(child) for child in listed.split()]


def end_group(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send a signal to a process and everything below it, and wait for its end."""
    if process.poll() is None:
        os.killpg(process.pid, number)
    process.wait(60)


def wait_until_asked(campaign: Campaign, requests: int, running: subprocess.Popen[str]) -> None:
    """Wait until the teacher was asked so often, while a drafting command runs."""
    deadline = time.monotonic() + PATIENCE_S
    while (asked := count_lines(campaign.log)) < requests:
        assert running.poll() is None, f"ended after {asked} requests: {running.communicate()[0]}"
        assert time.monotonic() < deadline, f"the teacher was asked no more than {asked} times"
        time.sleep(0.05)


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def finish(running: subprocess.Popen[str]) -> str:
    """Wait for a drafting command that has to end well; returns what it said."""
    said, _ = running.communicate(timeout=PATIENCE_S)
    assert running.returncode == 0, said
    return said


def assert_all_settled(campaign: Campaign, images: int) -> None:
    """Every image is drafted, or set aside with its reason, and few are set aside."""
    with campaign.database() as (database, campaign_id), database.read() as session:
        counts = work_counts(session, campaign_id)
        reasons = count_quarantined(session, campaign_id)
        num_drafts = sum(1 for _ in drafts(session, campaign_id, "main"))
    assert set(counts) <= {WorkState.DRAFTED, WorkState.QUARANTINED}, counts
    assert sum(counts.values()) == images
    assert counts[WorkState.DRAFTED] == num_drafts
    assert num_drafts > 0.9 * images, Counter(reasons)
    assert all(reasons)


def assert_nothing_stored_is_asked_again(campaign: Campaign) -> None:
    """No request was sent whose reply lay in the database, and no call is missing in it."""
    calls = defaultdict(list)
    with campaign.database() as (database, _), database.read() as session:
        rows = session.execute(
            select(
                AttemptRow.request_hash,
                AttemptRow.number,
                AttemptRow.outcome,
            ).order_by(AttemptRow.request_hash, AttemptRow.number)
        )
        for request_hash, _, outcome in rows:
            calls[request_hash].append(outcome)
    for request_hash, outcomes in calls.items():
        assert AttemptOutcome.REPLIED not in outcomes[:-1], (request_hash, outcomes)
    asked = Counter(request["request_hash"] for request in campaign.asked())
    unwritten = {name: times for name, times in asked.items() if times > len(calls[name])}
    assert not unwritten, "the teacher was asked what the ledger does not know of"


def assert_unknown_calls_are_few_and_reserved(campaign: Campaign, kills: int) -> int:
    """Calls whose worker died: no more than were in flight then, none without its reservation."""
    with campaign.database() as (database, campaign_id), database.read() as session:
        unknown = session.execute(
            select(AttemptRow.reserved_usd, AttemptRow.cost_usd).where(
                AttemptRow.campaign_id == campaign_id,
                AttemptRow.outcome == AttemptOutcome.UNKNOWN,
            )
        ).all()
    assert len(unknown) <= kills * CALLS_IN_FLIGHT
    assert all(row.reserved_usd > 0 and row.cost_usd is None for row in unknown)
    return len(unknown)


def assert_within_limits(campaign: Campaign, *, requests: int, tokens: int) -> None:
    """By the teacher's own log, no sliding minute holds more than the limits."""
    asked = campaign.asked()
    moments = [datetime.fromisoformat(request["arrived"]).timestamp() for request in asked]
    sums = [0, *accumulate(int(request["most_tokens"]) for request in asked)]
    for last, moment in enumerate(moments):
        first = bisect_left(moments, moment - 60)
        assert last + 1 - first <= requests, (moment, last + 1 - first)
        assert sums[last + 1] - sums[first] <= tokens, (moment, sums[last + 1] - sums[first])


def assert_stops_at_its_ceiling(campaign: Campaign, usd: float) -> None:
    """A run with too little money ends by itself, and neither teacher nor ledger counts more."""
    said, _ = (drafting := campaign.start("--budget", usd)).communicate(timeout=PATIENCE_S)
    assert drafting.returncode == 1, said
    assert f"the ceiling of ${usd:.2f} is reached" in said
    with campaign.database() as (database, campaign_id), database.read() as session:
        spending = spent(session, campaign_id)
    assert spending.spent_usd + spending.reserved_usd <= usd
    assert 0 < spent_by_the_teachers_log(campaign) <= usd


def spent_by_the_teachers_log(campaign: Campaign) -> float:
    """USD for what the teacher says that it read and wrote."""
    price = PRICES["models"][MODEL]
    usages = [request["usage"] for request in campaign.asked() if request.get("usage")]
    return (
        sum(
            usage["prompt_tokens"] * price["input"] + usage["completion_tokens"] * price["output"]
            for usage in usages
        )
        / 1e6
    )
