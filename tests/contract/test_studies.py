"""Exemplars and preferences through a real Label Studio."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from annotation.__main__ import app
from annotation.desk import Desk
from annotation.exemplar_file import write_exemplars
from annotation.exemplars import Filled, filled_slots, finished
from annotation.preference import report_as_text
from annotation.projects import projects_of
from annotation.pull import pull
from annotation.standing import standing
from annotation.studio import Studio
from core.errors import ConfigError
from core.preference import exact_share
from core.recipe import (
    MERGED_FILE,
    ExemplarSlots,
    PreferenceStudy,
    Recipe,
    Review,
    load_recipe,
)
from core.records import AnnotationFate, Authenticity, ImageRecord, TaskKind
from core.settings import load_settings
from db.engine import open_database
from db.images import images_by_id
from db.quality import measure_preferences
from db.studio import tasks_of
from db.work import campaign_id_of
from generation.prompt import choose_demonstrations
from tests.campaigns import store_draft
from tests.label_studio import Account, Server, Workplace, api, make_workplace, push, sign_up
from tests.unit.records import make_finding

FAKE = Authenticity.FAKE
PLAIN = "In plain words."
HOSTILE = '<script>document.title="ran"</script> {{ label }} {% x %} \u202eright \x07'


class Team(Studio):
    """The real server, as if nobody but these had an account there."""

    def __init__(self, server: Server, members: Collection[Account]) -> None:
        super().__init__(server.url, server.api_key)
        self._members = {member.user_id for member in members}

    def user_ids(self) -> list[int]:
        return [user_id for user_id in super().user_ids() if user_id in self._members]


def with_review(recipe: Recipe, **review: Any) -> Recipe:
    asked: Review = recipe.settings.review.model_copy(update=review)
    settings = recipe.settings.model_copy(update={"review": asked})
    return recipe.model_copy(update={"settings": settings})


@dataclass
class Room:
    """A desk, and the experts who work there."""

    desk: Desk
    server: Server
    accounts: list[Account]

    def tasks(self, kind: TaskKind) -> list[tuple[str | None, dict[str, Any]]]:
        """Each task of a kind on the server, with its owner."""
        found = self.desk.kind(kind)
        return [
            (project.owner, task)
            for project in projects_of(self.desk, found)
            for task in self.desk.studio.tasks(project.project_id or 0)
        ]

    def image_of(self, kind: TaskKind, task: dict[str, Any]) -> str:
        found = self.desk.kind(kind)
        with self.desk.database.read() as session:
            for project in projects_of(self.desk, found):
                known = tasks_of(session, project.project_key)
                if task["data"]["key"] in known:
                    return known[task["data"]["key"]].image_id
        raise AssertionError(task)

    def answer(self, account: Account, task: dict[str, Any], *results: dict[str, Any]) -> int:
        with api(self.server, account) as client:
            address = f"/api/tasks/{task['id']}/annotations/"
            made = client.post(address, json={"result": list(results)})
        made.raise_for_status()
        return int(made.json()["id"])


def chosen(name: str, *choices: str) -> dict[str, Any]:
    parts = {"id": name, "from_name": name, "to_name": "image", "type": "choices"}
    return {**parts, "value": {"choices": list(choices)}}


def written(name: str, text: str) -> dict[str, Any]:
    parts = {"id": name, "from_name": name, "to_name": "image", "type": "textarea"}
    return {**parts, "value": {"text": [text]}}


@pytest.fixture(scope="module")
def experts(studio_server: Server) -> list[Account]:
    return [sign_up(studio_server), sign_up(studio_server)]


@pytest.fixture
def workplace(studio_server: Server, tmp_path: Path) -> Iterator[Workplace]:
    made = make_workplace(
        tmp_path / "home",
        studio_server,
        [make_finding("texture"), make_finding("edge", evidence=HOSTILE)],
        [make_finding("texture")],
        [make_finding("texture"), make_finding("anatomy")],
        [],
    )
    yield made
    made.desk.studio.close()
    made.desk.database.dispose()


def room_of(workplace: Workplace, recipe: Recipe, accounts: list[Account]) -> Room:
    desk = Desk(
        database=workplace.desk.database,
        recipe=recipe,
        store=workplace.desk.store,
        studio=Team(workplace.server, accounts),
    )
    return Room(desk, workplace.server, accounts)


# Exemplars


@pytest.fixture
def slots(workplace: Workplace, experts: list[Account], tmp_path: Path) -> Iterator[Room]:
    """A recipe of its own that asks for two fake exemplars, pushed."""
    folder = tmp_path / "recipe"
    shutil.copytree(workplace.desk.recipe.folder, folder)
    recipe = with_review(load_recipe(folder), exemplars=ExemplarSlots(fake=2, real=0))
    room = room_of(workplace, recipe, experts)
    push(room.desk)
    yield room
    room.desk.studio.close()


def fill(room: Room, task: dict[str, Any], *results: dict[str, Any], **texts: str) -> int:
    said = {"own": "It repeats.", "merged": "This image is fake, because:\n1. It repeats.", **texts}
    answers = [written(name, text) for name, text in said.items() if text]
    return room.answer(room.accounts[0], task, *answers, *results)


def test_slots_go_to_different_categories_and_show_the_teachers_words(slots: Room) -> None:
    assert push(slots.desk).made == 0
    tasks = [task for _, task in slots.tasks(TaskKind.EXEMPLAR)]
    assert len(tasks) == 2
    for task in tasks:
        assert set(task["data"]) == {"image", "key", "heading", "drafted"}
        drafted = {item["from_name"]: item["value"] for item in task["predictions"][0]["result"]}
        assert drafted["merged"]["text"] == [task["data"]["drafted"]]
        assert "texture" in drafted["categories"]["choices"]
        assert task["data"]["drafted"].startswith("This image is fake, because:\n1. ")
    assert {len(task["predictions"][0]["result"][1]["value"]["choices"]) for task in tasks} == {2}
    assert any(HOSTILE.strip() in task["data"]["drafted"] for task in tasks)


def test_a_finished_slot_becomes_an_exemplar_of_the_recipe(slots: Room, tmp_path: Path) -> None:
    (_, first), (_, second) = slots.tasks(TaskKind.EXEMPLAR)
    merged = f"This image is fake, because:\n1. It repeats.\n2. {HOSTILE}"
    fill(slots, first, chosen("categories", "anatomy", "edge"), merged=merged)
    assert pull(slots.desk).new == {AnnotationFate.COUNTED: 1}
    database, recipe = slots.desk.database, slots.desk.recipe
    assert standing(database, recipe).exemplars[FAKE] == Filled(done=1, wanted=2)

    written_to = write_exemplars(
        database, recipe, finished(database, recipe), store=slots.desk.store
    )
    assert written_to == recipe.folder / MERGED_FILE
    later = with_review(load_recipe(recipe.folder), exemplars=ExemplarSlots(fake=2, real=0))
    exemplar = later.exemplars[-1]
    assert (exemplar.description, exemplar.label) == (merged.strip(), FAKE)
    assert set(exemplar.categories) == {"anatomy", "edge"}
    shown = choose_demonstrations(later, later.arms[0], guidance=["anatomy", "edge"])
    assert exemplar in shown.exemplars
    assert len(list((recipe.folder / "exemplars").iterdir())) == 1
    assert campaign_id_of(later) != campaign_id_of(recipe)
    text = written_to.read_bytes()
    write_exemplars(database, later, finished(database, later), store=slots.desk.store)
    assert written_to.read_bytes() == text
    write_exemplars(database, later, finished(database, later))
    assert list((recipe.folder / "exemplars").iterdir()) == []
    assert len(load_recipe(recipe.folder).exemplars) == len(later.exemplars)

    # what an expert answers in the project of the campaign before is not lost
    fill(slots, second, chosen("categories", "texture"))
    after = Room(
        Desk(database=database, recipe=later, store=slots.desk.store, studio=slots.desk.studio),
        slots.server,
        slots.accounts,
    )
    assert push(after.desk).made == 0
    assert pull(after.desk).new == {AnnotationFate.COUNTED: 1}
    assert filled_slots(database, later)[FAKE].done == 2


def test_a_slot_that_lacks_something_is_set_aside_and_one_taken_back_is_free(slots: Room) -> None:
    (_, first), (_, second) = slots.tasks(TaskKind.EXEMPLAR)
    fill(slots, first, chosen("categories", "edge"), own="")
    annotation = fill(slots, second, chosen("categories", "edge"))
    fill(slots, second)
    assert pull(slots.desk).new == {AnnotationFate.COUNTED: 1, AnnotationFate.UNREADABLE: 2}
    reasons = {flag.reason for flag in standing(slots.desk.database, slots.desk.recipe).flags}
    assert reasons == {
        "the expert's own words are missing",
        "the merged description is missing, or the aspects that it speaks of",
    }
    with api(slots.server) as owner:
        owner.delete(f"/api/annotations/{annotation}/").raise_for_status()
    pull(slots.desk, full=True)
    assert filled_slots(slots.desk.database, slots.desk.recipe)[FAKE].done == 0


def test_exemplars_of_one_label_alone_are_not_written(slots: Room) -> None:
    recipe = slots.desk.recipe.model_copy(update={"exemplars": ()})
    with pytest.raises(ConfigError, match=r"no (fake|real) one is finished"):
        write_exemplars(slots.desk.database, recipe, [])
    assert not (recipe.folder / MERGED_FILE).exists()


# Preferences


@pytest.fixture
def study(workplace: Workplace, experts: list[Account]) -> Iterator[Room]:
    """Both experts are to judge three of four images that two arms have drafted, pushed."""
    asked = PreferenceStudy(arms=("main", "plain"), images=3, experts=2)
    recipe = with_review(workplace.desk.recipe, preference=asked)
    database = workplace.desk.database
    for draft, image in zip(workplace.drafts, images_in(workplace), strict=True):
        said = make_finding("theme", evidence=PLAIN)
        store_draft(database, draft.campaign_id, image, said, arm="plain", question="plain")
    room = room_of(workplace, recipe, experts)
    push(room.desk)
    yield room
    room.desk.studio.close()


def images_in(workplace: Workplace) -> list[ImageRecord]:
    ids = [draft.image_id for draft in workplace.drafts]
    with workplace.desk.database.read() as session:
        found = images_by_id(session, ids)
    return [found[image_id] for image_id in ids]


def vote(room: Room, account: Account, task: dict[str, Any], *, for_main: bool) -> int:
    """Prefer one of the arms, which an expert could not tell apart."""
    is_left = PLAIN not in task["data"]["text_left"]
    side = "left" if is_left == for_main else "right"
    return room.answer(account, task, chosen("preferred", side))


def test_every_expert_judges_every_image_and_each_arm_stands_left_as_often(study: Room) -> None:
    assert push(study.desk).made == 0
    tasks = study.tasks(TaskKind.PREFERENCE)
    judged = Counter(study.image_of(TaskKind.PREFERENCE, task) for _, task in tasks)
    assert set(judged.values()) == {2}
    assert len(judged) == 3
    for _, task in tasks:
        assert set(task["data"]) == {"image", "key", "text_left", "text_right"}
        assert task["predictions"] == []
        assert "main" not in json.dumps(task["data"])
    owners = Counter(owner for owner, _ in tasks)
    assert set(owners.values()) == {3}


def test_votes_are_counted_by_arm_and_by_order(study: Room) -> None:
    by_owner: dict[str, list[dict[str, Any]]] = {}
    for owner, task in study.tasks(TaskKind.PREFERENCE):
        by_owner.setdefault(str(owner), []).append(task)
    first, second = sorted(by_owner)
    for task in by_owner[first]:
        vote(study, study.accounts[0], task, for_main=True)
    for number, task in enumerate(by_owner[second]):
        vote(study, study.accounts[1], task, for_main=number > 0)
    pull(study.desk)
    found = measure_preferences(study.desk.database, study.desk.recipe)
    assert found.result is not None
    assert found.result.wins == exact_share(5, 6)
    assert found.result.experts == {first: 1.0, second: pytest.approx(2 / 3)}
    now = standing(study.desk.database, study.desk.recipe)
    assert now.flags == []
    assert now.preferences == Filled(done=6, wanted=6)
    text = "\n".join(report_as_text(found))
    assert "main was preferred to plain in 83.3% of 6 votes (6 asked for), 2 experts" in text


def test_a_vote_in_anothers_project_counts_for_nobody_and_one_taken_back_no_longer(
    study: Room,
) -> None:
    tasks = study.tasks(TaskKind.PREFERENCE)
    owners = sorted({str(owner) for owner, _ in tasks})
    first = next(task for owner, task in tasks if owner == owners[0])
    vote(study, study.accounts[1], first, for_main=True)
    mine = vote(study, study.accounts[0], first, for_main=True)
    assert pull(study.desk).new == {AnnotationFate.COUNTED: 1, AnnotationFate.UNREADABLE: 1}
    with api(study.server) as owner:
        owner.delete(f"/api/annotations/{mine}/").raise_for_status()
    pull(study.desk, full=True)
    assert measure_preferences(study.desk.database, study.desk.recipe).result is None


def test_the_commands_say_what_a_recipe_does_not_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKESCOPE_HOME", str(tmp_path))
    open_database(load_settings(fakescope_home=tmp_path)).dispose()
    for command, setting in (
        ("exemplars", "review.exemplars"),
        ("preference", "review.preference"),
    ):
        done = CliRunner().invoke(app, [command])
        assert done.exit_code == 2
        assert setting in done.output
