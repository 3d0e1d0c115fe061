"""Disputes: the answers between which an adjudicator settles, as they were when it was asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.ids import content_id
from core.records import Correction, TaskKind
from db.reviews import COLUMNS, CORRECTIONS, corrections_of
from db.statements import batches, insert_missing
from db.tables import DisputedCorrectionRow, StudioProjectRow, StudioTaskRow, table_of

DISPUTED = table_of(DisputedCorrectionRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """The corrections of one draft that do not agree."""

    corrections: tuple[Correction, ...]

    @property
    def dispute_id(self) -> str:
        """Other answers are another dispute."""
        said = [correction.correction_id for correction in self.corrections]
        return content_id("dispute", said)

    @property
    def draft_id(self) -> str:
        return self.corrections[0].draft_id

    @property
    def image_id(self) -> str:
        return self.corrections[0].image_id


def save_disputes(session: Session, disputes: Sequence[Dispute]) -> None:
    """Remember disputes; what is remembered already stays."""
    rows = [
        {
            "dispute_id": dispute.dispute_id,
            "position": position,
            "correction_id": correction.correction_id,
        }
        for dispute in disputes
        for position, correction in enumerate(dispute.corrections)
    ]
    insert_missing(session, DISPUTED, rows)


def disputes_by_id(session: Session, dispute_ids: Sequence[str]) -> dict[str, Dispute]:
    """Disputes with their corrections, whether these count by now or not."""
    said: dict[str, list[Correction]] = defaultdict(list)
    for batch in batches(sorted(set(dispute_ids))):
        statement = (
            select(DISPUTED.c.dispute_id, *COLUMNS)
            .join(CORRECTIONS, CORRECTIONS.c.correction_id == DISPUTED.c.correction_id)
            .where(DISPUTED.c.dispute_id.in_(batch))
            .order_by(DISPUTED.c.dispute_id, DISPUTED.c.position)
        )
        rows = session.execute(statement).mappings().all()
        for row, correction in zip(rows, corrections_of(session, rows), strict=True):
            said[row["dispute_id"]].append(correction)
    return {name: Dispute(corrections=tuple(corrections)) for name, corrections in said.items()}


def images_before_adjudicator(session: Session, campaign_id: str, server: str) -> set[str]:
    """The images of which an adjudication task is on a server, or will be."""
    statement = (
        select(StudioTaskRow.image_id)
        .join(StudioProjectRow, StudioProjectRow.project_key == StudioTaskRow.project_key)
        .where(
            StudioProjectRow.campaign_id == campaign_id,
            StudioProjectRow.server == server,
            StudioProjectRow.kind == TaskKind.ADJUDICATION,
        )
    )
    return set(session.scalars(statement))
