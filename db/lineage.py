"""Where a chain comes from: corrections, draft, call and image, as far as the database knows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.records import (
    REWRITING_ARM,
    Attempt,
    Correction,
    Draft,
    ImageRecord,
    ReasoningChain,
    Source,
    TeacherReply,
    Tombstone,
    WorkState,
)
from db.chains import chain_by_id
from db.images import images_by_id, sources
from db.ledger import attempts, replies_of_attempts
from db.reviews import corrections_by_id
from db.studio import GivenIn, drafts_by_id, given_in
from db.tables import CampaignRow, ChainRow, FileRow, WorkRow
from db.tombstones import tombstones


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The records behind one chain; None or empty where there is none."""

    chain: ReasoningChain | None
    superseded_by: str | None
    """the chain that is newest in its place"""
    corrections: tuple[Correction, ...]
    """that the chain was built from, in their order"""
    given_in: dict[str, GivenIn]
    """the annotations that became corrections, by correction id"""
    draft: Draft | None
    merged: tuple[Draft, ...]
    """the drafts whose votes it words, in the order of their arms"""
    set_aside: dict[str, str]
    """why other arms of the campaign have no draft of the image, by arm"""
    merged_replies: dict[str, TeacherReply]
    """what the merged drafts were read from, by attempt"""
    attempt: Attempt | None
    reply: TeacherReply | None
    calls: int
    """all attempts about the image in this arm"""
    rewriting_calls: int
    """attempts to have the texts of its chains reworded"""
    recipe: str | None
    """of the campaign"""
    drafting_digest: str | None
    image: ImageRecord | None
    source: Source | None
    files: tuple[str, ...]
    """the users' own that became the image, as source: name"""
    tombstone: Tombstone | None


def lineage(session: Session, chain_id: str, image_id: str) -> Lineage:
    """Everything behind a chain and an image, which need not be there."""
    chain = chain_by_id(session, chain_id)
    draft = drafts_by_id(session, [chain.draft_id]).get(chain.draft_id) if chain else None
    made = draft.attempt_id if draft else ""
    voters = drafts_by_id(session, draft.merged) if draft else {}
    calls = list(attempts(session, image_id=image_id))
    campaign = session.get(CampaignRow, chain.campaign_id) if chain else None
    image = images_by_id(session, [image_id]).get(image_id)
    correction_ids = chain.correction_ids if chain else ()
    files = select(FileRow.source, FileRow.name).where(FileRow.image_id == image_id)
    return Lineage(
        chain=chain,
        superseded_by=session.scalar(
            select(ChainRow.superseded_by).where(ChainRow.chain_id == chain_id)
        ),
        corrections=tuple(corrections_by_id(session, correction_ids)),
        given_in=given_in(session, correction_ids),
        draft=draft,
        merged=tuple(voters[name] for name in (draft.merged if draft else ()) if name in voters),
        set_aside=_set_aside(session, chain),
        merged_replies=replies_of_attempts(session, [v.attempt_id for v in voters.values()]),
        attempt=next((call for call in calls if call.attempt_id == made), None),
        reply=replies_of_attempts(session, [made]).get(made),
        calls=sum((call.campaign_id, call.arm) == _place(chain) for call in calls),
        rewriting_calls=sum(call.arm == REWRITING_ARM for call in calls),
        recipe=campaign.recipe if campaign else None,
        drafting_digest=campaign.drafting_digest if campaign else None,
        image=image,
        source=sources(session).get(image.source) if image else None,
        files=tuple(f"{source}: {name}" for source, name in session.execute(files)),
        tombstone=next((t for t in tombstones(session) if t.image_id == image_id), None),
    )


def _set_aside(session: Session, chain: ReasoningChain | None) -> dict[str, str]:
    if chain is None:
        return {}
    rows = session.execute(
        select(WorkRow.arm, WorkRow.reason)
        .where(
            WorkRow.campaign_id == chain.campaign_id,
            WorkRow.image_id == chain.image_id,
            WorkRow.state == WorkState.QUARANTINED,
        )
        .order_by(WorkRow.arm)
    )
    return {arm: reason or "" for arm, reason in rows}


def _place(chain: ReasoningChain | None) -> tuple[str, str]:
    return (chain.campaign_id, chain.arm) if chain else ("", "")
