"""Blind labels through a real Label Studio: who gets what, what can be seen, what comes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from annotation.desk import Desk
from annotation.projects import opened_projects, projects_of
from annotation.pull import pull
from annotation.server import INSTALL, is_installed, own_server
from annotation.standing import standing
from annotation.studio import Studio
from core.recipe import GoldEntry
from core.records import Authenticity, ImageRecord, TaskKind, WorkState
from db.blind import guidance_among, labels_among
from db.images import images_by_id, save_images
from db.quality import measure_quality
from db.studio import expert_of, tasks_of
from db.work import work_counts
from generation.campaign import prepare
from generation.steering import steering
from tests.brokers import skip_or_fail
from tests.label_studio import (
    Account,
    Server,
    api,
    make_picture,
    make_workplace,
    push,
    sign_up,
)

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of our own, whose accounts are those of this file."""
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    with own_server(tmp_path_factory.mktemp("blind")) as access:
        yield Server(access.url, access.token)


@dataclass
class Room:
    """A desk whose recipe asks blind experts, four images, and three experts."""

    desk: Desk
    server: Server
    images: list[ImageRecord]
    accounts: dict[str, Account]
    """by pseudonym"""

    def tasks(self, expert: str) -> list[dict[str, Any]]:
        """What the server has for an expert."""
        kind = self.desk.kind(TaskKind.BLIND)
        found = []
        for project in projects_of(self.desk, kind):
            if project.owner == expert:
                found += [*self.desk.studio.tasks(project.project_id or 0)]
        return found

    def image_of(self, task: dict[str, Any]) -> ImageRecord:
        kind = self.desk.kind(TaskKind.BLIND)
        with self.desk.database.read() as session:
            known = {
                key: shown
                for project in projects_of(self.desk, kind)
                for key, shown in tasks_of(session, project.project_key).items()
            }
        image_id = known[task["data"]["key"]].image_id
        return next(image for image in self.images if image.image_id == image_id)

    def answer(self, by: str, task: dict[str, Any], verdict: Authenticity, *categories: str) -> int:
        results = [
            _chosen("verdict", [str(verdict)]),
            _chosen("confidence", ["high"]),
            *([_chosen("categories", list(categories))] if categories else []),
        ]
        client = api(self.server, self.accounts[by])
        made = client.post(f"/api/tasks/{task['id']}/annotations/", json={"result": results})
        made.raise_for_status()
        return int(made.json()["id"])

    def pull(self) -> None:
        pull(self.desk)


def _chosen(name: str, chosen: list[str]) -> dict[str, Any]:
    parts = {"id": name, "from_name": name, "to_name": "image", "type": "choices"}
    return {**parts, "value": {"choices": chosen}}


@pytest.fixture(scope="module")
def three(server: Server) -> list[Account]:
    return [sign_up(server) for _ in range(3)]


@pytest.fixture
def room(server: Server, three: list[Account], tmp_path: Path) -> Iterator[Room]:
    made = make_workplace(tmp_path, server, [], [], [], [])
    drafting = made.desk.recipe.settings.drafting.model_copy(update={"blind": True})
    settings = made.desk.recipe.settings.model_copy(update={"drafting": drafting})
    recipe = made.desk.recipe.model_copy(
        update={"settings": settings, "drafting_digest": "blind" + made.desk.recipe.drafting_digest}
    )
    desk = Desk(
        database=made.desk.database,
        recipe=recipe,
        store=made.desk.store,
        studio=Studio(server.url, server.api_key, server=str(tmp_path)),
    )
    with desk.database.write() as session:
        names = [expert_of(session, desk.studio.server, account.user_id) for account in three]
    images = [draft.image_id for draft in made.drafts]
    with desk.database.read() as session:
        found = images_by_id(session, images)
    yield Room(desk, server, [found[name] for name in images], dict(zip(names, three, strict=True)))
    desk.studio.close()
    made.desk.studio.close()
    desk.database.dispose()


def test_each_image_goes_to_two_experts_and_shows_nothing_but_itself(room: Room) -> None:
    assert push(room.desk).made == 8
    assert push(room.desk).made == 0
    seen = [room.image_of(task).image_id for name in room.accounts for task in room.tasks(name)]
    assert sorted(seen) == sorted([image.image_id for image in room.images] * 2)
    for name in room.accounts:
        for task in room.tasks(name):
            image = room.image_of(task)
            assert set(task["data"]) == {"image", "key"}
            assert task["predictions"] == []
            told = json.dumps([task["data"], task.get("meta"), task["file_upload"]])
            for secret in (image.image_id, image.sha256, image.path, image.source, "fake", "real"):
                assert str(secret) not in told


def test_guidance_is_what_both_chose_and_a_third_settles_the_rest(room: Room) -> None:
    push(room.desk)
    first, second, third, fourth = room.images
    for name in room.accounts:
        for task in room.tasks(name):
            image = room.image_of(task)
            assert image.label is not None
            others = sorted(room.accounts)
            if image == first:
                room.answer(name, task, image.label, "texture", "edge")
            elif image == second:  # nothing in common
                own = ["texture", "edge", "clarity"][others.index(name)]
                room.answer(name, task, image.label, own)
            elif image == third:
                room.answer(name, task, image.label.opposite)
    room.pull()
    with room.desk.database.read() as session:
        found = guidance_among(session, [image.image_id for image in room.images])
    assert set(found) == {first.image_id}
    assert set(found[first.image_id].categories) == {"texture", "edge"}
    assert push(room.desk).made == 2  # the third expert, for the second and the third image
    for name in room.accounts:
        for task in room.tasks(name):
            if task["annotations"]:
                continue
            image = room.image_of(task)
            assert image.label is not None
            if image == second:
                room.answer(name, task, image.label, "texture", "edge", "clarity")
            elif image == third:
                room.answer(name, task, image.label.opposite)
    room.pull()
    with room.desk.database.read() as session:
        found = guidance_among(session, [image.image_id for image in room.images])
    assert len(found[second.image_id].categories) == 2
    assert found[third.image_id].hard is not None
    assert fourth.image_id not in found
    now = standing(room.desk.database, room.desk.recipe)
    assert (now.guided_images, now.hard_images) == (2, 1)
    campaign = prepare(room.desk.database, room.desk.store, room.desk.recipe)
    with room.desk.database.read() as session:
        counts = work_counts(session, campaign.campaign_id)
    assert counts == {WorkState.GUIDED: 2, WorkState.QUARANTINED: 1}
    assert campaign.due == 2
    arm = room.desk.recipe.arms[0]
    steered = steering(room.desk.database, room.desk.recipe, arm, [first.image_id])
    assert set(steered[first.image_id]) == {"texture", "edge"}


def test_an_answer_in_another_experts_project_is_nobodys_word(room: Room) -> None:
    push(room.desk)
    owner, other = sorted(room.accounts)[:2]
    task = room.tasks(owner)[0]
    room.answer(other, task, REAL)
    room.pull()
    (flag,) = standing(room.desk.database, room.desk.recipe).flags
    assert flag.reason is not None
    assert owner in flag.reason
    room.answer(owner, task, FAKE)
    room.pull()
    assert len(standing(room.desk.database, room.desk.recipe).flags) == 1


def test_a_label_that_was_taken_back_is_asked_for_again_of_nobody_else(room: Room) -> None:
    push(room.desk)
    owner = sorted(room.accounts)[0]
    task = room.tasks(owner)[0]
    annotation = room.answer(owner, task, FAKE, "texture")
    room.pull()
    api(room.server).delete(f"/api/annotations/{annotation}/").raise_for_status()
    pull(room.desk, full=True)
    assert push(room.desk).made == 0  # its expert still has the task
    room.answer(owner, task, REAL)
    room.pull()
    assert standing(room.desk.database, room.desk.recipe).guided_images == 0


def test_no_answer_is_lost_when_the_recipe_begins_a_new_campaign(room: Room) -> None:
    push(room.desk)
    first, *_ = room.images
    names = [
        name
        for name in room.accounts
        if first in [room.image_of(task) for task in room.tasks(name)]
    ]
    (left,) = set(room.accounts) - set(names)
    before = room.desk
    before_tasks = {name: room.tasks(name) for name in room.accounts}
    shown = {task["id"]: room.image_of(task) for tasks in before_tasks.values() for task in tasks}
    digest = f"later {before.recipe.drafting_digest}"  # as after `exemplars --write`
    later = before.recipe.model_copy(update={"drafting_digest": digest})
    room.desk = replace(before, recipe=later)
    assert push(room.desk).made == 0  # every image is before as many experts as it needs

    for name in names:
        (task,) = (t for t in before_tasks[name] if shown[t["id"]] == first)
        room.answer(name, task, FAKE, "texture", "edge")
    room.pull()

    with room.desk.database.read() as session:
        found = guidance_among(session, [first.image_id])
    assert set(found[first.image_id].categories) == {"texture", "edge"}
    assert standing(room.desk.database, room.desk.recipe).guided_images == 1
    opened = {project.owner for project in opened_projects(room.desk)}
    assert {left, *names} <= opened  # experts are told where their other tasks are

    (project,) = (p for p in projects_of(before, before.kind(TaskKind.BLIND)) if p.owner == left)
    waiting = len(before_tasks[left])
    with api(room.server) as lead:  # who tidies up ends what waits there, and no more
        lead.delete(f"/api/projects/{project.project_id}/").raise_for_status()
    room.pull()
    assert push(room.desk).made == waiting
    with room.desk.database.read() as session:
        assert guidance_among(session, [first.image_id]) == found


def test_who_has_not_judged_a_gold_image_gets_it_as_any_other(room: Room) -> None:
    gold_image = room.images[0]
    entry = GoldEntry(image=gold_image.image_id, categories=("texture", "edge"))
    push(room.desk)
    tasks = {name: room.tasks(name) for name in room.accounts}
    (third,) = (
        name
        for name, own in tasks.items()
        if gold_image not in [room.image_of(task) for task in own]
    )
    room.desk = with_gold(room.desk, entry)
    added = [make_picture(room.desk.store, 10 + number) for number in range(6)]
    with room.desk.database.write() as session:
        save_images(session, added)
    room.images += added
    push(room.desk)

    golden = [
        (name, task)
        for name in room.accounts
        for task in room.tasks(name)
        if room.image_of(task) == gold_image and task not in tasks[name]
    ]
    ((name, task),) = golden
    assert name == third
    assert set(task["data"]) == {"image", "key"}
    room.answer(third, task, FAKE, "texture", "clarity")
    room.pull()
    with room.desk.database.read() as session:
        assert labels_among(session, [gold_image.image_id]) == {}
    scores = measure_quality(room.desk.database, room.desk.recipe).gold[TaskKind.BLIND]
    assert (scores[third].right_verdicts, scores[third].verdicts) == (1, 1)
    assert (scores[third].precision, scores[third].recall) == (0.5, 0.5)


def with_gold(desk: Desk, *entries: GoldEntry) -> Desk:
    review = desk.recipe.settings.review
    gold = review.gold.model_copy(update={"share": 0.2})
    settings = desk.recipe.settings.model_copy(
        update={"review": review.model_copy(update={"gold": gold})}
    )
    changed = desk.recipe.model_copy(update={"settings": settings, "gold": entries})
    return replace(desk, recipe=changed)
