"""What there still is of a withdrawn image, as far as the database knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from core.records import BatchState
from db.tables import (
    AnnotationVersionRow,
    AttemptRow,
    BatchLineRow,
    BatchRow,
    CampaignRow,
    ChainRow,
    CorrectionRow,
    DraftRow,
    FileRow,
    StudioProjectRow,
    StudioTaskRow,
    TombstoneRow,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBatch:
    """A batch with requests about an image, whose files the teacher may still have."""

    batch_id: str
    recipe: str
    recipe_folder: str | None
    state: BatchState


@dataclass(frozen=True, slots=True, kw_only=True)
class Remains:
    """What there still is of a withdrawn image, as far as the database knows."""

    files: tuple[str, ...]
    """the users' own, as source: name"""
    attempts: int
    drafts: int
    corrections: int
    annotation_versions: int
    chains: int
    tasks: dict[str, int]
    """in Label Studio, by server"""
    batches: tuple[HeldBatch, ...]


def remains_of(session: Session, image_id: str) -> Remains:
    """What there still is of an image."""
    versions = (
        select(func.count())
        .select_from(AnnotationVersionRow)
        .join(StudioTaskRow, StudioTaskRow.task_key == AnnotationVersionRow.task_key)
        .where(StudioTaskRow.image_id == image_id)
    )
    tasks = (
        select(StudioProjectRow.server, func.count())
        .join(StudioTaskRow, StudioTaskRow.project_key == StudioProjectRow.project_key)
        .where(StudioTaskRow.image_id == image_id, StudioTaskRow.task_id.is_not(None))
        .group_by(StudioProjectRow.server)
        .order_by(StudioProjectRow.server)
    )
    files = select(FileRow.source, FileRow.name).where(FileRow.image_id == image_id)
    ordered = files.order_by(FileRow.source, FileRow.name)
    return Remains(
        files=tuple(f"{source}: {name}" for source, name in session.execute(ordered)),
        attempts=_count(session, AttemptRow, image_id),
        drafts=_count(session, DraftRow, image_id),
        corrections=_count(session, CorrectionRow, image_id),
        annotation_versions=session.execute(versions).scalar_one(),
        chains=_count(session, ChainRow, image_id),
        tasks=dict(session.execute(tasks).all()),
        batches=tuple(_batches(session, [image_id])),
    )


def withdrawn_batches(session: Session, campaign_id: str) -> list[str]:
    """The batches of a campaign that ask about withdrawn images and were not cleaned up."""
    gone = select(TombstoneRow.image_id)
    statement = _held_batches(AttemptRow.image_id.in_(gone)).where(
        BatchRow.campaign_id == campaign_id
    )
    return [row["batch_id"] for row in session.execute(statement).mappings()]


def _batches(session: Session, image_ids: Sequence[str]) -> Iterator[HeldBatch]:
    statement = _held_batches(AttemptRow.image_id.in_(image_ids))
    return (HeldBatch(**row) for row in session.execute(statement).mappings())


def _held_batches(condition: ColumnElement[bool]) -> Any:
    """Batches with a line whose attempt meets a condition, and whose files were not deleted."""
    return (
        select(BatchRow.batch_id, CampaignRow.recipe, CampaignRow.recipe_folder, BatchRow.state)
        .distinct()
        .join(CampaignRow, CampaignRow.campaign_id == BatchRow.campaign_id)
        .join(BatchLineRow, BatchLineRow.batch_id == BatchRow.batch_id)
        .join(AttemptRow, AttemptRow.attempt_id == BatchLineRow.attempt_id)
        .where(BatchRow.deleted_at.is_(None), condition)
        .order_by(BatchRow.batch_id)
    )


def _count(session: Session, row: Any, image_id: str) -> int:
    statement = select(func.count()).select_from(row).where(row.image_id == image_id)
    return session.execute(statement).scalar_one()
