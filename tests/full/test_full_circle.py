"""From images to a model and back: drafts, experts in a real Label Studio, shards, training.

Forty images of the demo are pushed. In the test's recipe the teacher writes its figures out, so
that nearly every trace holds a number that stands nowhere else; what experts write holds a word of
its own. What happens to an image follows from its place among the forty:

                                                                       level        whose words
    12  agree    both experts accept every trace                       agreed       the teacher's
     6  edit     both put the first trace otherwise                    agreed       the first's
     6  replace  both reject the first trace and add another           agreed       the first's
     6  settle   one rejects every trace and adds one, one accepts
                 all; the third keeps the first, edits the second      adjudicated  the third's
     2  open     the same, and nobody settles it                       expert       the first's
     4  single   one expert alone edits the first trace                expert       the first's
     4  ignored  nobody answers                                        draft
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from annotation.server import INSTALL, OWN, is_installed, own_server
from annotation.studio import Studio
from core.ids import canonical_json
from core.records import Authenticity, Draft, ReviewLevel, TaskKind, TraceFinding
from db.images import images_by_id
from db.ledger import drafts as drafts_of
from db.studio import projects, tasks_of
from instruct_builder.shards import ShardSet
from tests.brokers import skip_or_fail
from tests.e2e.project import ROOT, Finished, Project, make_project
from tests.label_studio import Account, Server, Workplace, answer, api, changed, desk_of, sign_up

pytestmark = pytest.mark.full

PUSHED = 40
PLACES = {"agree": 12, "edit": 6, "replace": 6, "settle": 6, "open": 2, "single": 4, "ignored": 4}
LEVELS = {
    "agree": ReviewLevel.AGREED,
    "edit": ReviewLevel.AGREED,
    "replace": ReviewLevel.AGREED,
    "settle": ReviewLevel.ADJUDICATED,
    "open": ReviewLevel.EXPERT,
    "single": ReviewLevel.EXPERT,
}
ADDED = "anatomy"
"""no draft names it: the rehearsal teacher measures nothing of the kind"""
LETTERS = "qwrtzpsdfg"
LEFT = "It is judged by what is left of the traces."


@dataclass(frozen=True)
class Reviewed:
    """One of the forty, and what becomes of its draft."""

    number: int
    part: str
    label: Authenticity
    draft: Draft
    own_numbers: frozenset[str]
    """that one trace of all drafts holds"""

    def word(self, author: str) -> str:
        """A word that this author writes about this image, and nobody anywhere else."""
        return author + LETTERS[self.number // 10] + LETTERS[self.number % 10]

    def sentence(self, author: str) -> str:
        return f"A seam of the kind {self.word(author)} runs through the picture."

    @property
    def findings(self) -> tuple[TraceFinding, ...]:
        return self.draft.reasoning.findings

    def stands(self) -> set[str]:
        """The words and numbers that belong into its rows."""
        accepted = {"agree": slice(None), "settle": slice(1), "open": slice(0)}
        untouched = self.findings[accepted.get(self.part, slice(1, None))]
        written = {
            "edit": [("first", 0)],
            "replace": [("first", None)],
            "settle": [("third", 1)],
            "open": [("first", None)],
            "single": [("first", 0)],
        }.get(self.part, [])
        fitting = [f for f in untouched if f.points_to is self.label]
        return {
            *self.numbers(fitting),
            *(
                self.word(author)
                for author, place in written
                if place is None or self.findings[place].points_to is self.label
            ),
        }

    def gone(self) -> set[str]:
        """Whatever else the teacher and experts wrote about it."""
        said = {self.word(author) for author in ("first", "second", "third")}
        return (said | self.numbers(self.findings)) - self.stands()

    def numbers(self, findings: Sequence[TraceFinding]) -> set[str]:
        """What tells these traces from all others."""
        return self.own_numbers.intersection(numbers_in(findings))


def numbers_in(findings: Iterable[TraceFinding]) -> list[str]:
    return [n for finding in findings for n in re.findall(r"\d+\.\d{12}", finding.evidence)]


def numbers_of_one_trace(drafts: Iterable[Draft]) -> frozenset[str]:
    counts = Counter(n for draft in drafts for n in numbers_in(draft.reasoning.findings))
    return frozenset(number for number, times in counts.items() if times == 1)


@dataclass(frozen=True)
class Circle:
    """The commands, the server and everybody who works there."""

    project: Project
    work: Workplace
    first: Account
    second: Account
    third: Account
    reviewed: dict[str, Reviewed]
    """by image id"""
    unpushed: tuple[Draft, ...]
    own_numbers: frozenset[str]
    """that one trace of all drafts holds"""

    @property
    def reviewed_set(self) -> Path:
        return self.project.home / "reviewed"

    def run(self, module: str, *arguments: object) -> Finished:
        done = self.project.run(module, *arguments, timeout=1200)
        assert done.code == 0, done
        return done

    def annotation(self, command: str, *arguments: object) -> dict[str, Any]:
        done = self.run(
            "annotation", command, "--recipe", self.project.recipe, *arguments, "--json"
        )
        return dict(json.loads(done.out))

    def build(self, out: Path) -> None:
        """`make build-instruct SOURCE=demo MIN_REVIEW=expert OUT=...`"""
        done = self.project.build_instruct(
            "--source", "demo", "--min-review", "expert", "--out", out
        )
        assert done.code == 0, done

    def tasks(self, kind: TaskKind) -> Iterator[tuple[Reviewed, dict[str, Any]]]:
        """What the server has of one kind, with the image that each is about."""
        desk = self.work.desk
        with desk.database.read() as session:
            (project,) = projects(session, desk.campaign_id, kind=kind)
            known = tasks_of(session, project.project_key)
        for task in desk.studio.tasks(project.project_id or 0):
            yield self.reviewed[known[task["data"]["key"]].image_id], task


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Circle]:
    """All steps up to the shards."""
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    project = make_project(tmp_path_factory.mktemp("circle"), crops=PUSHED)
    write_figures_out(project)
    done = project.build_instruct()
    assert done.code == 0, done
    with own_server(project.home) as access, Studio(access.url, access.api_key, server=OWN) as edge:
        made = push_and_look(project, Server(access.url, access.token), edge)
        answer_reviews(made)
        settle_disputes(made)
        made.build(made.reviewed_set)
        yield made
        made.work.desk.database.dispose()


def write_figures_out(project: Project) -> None:
    """Let the teacher give every figure with so many digits that it is unlike any other."""
    path = project.recipe / "rehearsal.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(re.sub(r"\{value:\.\df\}", "{value:.12f}", text), encoding="utf-8")


def push_and_look(project: Project, server: Server, studio: Studio) -> Circle:
    """Push, and say what is to become of each image that was pushed."""
    desk = desk_of(project.home, studio, project.recipe)
    with desk.database.read() as session:
        all_drafts = list(drafts_of(session, desk.campaign_id, "main"))
        images = images_by_id(session, [draft.image_id for draft in all_drafts])
    accounts = [sign_up(server) for _ in range(3)]
    work = Workplace(project.home, server, desk, all_drafts)
    own = numbers_of_one_trace(all_drafts)
    made = Circle(project, work, *accounts, reviewed={}, unpushed=(), own_numbers=own)
    pushed = made.annotation("push", "--source", "demo", "--limit", PUSHED)
    assert (pushed["made"], pushed["refused"]) == (PUSHED, {})
    there = {draft_id for draft_id, _ in work.tasks_of(TaskKind.REVIEW)}
    shown = [draft for draft in all_drafts if draft.draft_id in there]
    shown.sort(key=lambda draft: len(draft.reasoning.findings))  # without traces: all agree
    parts = chain.from_iterable(repeat(part, count) for part, count in PLACES.items())
    for number, (part, draft) in enumerate(zip(parts, shown, strict=True)):
        label = images[draft.image_id].label
        assert label is not None
        made.reviewed[draft.image_id] = Reviewed(number, part, label, draft, own)
    unpushed = tuple(draft for draft in all_drafts if draft.draft_id not in there)
    return replace(made, unpushed=unpushed)


def answer_reviews(circle: Circle) -> None:
    """Both experts go through the tasks."""
    for each, task in circle.tasks(TaskKind.REVIEW):
        for author, account in (("first", circle.first), ("second", circle.second)):
            said = review_of(each, author)
            if said is not None:
                answer(circle.work, account, task, **said)
    assert circle.annotation("pull")["new"] == {"counted": 2 * 32 + 4}


def review_of(each: Reviewed, author: str) -> dict[str, Sequence[str]] | None:
    """What an expert changes in the draft; None: nothing is answered."""
    words = [each.sentence(author)]
    edited = {"verdict_0": ["edit"], "text_0": words}
    added = {"added_category_1": [ADDED], "added_text_1": words, "conclusion": [LEFT]}
    rejected = {f"verdict_{place}": ["reject"] for place in range(len(each.findings))}
    is_first = author == "first"
    match each.part:
        case "agree":
            return {}
        case "edit":
            return edited
        case "replace":
            return {"verdict_0": ["reject"], **added}
        case "settle" | "open":
            return {**rejected, **added} if is_first else {}
        case "single":
            return edited if is_first else None
    return None


def settle_disputes(circle: Circle) -> None:
    """The third expert decides on all but the open ones."""
    assert circle.annotation("adjudicate", "--source", "demo")["made"] == 8
    for each, task in circle.tasks(TaskKind.ADJUDICATION):
        if each.part == "settle":
            places = range(len(task["data"]["traces"]))
            said = {f"verdict_{place}": ["reject"] for place in places}
            said |= {"verdict_0": ["accept"], "verdict_1": ["edit"], "confidence": ["high"]}
            words = {"text_1": [each.sentence("third")], "conclusion": [LEFT]}
            answer(circle.work, circle.third, task, **said, **words)
    assert circle.annotation("pull")["new"] == {"counted": 6}


def rows_by_image(folder: Path) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for rows in ShardSet.open(folder).rows():
        for row in rows.to_pylist():
            found.setdefault(row["image_id"], []).append(row)
    return found


def text_of(rows: Sequence[dict[str, Any]]) -> str:
    return "\n".join(message["content"] for row in rows for message in row["messages"])


def test_hardly_a_trace_is_without_a_number_of_its_own(circle: Circle) -> None:
    drafts = [*(each.draft for each in circle.reviewed.values()), *circle.unpushed]
    assert len(drafts) > PUSHED
    traces = sum(len(draft.reasoning.findings) for draft in drafts)
    assert len(circle.own_numbers) > 0.8 * traces


def test_what_experts_left_stands_in_the_shards_and_nothing_else(circle: Circle) -> None:
    rows = rows_by_image(circle.reviewed_set)
    whole = text_of(list(chain.from_iterable(rows.values())))
    written = 0
    for image_id, each in circle.reviewed.items():
        own = text_of(rows.get(image_id, []))
        if each.part == "ignored":
            assert not own
            continue
        assert [w for w in each.stands() if w not in own] == [], each.part
        assert [w for w in each.gone() if w in whole] == [], each.part
        written += sum(word.isalpha() for word in each.stands())
    assert written > 20, "hardly any word of an expert was to stand"


def test_no_word_of_an_unreviewed_draft_stands_anywhere(circle: Circle) -> None:
    rows = rows_by_image(circle.reviewed_set)
    whole = text_of(list(chain.from_iterable(rows.values())))
    ignored = [each.draft for each in circle.reviewed.values() if each.part == "ignored"]
    for draft in (*ignored, *circle.unpushed):
        assert draft.image_id not in rows
        own = circle.own_numbers.intersection(numbers_in(draft.reasoning.findings))
        assert [number for number in own if number in whole] == []


def test_every_row_says_how_far_its_image_was_checked(circle: Circle) -> None:
    rows = rows_by_image(circle.reviewed_set)
    found = {
        image_id: {row["review_level"] for row in of_image} for image_id, of_image in rows.items()
    }
    assert found == {
        image_id: {LEVELS[each.part]}
        for image_id, each in circle.reviewed.items()
        if each.part != "ignored"
    }


def test_a_row_is_traced_to_its_annotation(circle: Circle) -> None:
    each = one_of(circle, "edit")
    rows = rows_by_image(circle.reviewed_set)[each.draft.image_id]
    row = next(row for row in rows if each.word("first") in text_of([row]))
    shards = ("--shards", circle.reviewed_set)
    done = circle.run("instruct_builder", "trace", row["instruction_id"], *shards, "--json")
    found = json.loads(done.out)["lineage"]
    task = task_of(circle, each)
    by_user = {raw["completed_by"]: raw["id"] for raw in task["annotations"]}
    first_correction = found["corrections"][0]["correction_id"]
    assert found["given_in"][first_correction] == {
        "record_id": first_correction,
        "server": OWN,
        "project_id": circle.work.project_id,
        "task_id": task["id"],
        "annotation_id": by_user[circle.first.user_id],
        "number": 1,
    }
    text = circle.run("instruct_builder", "trace", row["instruction_id"], *shards).out
    assert f"annotation {by_user[circle.first.user_id]}, version 1, of task {task['id']}" in text


def one_of(circle: Circle, part: str) -> Reviewed:
    """The first of a part whose first trace speaks for the label."""
    return next(
        each
        for each in circle.reviewed.values()
        if each.part == part and each.findings[0].points_to is each.label
    )


def task_of(circle: Circle, each: Reviewed) -> dict[str, Any]:
    return next(task for shown, task in circle.tasks(TaskKind.REVIEW) if shown is each)


def test_fifty_steps_are_trained_on_them_and_reported(circle: Circle) -> None:
    out = circle.project.home / "runs" / "reviewed"
    circle.run(
        "training.run",
        ROOT / "recipes" / "fakescope" / "training" / "tiny.yaml",
        "--shards", circle.reviewed_set,
        "--images", circle.project.home / "images",
        "--out", out,
        "optimiser.steps=50",
    )  # fmt: skip
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["training"]["steps"] == 50
    assert report["images"] > 0
    assert "simulated" in (out / "report.html").read_text(encoding="utf-8")


def test_one_changed_answer_changes_the_rows_of_its_image_alone(circle: Circle) -> None:
    each = one_of(circle, "edit")
    task = task_of(circle, each)
    results = changed(
        task["predictions"][0]["result"],
        {"verdict_0": ["edit"], "text_0": [each.sentence("again")]},
    )
    (own,) = (a for a in task["annotations"] if a["completed_by"] == circle.first.user_id)
    with api(circle.work.server, circle.first) as client:
        client.patch(f"/api/annotations/{own['id']}/", json={"result": results}).raise_for_status()
    assert circle.annotation("pull")["new"] == {"counted": 1}
    after = circle.project.home / "after"
    circle.build(after)

    old, new = rows_by_image(circle.reviewed_set), rows_by_image(after)
    assert old.keys() == new.keys()
    differing = {i for i in old if canonical_json(old[i]) != canonical_json(new[i])}
    assert differing == {each.draft.image_id}
    assert each.word("first") not in text_of(new[each.draft.image_id])
    assert each.word("again") in text_of(new[each.draft.image_id])

    done = circle.run("instruct_builder", "diff", circle.reviewed_set, after, "--json")
    found = json.loads(done.out)
    counts = {fate: sum(reasons.values()) for fate, reasons in found["counts"].items()}
    assert counts["changed"] + counts["added"] + counts["removed"] > 0
    assert counts["unchanged"] >= sum(len(rows) for i, rows in old.items() if i not in differing)
