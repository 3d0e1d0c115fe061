"""What we have on Label Studio servers, on both databases."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from core.records import AnnotationFate, Draft, TaskKind
from db.engine import Database
from db.studio import (
    AnnotationVersion,
    StudioProject,
    StudioTask,
    Subject,
    count_undelivered,
    drafts_by_id,
    expert_of,
    newest_versions,
    projects,
    refuse_task,
    save_project,
    save_tasks,
    save_version,
    set_polled_until,
    set_project_id,
    set_task_ids,
    tasks_of,
    undelivered_drafts,
    versions,
)
from tests.campaigns import start_campaign, store_draft, store_images
from tests.unit.records import make_finding

SERVER = "https://studio.example"


def drafts_in(database: Database, count: int) -> list[Draft]:
    """Drafts of one campaign, by image."""
    images = store_images(database, count)
    campaign_id = start_campaign(database, images)
    return [store_draft(database, campaign_id, image, make_finding()) for image in images]


def project_in(database: Database, draft: Draft, **changes: Any) -> StudioProject:
    values: dict[str, Any] = {
        "project_key": "project-1",
        "server": SERVER,
        "campaign_id": draft.campaign_id,
        "form_id": "form-1",
        "kind": TaskKind.REVIEW,
        "number": 1,
    }
    project = StudioProject(**{**values, **changes})
    with database.write() as session:
        save_project(session, project)
    return project


def task(key: str, draft: Draft, **changes: Any) -> StudioTask:
    values: dict[str, Any] = {
        "project_key": "project-1",
        "subject_id": draft.draft_id,
        "image_id": draft.image_id,
    }
    return StudioTask(task_key=key, **{**values, **changes})


def subject_of(draft: Draft) -> Subject:
    return Subject(subject_id=draft.draft_id, image_id=draft.image_id)


def version(number: int, fate: AnnotationFate, **changes: Any) -> AnnotationVersion:
    values: dict[str, Any] = {
        "version_id": f"version-{changes.get('annotation_id', 7)}-{number}",
        "task_key": "task-1",
        "annotation_id": 7,
        "number": number,
        "fate": fate,
        "raw": '{"id": 7}',
    }
    return AnnotationVersion(**{**values, **changes})


def test_a_project_is_remembered_before_it_has_a_number(database: Database) -> None:
    (draft,) = drafts_in(database, 1)
    project = project_in(database, draft)
    moment = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    with database.write() as session:
        set_project_id(session, project.project_key, 42)
        set_polled_until(session, project.project_key, moment)
    with database.read() as session:
        (known,) = projects(session, draft.campaign_id, server=SERVER, form_id="form-1")
        assert (known.project_id, known.polled_until) == (42, moment)
        assert projects(session, draft.campaign_id, server="another") == []
        assert projects(session, draft.campaign_id, form_id="form-2") == []


def test_a_second_project_of_the_same_place_is_refused(database: Database) -> None:
    (draft,) = drafts_in(database, 1)
    project_in(database, draft)
    with pytest.raises(IntegrityError):
        project_in(database, draft, project_key="project-2")


def test_a_draft_is_due_until_a_task_of_that_server_shows_it(database: Database) -> None:
    first, second, third = drafts_in(database, 3)
    project_in(database, first)
    project_in(database, first, project_key="project-2", server="another")
    tasks = [
        task("task-1", first, task_id=11),
        task("task-2", second, project_key="project-2", task_id=12),
    ]
    with database.write() as session:
        assert save_tasks(session, tasks) == 2
        assert save_tasks(session, tasks) == 0
    asked: dict[str, Any] = {
        "server": SERVER,
        "form_id": "form-1",
        "campaign_id": first.campaign_id,
        "arms": [first.arm],
    }
    with database.read() as session:
        due = undelivered_drafts(session, sources=["demo"], limit=None, **asked)
        assert due == [subject_of(second), subject_of(third)]
        assert undelivered_drafts(session, sources=["demo"], limit=1, **asked) == due[:1]
        assert undelivered_drafts(session, sources=["other"], limit=None, **asked) == []
        assert count_undelivered(session, first.campaign_id, [first.arm]) == 1
        assert count_undelivered(session, first.campaign_id, ["other"]) == 0


def test_a_task_that_was_never_made_is_made_in_the_form_of_today(database: Database) -> None:
    (draft,) = drafts_in(database, 1)
    project_in(database, draft)
    with database.write() as session:
        save_tasks(session, [task("task-1", draft)])
    asked: dict[str, Any] = {
        "server": SERVER,
        "campaign_id": draft.campaign_id,
        "arms": [draft.arm],
        "sources": ["demo"],
        "limit": None,
    }
    with database.read() as session:
        assert undelivered_drafts(session, form_id="form-1", **asked) == []
        assert undelivered_drafts(session, form_id="form-2", **asked) == [subject_of(draft)]
        assert count_undelivered(session, draft.campaign_id, [draft.arm]) == 1


def test_tasks_get_and_lose_their_number(database: Database) -> None:
    first, second = drafts_in(database, 2)
    project_in(database, first)
    with database.write() as session:
        save_tasks(session, [task("task-1", first), task("task-2", second)])
        set_task_ids(session, {"task-1": 11, "task-2": 12})
        set_task_ids(session, {"task-2": None})
        set_task_ids(session, {})
        refuse_task(session, "task-2", "no picture")
    with database.read() as session:
        known = tasks_of(session, "project-1")
    assert known == {
        "task-1": task("task-1", first, task_id=11),
        "task-2": task("task-2", second, refused="no picture"),
    }


def test_drafts_are_found_by_id_superseded_ones_too(database: Database) -> None:
    (old,) = drafts_in(database, 1)
    (image,) = store_images(database, 1)
    new = store_draft(database, old.campaign_id, image, question="again")
    with database.read() as session:
        found = drafts_by_id(session, [old.draft_id, new.draft_id, "draft-none"])
    assert found == {old.draft_id: old, new.draft_id: new}


def test_an_expert_keeps_the_pseudonym(database: Database) -> None:
    with database.write() as session:
        names = [
            expert_of(session, server, user_id)
            for server, user_id in [(SERVER, 5), (SERVER, 9), ("another", 5), (SERVER, 5)]
        ]
    assert names == ["expert-1", "expert-2", "expert-3", "expert-1"]


def test_versions_are_kept_and_the_newest_is_known(database: Database) -> None:
    (draft,) = drafts_in(database, 1)
    project_in(database, draft)
    saved = [
        version(1, AnnotationFate.COUNTED, lead_time_s=1.5),
        version(2, AnnotationFate.DELETED, reason="gone"),
        version(1, AnnotationFate.SKIPPED, annotation_id=8),
    ]
    with database.write() as session:
        save_tasks(session, [task("task-1", draft)])
        for item in saved:
            save_version(session, item)
    with database.read() as session:
        assert versions(session, ["task-1", "task-none"]) == {7: saved[:2], 8: saved[2:]}
        newest = [item for _, item in newest_versions(session, "project-1")]
    assert newest == saved[1:]
