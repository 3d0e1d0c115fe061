"""How far campaigns are: the funnel by generator and source, what is held up, and the pace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, case, func, or_, select
from sqlalchemy.orm import Session

from core.records import ImageRecord, WorkState
from db.images import IMAGE_COLUMNS, image_of
from db.tables import AttemptRow, CampaignRow, DraftRow, ImageRow, WorkRow
from db.work import UNDRAFTED, WAITS_FOR_BATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignSummary:
    """A campaign, as it is chosen from several."""

    campaign_id: str
    recipe: str
    recipe_folder: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class FunnelCount:
    """How much work on images of one origin, in one arm, is in one state."""

    source: str
    generator: str | None
    """None: photographs"""
    arm: str
    state: WorkState
    images: int


class Wait(StrEnum):
    """Why nobody can claim an image at this moment."""

    EXPIRED = "expired"
    """claimed by a worker that has not been heard of in time"""
    LATER = "later"
    """given back, not to be tried again yet"""
    IN_BATCH = "in_batch"
    """sent, and not answered yet"""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldUp:
    """An image that waits for something else than a free worker, in one arm."""

    image: ImageRecord
    arm: str
    wait: Wait
    tries: int
    reason: str
    """why the last call about it failed; empty: it did not, or there was none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast drafts came lately, and when the rest will be done at that pace."""

    drafts: int
    """newest ones, made since"""
    since: datetime
    due: int
    """images without a draft; those in batches are left out"""
    per_minute: float
    minutes_left: float | None
    """None: nothing came lately"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """An image that was quarantined in one arm."""

    image: ImageRecord
    arm: str
    reason: str
    tries: int


def campaigns(session: Session) -> list[CampaignSummary]:
    """All campaigns, the newest first."""
    columns = (
        CampaignRow.campaign_id,
        CampaignRow.recipe,
        CampaignRow.recipe_folder,
        CampaignRow.created_at,
    )
    newest = select(*columns).order_by(CampaignRow.created_at.desc(), CampaignRow.campaign_id)
    return [CampaignSummary(**row) for row in session.execute(newest).mappings()]


def arm_names(session: Session, campaign_id: str) -> list[str]:
    """The arms that have work or had it, by name."""
    statement = select(WorkRow.arm).where(WorkRow.campaign_id == campaign_id)
    return list(session.scalars(statement.distinct().order_by(WorkRow.arm)))


def funnel(session: Session, campaign_id: str) -> list[FunnelCount]:
    """The work of a campaign by source, generator, arm and state."""
    keys: list[Any] = [ImageRow.source, ImageRow.generator, WorkRow.arm, WorkRow.state]
    statement = (
        select(*keys, func.count().label("images"))
        .join(ImageRow, ImageRow.image_id == WorkRow.image_id)
        .where(WorkRow.campaign_id == campaign_id)
        .group_by(*keys)
        .order_by(*keys)
    )
    return [FunnelCount(**row) for row in session.execute(statement).mappings()]


def count_held_up(session: Session, campaign_id: str, *, now: datetime) -> dict[Wait, int]:
    """How much work waits for something else than a free worker, and for what."""
    counts = [func.count(case((condition, 1))) for condition in _waits(now).values()]
    statement = select(*counts).where(
        WorkRow.campaign_id == campaign_id, WorkRow.state.in_(UNDRAFTED)
    )
    return dict(zip(Wait, session.execute(statement).one(), strict=True))


def held_up_images(
    session: Session, campaign_id: str, *, now: datetime, limit: int, offset: int = 0
) -> list[HeldUp]:
    """The work that waits, by image and arm, with what the last call came to."""
    waits = _waits(now)
    last_call = (
        select(AttemptRow.reason)
        .where(
            AttemptRow.image_id == WorkRow.image_id,
            AttemptRow.campaign_id == campaign_id,
            AttemptRow.arm == WorkRow.arm,
        )
        .order_by(AttemptRow.started_at.desc())
        .limit(1)
        .scalar_subquery()
    )
    wait = case(*((condition, str(name)) for name, condition in waits.items()))
    columns: Sequence[Any] = (*IMAGE_COLUMNS, WorkRow.arm, WorkRow.tries)
    statement = (
        select(*columns, wait.label("wait"), func.coalesce(last_call, "").label("said"))
        .join(ImageRow, ImageRow.image_id == WorkRow.image_id)
        .where(
            WorkRow.campaign_id == campaign_id,
            WorkRow.state.in_(UNDRAFTED),
            or_(*waits.values()),
        )
        .order_by(WorkRow.image_id, WorkRow.arm)
        .limit(limit)
        .offset(offset)
    )
    return [
        HeldUp(
            image=image_of(row),
            arm=row["arm"],
            wait=Wait(row["wait"]),
            tries=row["tries"],
            reason=row["said"],
        )
        for row in session.execute(statement).mappings()
    ]


def _waits(now: datetime) -> dict[Wait, ColumnElement[bool]]:
    return {
        Wait.EXPIRED: (WorkRow.state == WorkState.DRAFTING) & (WorkRow.claimed_until <= now),
        Wait.LATER: WorkRow.due_at > now,
        Wait.IN_BATCH: WAITS_FOR_BATCH,
    }


def pace(session: Session, campaign_id: str, *, now: datetime, minutes: int) -> Pace:
    """The pace of the last so many minutes."""
    since = now - timedelta(minutes=minutes)
    newest = select(func.count()).where(
        DraftRow.campaign_id == campaign_id,
        DraftRow.superseded_by.is_(None),
        DraftRow.created_at > since,
    )
    undrafted = select(func.count()).where(
        WorkRow.campaign_id == campaign_id, WorkRow.state.in_(UNDRAFTED), ~WAITS_FOR_BATCH
    )
    drafts, due = session.execute(newest).scalar_one(), session.execute(undrafted).scalar_one()
    per_minute = drafts / minutes
    return Pace(
        drafts=drafts,
        since=since,
        due=due,
        per_minute=per_minute,
        minutes_left=due / per_minute if drafts else None,
    )


def set_aside_images(
    session: Session, campaign_id: str, reason: str | None, *, limit: int, offset: int = 0
) -> list[SetAside]:
    """Quarantined work with this reason (None: with any), by image and arm."""
    columns: Sequence[Any] = (*IMAGE_COLUMNS, WorkRow.arm, WorkRow.reason, WorkRow.tries)
    statement = (
        select(*columns)
        .join(ImageRow, ImageRow.image_id == WorkRow.image_id)
        .where(WorkRow.campaign_id == campaign_id, WorkRow.state == WorkState.QUARANTINED)
        .order_by(WorkRow.image_id, WorkRow.arm)
        .limit(limit)
        .offset(offset)
    )
    if reason is not None:
        statement = statement.where(func.coalesce(WorkRow.reason, "") == reason)
    return [
        SetAside(
            image=image_of(row), arm=row["arm"], reason=row["reason"] or "", tries=row["tries"]
        )
        for row in session.execute(statement).mappings()
    ]
