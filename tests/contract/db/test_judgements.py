"""Merged descriptions and preferences, on both databases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from core.records import Authenticity, MergedDescription, Preference, TaskKind
from db.engine import Database
from db.judgements import DESCRIPTIONS, PREFERENCES
from db.studio import (
    StudioProject,
    StudioTask,
    awaited_tasks,
    drafted_images,
    earlier_projects,
    refuse_task,
    save_project,
    save_tasks,
)
from db.tombstones import withdraw
from tests.campaigns import start_campaign, store_draft, store_images
from tests.unit.records import make_finding, make_tombstone

SERVER = "https://studio.example"


def description(name: str, image_id: str, draft_id: str, **changes: Any) -> MergedDescription:
    values = {
        "description_id": name,
        "image_id": image_id,
        "draft_id": draft_id,
        "expert": "expert-1",
        "version": 1,
        "own": "A hand with six fingers.\u202e\x00",
        "merged": "This image is fake, because:\n1. It has six fingers.",
        "categories": ("anatomy",),
    }
    return MergedDescription(**{**values, **changes})


def test_the_newest_version_of_each_expert_counts_unless_taken_back(database: Database) -> None:
    (image,) = store_images(database, 1)
    draft = store_draft(database, start_campaign(database, [image]), image, make_finding())
    first = description("d-1", image.image_id, draft.draft_id)
    other = description("d-2", image.image_id, draft.draft_id, expert="expert-2")
    later = description("d-3", image.image_id, draft.draft_id, version=2, categories=("edge",))
    with database.write() as session:
        assert DESCRIPTIONS.next_version(session, image.image_id, "expert-1") == 1
        assert [DESCRIPTIONS.save(session, each) for each in (first, other, later)] == [True] * 3
        assert not DESCRIPTIONS.save(session, first)
        assert DESCRIPTIONS.next_version(session, image.image_id, "expert-1") == 3
    with database.read() as session:
        found = DESCRIPTIONS.counting(session)
    assert [each.description_id for each in found] == ["d-2", "d-3"]
    assert found[1].categories == ("edge",)
    with database.write() as session:
        DESCRIPTIONS.withdraw(session, ["d-3", "d-1"])
    with database.read() as session:
        assert [each.description_id for each in DESCRIPTIONS.counting(session)] == ["d-2"]
    withdraw(database, make_tombstone(image))
    with database.read() as session:
        assert DESCRIPTIONS.counting(session) == []


def test_of_each_pair_the_newest_preference_counts(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    one = store_draft(database, campaign_id, image, make_finding())
    two = store_draft(database, campaign_id, image, question="plain", arm="plain")
    said = Preference(
        preference_id="p-1",
        image_id=image.image_id,
        expert="expert-1",
        version=1,
        preferred=one.draft_id,
        other=two.draft_id,
        preferred_first=False,
    )
    with database.write() as session:
        PREFERENCES.save(session, said)
    with database.read() as session:
        assert PREFERENCES.counting(session) == [said]
    changed = replace(
        said, preference_id="p-2", version=2, preferred=said.other, other=said.preferred
    )
    other_pair = replace(said, preference_id="p-3", version=3, other=one.draft_id)
    with database.write() as session:
        PREFERENCES.save(session, changed)
        PREFERENCES.save(session, other_pair)
    with database.read() as session:
        assert PREFERENCES.counting(session) == [changed, other_pair]


def test_images_are_found_with_their_newest_draft_in_each_arm(database: Database) -> None:
    first, second = store_images(database, 2)
    campaign_id = start_campaign(database, [first, second])
    store_draft(database, campaign_id, first, make_finding())
    newer = store_draft(database, campaign_id, first, make_finding("edge"), question="again")
    plain = store_draft(database, campaign_id, first, question="plain", arm="plain")
    only = store_draft(database, campaign_id, second)
    with database.read() as session:
        found = drafted_images(session, campaign_id, ["main", "plain"], sources=["demo"])
        assert drafted_images(session, campaign_id, ["main"], sources=["other"]) == {}
        assert set(drafted_images(session, campaign_id, ["plain"])) == {first.image_id}
    assert found[first.image_id].drafts == {"main": newer.draft_id, "plain": plain.draft_id}
    assert found[second.image_id].drafts == {"main": only.draft_id}
    assert {image.label for image in found.values()} == set(Authenticity)


def project(key: str, campaign_id: str, number: int = 1, **changes: Any) -> StudioProject:
    values = {
        "project_key": key,
        "server": SERVER,
        "campaign_id": campaign_id,
        "form_id": "form-1",
        "kind": TaskKind.EXEMPLAR,
        "number": number,
    }
    return StudioProject(**{**values, **changes})


def task(key: str, project_key: str, image_id: str, **changes: Any) -> StudioTask:
    values = {"subject_id": f"subject-{key}", "image_id": image_id}
    return StudioTask(task_key=key, project_key=project_key, **{**values, **changes})


def test_a_task_is_awaited_that_is_there_or_still_to_be_made_in_todays_form(
    database: Database,
) -> None:
    (image,) = store_images(database, 1)
    today = start_campaign(database, [image])
    other = start_campaign(database, [image], name="another")
    made = [
        project("now", today, owner="expert-1"),
        project("old-form", today, form_id="form-0"),
        project("blind", today, number=2, kind=TaskKind.BLIND),
        project("elsewhere", today, server="another"),
        project("other-recipe", other),
    ]
    tasks = [
        task("a", "now", image.image_id, task_id=7),
        task("b", "now", image.image_id),
        task("c", "now", image.image_id),
        task("d", "old-form", image.image_id, task_id=8),
        task("e", "old-form", image.image_id),
        task("f", "blind", image.image_id, task_id=9),
        task("g", "elsewhere", image.image_id, task_id=7),
        task("h", "other-recipe", image.image_id, task_id=10),
    ]
    with database.write() as session:
        for each in made:
            save_project(session, each)
        save_tasks(session, tasks)
        refuse_task(session, "c", "no picture")
    asked: dict[str, Any] = {
        "server": SERVER, "form_id": "form-1", "kind": TaskKind.EXEMPLAR, "campaign_id": today,
    }  # fmt: skip
    with database.read() as session:
        found = awaited_tasks(session, **asked)
        assert awaited_tasks(session, recipe="recipe", **asked) == found
        assert awaited_tasks(session, **{**asked, "campaign_id": other}) == [(tasks[-1], None)]
        tomorrow = earlier_projects(session, "recipe", "campaign-of-tomorrow", server=SERVER)
        assert {each.project_key for each in tomorrow} == {"now", "old-form", "blind"}
    assert found == [(tasks[0], "expert-1"), (tasks[1], "expert-1"), (tasks[3], None)]
