"""FakeChain records: never edited, never deleted; a new one supersedes the old."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from sys import intern
from typing import Any

from sqlalchemy import RowMapping, Select, func, insert, select
from sqlalchemy.orm import Session

from core.records import ImageRecord, Reasoning, ReasoningChain, ReviewLevel
from db.images import IMAGE_COLUMNS, image_of, of_sources
from db.newest import runs, take_places
from db.reasonings import reasonings_of, save_reasonings
from db.statements import batches, stream
from db.tables import ChainCorrectionRow, ChainRow, ImageRow, table_of
from db.tombstones import is_withdrawn

CHAINS = table_of(ChainRow)
CHAIN_COLUMNS = (
    ChainRow.chain_id,
    ChainRow.campaign_id,
    ChainRow.arm,
    ChainRow.draft_id,
    ChainRow.teacher,
    ChainRow.review_level,
    ChainRow.contradictions,
    ChainRow.merged_teachers,
)


def save_chains(session: Session, chains: Sequence[ReasoningChain]) -> int:
    """Store chains; each becomes the newest of its campaign, arm and image.

    Returns how many were not the newest before: 0 when the same chains are saved again.
    """
    return sum(_save_run(session, run) for run in runs(chains))


def newest_chains(
    session: Session,
    *,
    campaign_id: str,
    arms: Sequence[str],
    min_review: ReviewLevel,
    sources: Sequence[str] | None = None,
    exclude_sources: Sequence[str] = (),
) -> Iterator[tuple[ReasoningChain, ImageRecord]]:
    """The newest chain of each image at or above `min_review`, with the image, by image id.

    Withdrawn images are left out. No image may have chains in two of the arms.
    """
    statement = of_newest(select(*IMAGE_COLUMNS, *CHAIN_COLUMNS), campaign_id, arms, min_review)
    statement = of_sources(statement, sources, exclude_sources)
    for rows in stream(session, statement, ChainRow.image_id):
        ids = [row["chain_id"] for row in rows]
        reasonings = reasonings_of(session, ids)
        corrections = _correction_ids(session, ids)
        for row in rows:
            chain_id = row["chain_id"]
            yield _chain_of(row, reasonings[chain_id], corrections[chain_id]), image_of(row)


def chain_by_id(session: Session, chain_id: str) -> ReasoningChain | None:
    """The chain of this id, newest or not."""
    statement = select(ChainRow.image_id, *CHAIN_COLUMNS).where(ChainRow.chain_id == chain_id)
    row = session.execute(statement).mappings().one_or_none()
    if row is None:
        return None
    reasoning = reasonings_of(session, [chain_id])[chain_id]
    return _chain_of(row, reasoning, _correction_ids(session, [chain_id])[chain_id])


def chain_ids_of(session: Session, image_ids: Sequence[str]) -> set[str]:
    """All chains of some images, newest or not."""
    statement = select(ChainRow.chain_id).where(ChainRow.image_id.in_(image_ids))
    return set(session.scalars(statement))


def count_chains(
    session: Session,
    *,
    campaign_id: str,
    arms: Sequence[str],
    min_review: ReviewLevel = ReviewLevel.DRAFT,
    sources: Sequence[str] | None = None,
    exclude_sources: Sequence[str] = (),
) -> int:
    """How many chains `newest_chains` would give."""
    statement = of_newest(select(func.count()), campaign_id, arms, min_review)
    count: int = session.execute(of_sources(statement, sources, exclude_sources)).scalar_one()
    return count


def count_chains_by_level(session: Session, campaign_id: str) -> dict[ReviewLevel, int]:
    """The newest chains of a campaign by review level, over all arms, without withdrawn images."""
    rows = session.execute(
        select(ChainRow.review_level, func.count())
        .where(
            ChainRow.campaign_id == campaign_id,
            ChainRow.superseded_by.is_(None),
            ~is_withdrawn(ChainRow.image_id),
        )
        .group_by(ChainRow.review_level)
    )
    return dict(sorted(((level, count) for level, count in rows), key=lambda item: item[0].rank))


def _save_run(session: Session, run: Sequence[ReasoningChain]) -> int:
    chains = {chain.chain_id: chain for chain in run}
    moved = take_places(session, CHAINS, chains)
    _insert(session, [chain for chain in run if chain.chain_id in moved.new])
    return len(moved.new) + len(moved.again)


def _insert(session: Session, chains: Sequence[ReasoningChain]) -> None:
    save_reasonings(session, {chain.chain_id: chain.reasoning for chain in chains})
    corrections = [
        {"chain_id": chain.chain_id, "position": position, "correction_id": correction_id}
        for chain in chains
        for position, correction_id in enumerate(chain.correction_ids)
    ]
    if chains:
        session.connection().execute(insert(CHAINS), [_chain_values(chain) for chain in chains])
    if corrections:
        session.connection().execute(insert(table_of(ChainCorrectionRow)), corrections)


def of_newest(
    statement: Select[Any], campaign_id: str, arms: Sequence[str], min_review: ReviewLevel
) -> Select[Any]:
    """The same statement for the newest chains at or above `min_review`, joined to images."""
    levels = [level for level in ReviewLevel if level.rank >= min_review.rank]
    return (
        statement.select_from(ChainRow)
        .join(ImageRow, ImageRow.image_id == ChainRow.image_id)
        .where(
            ChainRow.campaign_id == campaign_id,
            ChainRow.arm.in_(arms),
            ChainRow.review_level.in_(levels),
            ChainRow.superseded_by.is_(None),
            ~is_withdrawn(ChainRow.image_id),
        )
    )


def _correction_ids(session: Session, chain_ids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for batch in batches(chain_ids):
        rows = session.execute(
            select(ChainCorrectionRow.chain_id, ChainCorrectionRow.correction_id)
            .where(ChainCorrectionRow.chain_id.in_(batch))
            .order_by(ChainCorrectionRow.chain_id, ChainCorrectionRow.position)
        )
        for chain_id, correction_id in rows:
            found[chain_id].append(correction_id)
    return found


def _chain_of(
    row: RowMapping, reasoning: Reasoning, correction_ids: Sequence[str]
) -> ReasoningChain:
    return ReasoningChain(
        chain_id=row["chain_id"],
        image_id=row["image_id"],
        campaign_id=intern(row["campaign_id"]),
        arm=intern(row["arm"]),
        draft_id=row["draft_id"],
        teacher=intern(row["teacher"]),
        correction_ids=tuple(correction_ids),
        reasoning=reasoning,
        review_level=row["review_level"],
        contradictions=row["contradictions"],
        merged_teachers=row["merged_teachers"],
    )


def _chain_values(chain: ReasoningChain) -> dict[str, object]:
    return {
        "chain_id": chain.chain_id,
        "image_id": chain.image_id,
        "campaign_id": chain.campaign_id,
        "arm": chain.arm,
        "draft_id": chain.draft_id,
        "teacher": chain.teacher,
        "review_level": chain.review_level,
        "contradictions": chain.contradictions,
        "merged_teachers": chain.merged_teachers,
    }
