"""The one read model: where everything stands, and what it cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Exists, exists, func, select
from sqlalchemy.orm import Session

from core.records import AttemptOutcome, Authenticity, ReviewLevel, WorkState
from db.chains import count_chains_by_level
from db.images import ImageCounts, count_images
from db.ledger import Spending, attempts_by_outcome, spent
from db.tables import DraftRow, FindingRow, ImageRow
from db.work import campaign_ceiling, quarantined, stopped_because, work_counts


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where the images of a campaign stand, over all its arms."""

    campaign_id: str
    images: ImageCounts
    work: dict[WorkState, int]
    drafts: dict[Authenticity, int]
    """newest drafts by the label of their image"""
    fakes_without_trace: int
    """drafts of fakes with no finding that points to a fake"""
    photographs_with_trace: int
    """drafts of photographs with a finding that points to a fake"""
    chains: dict[ReviewLevel, int]
    quarantined: dict[str, int]
    """by reason"""
    stopped_because: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a campaign has spent, set aside and may spend."""

    campaign_id: str
    ceiling_usd: float | None
    spending: Spending
    by_outcome: dict[AttemptOutcome, int]


def status(session: Session, campaign_id: str) -> Status:
    """Where everything stands; a campaign that does not exist has nothing but images."""
    fakes, photographs = Authenticity.FAKE, Authenticity.REAL
    return Status(
        campaign_id=campaign_id,
        images=count_images(session),
        work=work_counts(session, campaign_id),
        drafts={label: _count_drafts(session, campaign_id, label) for label in Authenticity},
        fakes_without_trace=_count_drafts(session, campaign_id, fakes, ~_HAS_TRACE),
        photographs_with_trace=_count_drafts(session, campaign_id, photographs, _HAS_TRACE),
        chains=count_chains_by_level(session, campaign_id),
        quarantined=dict(Counter(reason for _, reason in quarantined(session, campaign_id))),
        stopped_because=stopped_because(session, campaign_id),
    )


def costs(session: Session, campaign_id: str) -> Costs:
    """What a campaign cost so far."""
    return Costs(
        campaign_id=campaign_id,
        ceiling_usd=campaign_ceiling(session, campaign_id),
        spending=spent(session, campaign_id),
        by_outcome=attempts_by_outcome(session, campaign_id),
    )


_HAS_TRACE: Exists = exists().where(
    FindingRow.reasoning_id == DraftRow.draft_id, FindingRow.points_to == Authenticity.FAKE
)


def _count_drafts(session: Session, campaign_id: str, label: Authenticity, *conditions: Any) -> int:
    statement = (
        select(func.count())
        .select_from(DraftRow)
        .join(ImageRow, ImageRow.image_id == DraftRow.image_id)
        .where(
            DraftRow.campaign_id == campaign_id,
            DraftRow.superseded_by.is_(None),
            ImageRow.label == label,
            *conditions,
        )
    )
    return session.execute(statement).scalar_one()
