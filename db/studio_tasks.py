"""Where the tasks of images are, so that they can be opened, and the work that does not count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session, aliased

from core.records import AnnotationFate, TaskKind
from db.statements import batches
from db.tables import AnnotationVersionRow, StudioProjectRow, StudioTaskRow

FLAGGED = (AnnotationFate.OVERWRITTEN, AnnotationFate.UNREADABLE)
"""fates of annotations that somebody has to look at"""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPlace:
    """A task on a server."""

    image_id: str
    kind: TaskKind
    server: str
    """its address, or `own` for the one that runs here"""
    project_id: int
    task_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FlaggedWork:
    """An annotation whose newest version does not count."""

    task: TaskPlace
    expert: str | None
    fate: AnnotationFate
    reason: str | None


def tasks_about(
    session: Session, campaign_id: str, image_ids: Sequence[str]
) -> dict[str, list[TaskPlace]]:
    """The tasks of these images that are on a server, by image."""
    found: dict[str, list[TaskPlace]] = {}
    for batch in batches(list(image_ids)):
        statement = _tasks(campaign_id).where(StudioTaskRow.image_id.in_(batch))
        for row in session.execute(statement.order_by(StudioTaskRow.task_key)).mappings():
            found.setdefault(row["image_id"], []).append(TaskPlace(**row))
    return found


def flagged_work(session: Session, campaign_id: str, *, limit: int) -> list[FlaggedWork]:
    """Annotations that were overwritten or cannot be read, the latest first."""
    later = aliased(AnnotationVersionRow)
    columns = (AnnotationVersionRow.expert, AnnotationVersionRow.fate, AnnotationVersionRow.reason)
    statement = (
        _tasks(campaign_id, *columns)
        .join(AnnotationVersionRow, AnnotationVersionRow.task_key == StudioTaskRow.task_key)
        .where(
            AnnotationVersionRow.fate.in_(FLAGGED),
            ~exists().where(
                later.task_key == AnnotationVersionRow.task_key,
                later.annotation_id == AnnotationVersionRow.annotation_id,
                later.number > AnnotationVersionRow.number,
            ),
        )
        .order_by(AnnotationVersionRow.created_at.desc(), AnnotationVersionRow.version_id)
        .limit(limit)
    )
    found = []
    for row in session.execute(statement).mappings():
        said = {name: row[name] for name in ("expert", "fate", "reason")}
        place = {name: value for name, value in row.items() if name not in said}
        found.append(FlaggedWork(task=TaskPlace(**place), **said))
    return found


def _tasks(campaign_id: str, *columns: Any) -> Select[Any]:
    return (
        select(
            StudioTaskRow.image_id,
            StudioProjectRow.kind,
            StudioProjectRow.server,
            StudioProjectRow.project_id,
            StudioTaskRow.task_id,
            *columns,
        )
        .select_from(StudioTaskRow)
        .join(StudioProjectRow, StudioProjectRow.project_key == StudioTaskRow.project_key)
        .where(
            StudioProjectRow.campaign_id == campaign_id,
            StudioProjectRow.project_id.is_not(None),
            StudioTaskRow.task_id.is_not(None),
        )
    )
