"""Three teachers on servers of their own, whose replies are planted: what is kept, and its cost.

In the table a point of the inspection speaks for the label, with `-` against it; `!` is glaring.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from annotation.chains import chain_drafts
from core.recipe import RECIPES, Recipe, load_recipe
from core.records import (
    Authenticity,
    Draft,
    Reasoning,
    ReviewLevel,
    Source,
    TeacherReply,
    TeacherRequest,
)
from core.settings import Settings, load_settings
from core.taxonomy import Taxonomy
from db.chains import newest_chains
from db.engine import Database, open_database
from db.images import labelled_images
from db.ledger import drafts
from db.lineage import Lineage, lineage
from db.reports import costs
from db.work import campaign_id_of
from generation import brief
from generation.batch import BatchRun, run_batches
from generation.batch_desk import open_batch_desk
from generation.campaign import prepare
from generation.ingest import ingest
from generation.panel import Panel, PointVotes, Voter, measure_panel
from generation.parse import parse_draft
from generation.reparse import reparse
from imaging.store import ImageStore
from teacher.faults import Fault
from teacher.loopback import serve
from teacher.merging import is_merging, merge
from tests.e2e.project import clean_environment
from tests.unit.teacher.scripted import draw_jpeg
from workers.drafting import run_campaign

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
ARMS: Final = ("first", "second", "third")
REFUSES: Final = None


@dataclass(frozen=True)
class Case:
    """One image: what is said of it, and what is kept, counted by hand."""

    label: Authenticity
    said: tuple[str | None, ...]
    """by each of the three teachers"""
    kept: str


CASES: Final = (
    Case(FAKE, ("texture edges", "texture light", "structure"), "texture"),
    Case(FAKE, ("light", "light", "light"), "light"),
    Case(FAKE, ("edges!", "texture", "light"), "edges"),
    Case(FAKE, ("", "", ""), ""),
    Case(FAKE, ("texture edges", "texture", REFUSES), "texture"),
    Case(FAKE, ("-texture", "-texture", "texture"), "-texture"),
    Case(REAL, ("colour light", "colour", "light"), "colour light"),
    Case(REAL, ("edges", "texture", "structure"), ""),
    Case(REAL, ("-light", "light", "light!"), "light"),
    Case(REAL, ("small_parts small_parts", "texture", ""), ""),
)
VOTERS: Final = {
    "first": Voter(raised=12, kept=7, alone=6),
    "second": Voter(raised=10, kept=6, alone=4),
    "third": Voter(raised=7, kept=3, alone=4),
}
USD_PER_CALL: Final = {"first": 0.014, "second": 0.028, "third": 0.042, "consensus": 0.0014}
USAGE: Final = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
CALLS: Final = {"topic": 0, "first": 10, "second": 10, "third": 9 + 3, "consensus": 9}
"""of the image that is refused it is asked three times, and of two the same is to be worded"""


def points(text: str, label: Authenticity) -> list[tuple[str, Authenticity]]:
    return [
        (name.strip("-!"), label.opposite if name.startswith("-") else label)
        for name in text.split()
    ]


@dataclass(frozen=True)
class Planted:
    """One of the teachers; as the merging one it repeats what it was given."""

    model: str
    numbers: Mapping[str, int]
    """of the images, by the hash of what is sent"""

    def complete(self, request: TeacherRequest, fault: Fault | None) -> dict[str, Any]:
        content = (
            merge(request.question) if is_merging(request.reply_schema) else self._say(request)
        )
        message = {
            "role": "assistant",
            "content": content,
            "refusal": "Not this one." if content is REFUSES else None,
        }
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return {
            "id": "chatcmpl-planted",
            "object": "chat.completion",
            "created": 0,
            "model": self.model,
            "choices": [choice],
            "usage": USAGE,
        }

    def _say(self, request: TeacherRequest) -> str | None:
        case = CASES[self.numbers[request.judged[0].sha256]]
        said = case.said[ARMS.index(self.model)]
        if said is REFUSES:
            return REFUSES
        findings = [
            {
                "category": category,
                "evidence": f"The {self.model} one sees {category}.",
                "points_to": side,
                "region": None,
                "glaring": text.endswith("!"),
            }
            for text, (category, side) in zip(said.split(), points(said, case.label), strict=True)
        ]
        told = {"verdict": case.label, "conclusion": "That is all.", "confidence": "medium"}
        return json.dumps({"findings": findings, **told})


@dataclass(frozen=True)
class Bench:
    """A database with the images, and the recipe with an arm for each server."""

    settings: Settings
    database: Database
    store: ImageStore
    recipe: Recipe
    logs: Mapping[str, Path]

    @property
    def campaign_id(self) -> str:
        return campaign_id_of(self.recipe)

    def draft(self) -> int:
        """How many drafts were due."""
        campaign = prepare(self.database, self.store, self.recipe)
        run_campaign(self.settings, self.database, self.recipe, campaign)
        return campaign.due

    def draft_in_batches(self) -> BatchRun:
        prepare(self.database, self.store, self.recipe, in_batches=True)
        opened = (self.settings, self.database, self.recipe, self.campaign_id)
        with open_batch_desk(*opened, tell=lambda _: None) as desk:
            return run_batches(desk, wait=True)

    def merged(self) -> list[Draft]:
        """In the order of the table."""
        with self.database.read() as session:
            number = {i.image_id: number_of(i.group) for i in labelled_images(session)}
            found = list(drafts(session, self.campaign_id, "consensus"))
        return sorted(found, key=lambda draft: number[draft.image_id])

    def asked(self) -> dict[str, int]:
        """What the servers heard, by their own logs."""
        return {
            name: len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0
            for name, path in self.logs.items()
        }

    def panel(self) -> Panel:
        return measure_panel(self.database, self.recipe, self.recipe.arm("consensus"))

    def spent(self) -> dict[str, Any]:
        """Calls and US dollars of each arm."""
        with self.database.read() as session:
            now = datetime.now(UTC)
            found = costs(session, self.campaign_id, self.recipe.arms, now=now)
        return {arm.arm: (arm.calls, arm.spent_usd) for arm in found.arms}

    def lineage_of(self, number: int) -> Lineage:
        """What stands behind the newest chain of an image."""
        image_id = self.merged()[number].image_id
        with self.database.read() as session:
            chains = newest_chains(
                session,
                campaign_id=self.campaign_id,
                arms=["consensus"],
                min_review=ReviewLevel.DRAFT,
            )
            (chain_id,) = [c.chain_id for c, image in chains if image.image_id == image_id]
            return lineage(session, chain_id, image_id)


def number_of(group: str) -> int:
    return int(group.rpartition("/")[2])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAKESCOPE_HOME", str(tmp_path / "home"))
    settings = load_settings()
    database, store = open_database(settings), ImageStore(settings.image_store)
    ingest(
        database,
        store,
        pictures(tmp_path / "pictures"),
        source=Source(name="mine", licence="CC0-1.0"),
    )
    with database.read() as session:
        numbers = {image.sha256: number_of(image.group) for image in labelled_images(session)}
    logs = {name: tmp_path / f"{name}.jsonl" for name in (*ARMS, "consensus")}
    with ExitStack() as servers:
        urls = {
            name: servers.enter_context(serve(Planted(name, numbers), log=log))
            for name, log in logs.items()
        }
        recipe = recipe_with(urls, tmp_path / "recipe")
        yield Bench(settings, database, store, recipe, logs)
        database.dispose()


def pictures(folder: Path) -> Path:
    """Noise, each picture a group of its own, whose topic the collection names."""
    folder.mkdir()
    lines = ["path,label,generator,group,topic"]
    for number, case in enumerate(CASES):
        (folder / f"{number}.jpg").write_bytes(draw_jpeg(number, side=64))
        made_by = "somebody" if case.label is FAKE else ""
        lines.append(f"{number}.jpg,{case.label},{made_by},{number},object")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def recipe_with(urls: Mapping[str, str], folder: Path) -> Recipe:
    """The shipped recipe with a server and a price for each arm."""
    shutil.copytree(RECIPES / "fakeclue", folder)
    path = folder / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for arm in values["drafting"]["arms"]:
        name = arm["name"] if arm["name"] in urls else "consensus"
        arm |= {"teacher": urls[name], "model": name}
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    prices = {
        name: {"input": usd / 1.4 * 1000, "cached_input": 0, "output": usd / 1.4 * 2000}
        for name, usd in USD_PER_CALL.items()
    }
    table = {"as_of": "2026-01-01", "source": "a test", "models": prices}
    (folder / "prices.yaml").write_text(json.dumps(table), encoding="utf-8")
    return load_recipe(folder)


def kept_points(drafts: list[Draft]) -> list[set[tuple[str, Authenticity]]]:
    return [{(f.category, f.points_to) for f in draft.reasoning.findings} for draft in drafts]


KEPT: Final = [set(points(case.kept, case.label)) for case in CASES]


def test_what_is_kept_and_what_it_costs_equal_the_table(bench: Bench) -> None:
    assert bench.draft() == 10 * len(ARMS) + 10
    assert kept_points(bench.merged()) == KEPT
    for draft, case in zip(bench.merged(), CASES, strict=True):
        assert draft.reasoning.conclusion.startswith(f"This is a {case.label} image.")
        assert len(draft.merged) == sum(said is not REFUSES for said in case.said)
    assert bench.asked() == {name: calls for name, calls in CALLS.items() if calls}
    assert bench.spent() == {
        name: (calls, pytest.approx(calls * USD_PER_CALL.get(name, 0)))
        for name, calls in CALLS.items()
    }


def test_in_batches_too_the_same_is_asked_once(bench: Bench) -> None:
    assert bench.draft_in_batches().drafted == 10 * len(ARMS) - 1 + 10
    assert kept_points(bench.merged()) == KEPT
    assert bench.asked() == {name: calls for name, calls in CALLS.items() if calls}
    assert bench.draft_in_batches() == BatchRun(sent=0, drafted=0, waiting=0)


def test_who_raised_what_equals_the_table(bench: Bench) -> None:
    bench.draft()
    panel = bench.panel()
    assert panel.voters == VOTERS
    assert panel.drafts == {3: 9, 2: 1}
    assert panel.points["light"] == PointVotes(votes={3: 1, 2: 2, 1: 3}, kept=3)
    assert panel.points["structure"] == PointVotes(votes={1: 2}, kept=0)


def test_a_chain_leads_to_those_who_voted_and_to_the_one_who_refused(bench: Bench) -> None:
    bench.draft()
    chain_drafts(bench.database, bench.recipe)
    whole, refused = bench.lineage_of(0), bench.lineage_of(4)
    assert [draft.arm for draft in whole.merged] == list(ARMS)
    assert len(whole.merged_replies) == 3 and whole.set_aside == {}
    assert [draft.arm for draft in refused.merged] == ["first", "second"]
    assert refused.set_aside == {"third": "the teacher refused: Not this one."}


def without_light(
    reply: TeacherReply, *, taxonomy: Taxonomy, label: Authenticity | None
) -> Reasoning:
    """An older parser, which loses a point."""
    read = parse_draft(reply, taxonomy=taxonomy, label=label)
    return replace(read, findings=tuple(f for f in read.findings if f.category != "light"))


def test_another_reading_is_merged_again_and_pays_for_changed_points_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(brief, "parse_draft", without_light)
        bench.draft()
    assert chain_drafts(bench.database, bench.recipe).new_chains == 10
    kept, asked, before = kept_points(bench.merged()), bench.asked(), bench.merged()
    changed = [1, 6, 8]
    assert [n for n in range(10) if kept[n] != KEPT[n]] == changed
    assert asked["consensus"] == 7  # of 1 and 3 the same is to be worded, and of 7, 8 and 9

    done = reparse(bench.database, bench.store, bench.recipe)
    assert (done.superseded, done.outdated, done.corrected) == (10, 5, 0)
    assert bench.asked() == asked
    assert bench.draft() == 5
    assert bench.asked() == {**asked, "consensus": asked["consensus"] + len(changed)}
    calls = bench.asked()["consensus"]
    assert bench.spent()["consensus"] == (calls, pytest.approx(calls * USD_PER_CALL["consensus"]))

    assert kept_points(bench.merged()) == KEPT
    reused = [n for n in (0, 2) if bench.merged()[n].attempt_id == before[n].attempt_id]
    assert reused == [0, 2]
    assert chain_drafts(bench.database, bench.recipe).new_chains == 5
    assert len(bench.lineage_of(1).merged) == 3
    assert reparse(bench.database, bench.store, bench.recipe).outdated == 0
    assert bench.draft() == 0
