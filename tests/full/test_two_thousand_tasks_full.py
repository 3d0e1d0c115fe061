"""Two thousand drafts and a real Label Studio: nothing twice when a push dies, nothing lost while
experts write and the server restarts.
"""

from __future__ import annotations

import json
import random
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from annotation.server import INSTALL, OWN, is_installed, own_server
from annotation.studio import Studio
from core.recipe import DEFAULT_RECIPE
from core.records import Draft, TaskKind
from db.ledger import drafts as drafts_of
from db.reviews import corrections
from tests.brokers import skip_or_fail
from tests.e2e.project import Finished, Project
from tests.label_studio import Account, Server, Workplace, api, changed, desk_of, sign_up
from tests.unit.records import make_finding

pytestmark = pytest.mark.full

DRAFTS = 2_000
KILLS = 8
LONGEST = 6.0
"""seconds that a push lives before it is killed"""
DOWN = (httpx2.TransportError, httpx2.HTTPStatusError)


@dataclass
class Office:
    """A home folder with drafts, and its server, which can be stopped and started."""

    project: Project
    stack: ExitStack = field(default_factory=ExitStack)

    def start(self) -> Workplace:
        access = self.stack.enter_context(own_server(self.project.home))
        studio = self.stack.enter_context(Studio(access.url, access.api_key, server=OWN))
        desk = desk_of(self.project.home, studio)
        self.stack.callback(desk.database.dispose)
        return Workplace(self.project.home, Server(access.url, access.token), desk, [])

    def stop(self) -> None:
        self.stack.close()

    def annotation(self, command: str, *arguments: object) -> Finished:
        return self.project.run("annotation", command, *arguments, "--json", timeout=1200)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    made = Office(Project(home=tmp_path / "home", recipe=DEFAULT_RECIPE))
    yield made
    made.stop()


def test_a_push_killed_again_and_again_makes_each_task_once(office: Office) -> None:
    work = office.start()
    drafts = work.add_drafts(*[[make_finding(), make_finding("edge")]] * DRAFTS)
    moments = random.Random(4)
    kills = sum(push_and_kill(office.project, moments.uniform(0.5, LONGEST)) for _ in range(KILLS))
    done = office.annotation("push", "--source", "demo")
    assert done.code == 0, done
    assert kills >= 2, "the push was hardly ever killed"

    shown = Counter(subject for subject, _ in work.tasks_of(TaskKind.REVIEW))
    assert shown == Counter(draft.draft_id for draft in drafts)
    on_server = [task for _, task in work.tasks_of(TaskKind.REVIEW)]
    assert len({task["id"] for task in on_server}) == DRAFTS
    assert {len(task["predictions"]) for task in on_server} == {1}
    again = office.annotation("push", "--source", "demo")
    assert json.loads(again.out)["made"] == 0


def push_and_kill(project: Project, after: float) -> bool:
    """Start a push and kill it after so many seconds; returns whether it was running."""
    process = project.start("annotation", "push", "--source", "demo")
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate(timeout=30)
    return process.returncode < 0


def test_nothing_is_lost_while_experts_write_and_the_server_restarts(office: Office) -> None:
    work = office.start()
    work.add_drafts(*[[make_finding(), make_finding("edge")]] * DRAFTS)
    assert office.annotation("push", "--source", "demo").code == 0
    tasks = work.tasks_of(TaskKind.REVIEW)
    experts = [sign_up(work.server), sign_up(work.server)]
    halves = [tasks[0::2], tasks[1::2]]
    given_up = threading.Event()
    with ThreadPoolExecutor(2) as pool, ExitStack() as in_the_end:
        in_the_end.callback(given_up.set)
        writing = [
            pool.submit(write_all, work.server, expert, half, given_up)
            for expert, half in zip(experts, halves, strict=True)
        ]
        pulled = 0
        while not all(expert.done() for expert in writing):
            pulled += office.annotation("pull").code == 0
            if pulled == 2:  # in the middle of it
                office.stop()
                assert office.annotation("pull").code != 0
                work = office.start()
        for expert in writing:
            expert.result()
    assert pulled > 2, "everything was written before the restart"
    assert office.annotation("pull").code == 0

    subjects = {draft.draft_id: draft.image_id for draft in drafts_in(work)}
    with work.desk.database.read() as session:
        found = corrections(session, sorted(subjects.values()))
    said = {
        subject: [each.reasoning.findings[0].evidence for each in found[image_id]]
        for subject, image_id in subjects.items()
    }
    assert said == {subject: [sentence_about(subject)] for subject, _ in tasks}


def drafts_in(work: Workplace) -> list[Draft]:
    with work.desk.database.read() as session:
        return list(drafts_of(session, work.desk.campaign_id, "main"))


def sentence_about(subject: str) -> str:
    return f"A seam named {subject} runs through the picture."


def write_all(
    server: Server,
    expert: Account,
    tasks: Sequence[tuple[str, dict[str, Any]]],
    given_up: threading.Event,
) -> None:
    """Edit the first trace of each draft; look and try again where the server was away."""
    with api(server, expert) as client:
        for subject, task in tasks:
            results = changed(
                task["predictions"][0]["result"],
                {"verdict_0": ["edit"], "text_0": [sentence_about(subject)]},
            )
            while not try_to_write(client, task["id"], results):
                assert not given_up.wait(0.5), "the server never came back"


def try_to_write(client: httpx2.Client, task_id: int, results: Sequence[Any]) -> bool:
    """Whether the answer is there now; an answer whose receipt was lost is not given twice."""
    address = f"/api/tasks/{task_id}/annotations/"
    try:
        there = client.get(address)
        there.raise_for_status()
        if not there.json():
            body = {"result": list(results), "lead_time": 5}
            client.post(address, json=body).raise_for_status()
    except (*DOWN, KeyError, ValueError):
        return False
    return True
