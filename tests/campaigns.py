"""Rows that tests of the database start from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from core.ids import content_id, sha256_text
from core.recipe import Recipe, RecipeFile
from core.records import (
    Authenticity,
    Claim,
    Draft,
    ImageRecord,
    Reasoning,
    ReasoningChain,
    ReviewLevel,
    Source,
    TeacherReply,
    TraceFinding,
    Usage,
)
from db.engine import Database
from db.images import save_images, save_source
from db.ledger import DatabaseLedger, save_drafts
from db.work import add_work, drafted_or_lost, open_campaign
from tests.unit.records import make_draft, make_image

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def make_recipe(name: str = "recipe") -> Recipe:
    """Nothing but what names a campaign."""
    named: dict[str, Any] = {"name": name}
    values: dict[str, Any] = {
        "settings": RecipeFile.model_construct(**named),
        "drafting_digest": sha256_text(name),
    }
    return Recipe.model_construct(**values)


def store_images(database: Database, count: int, **changes: Any) -> list[ImageRecord]:
    """Fakes and photographs in turn, sorted by id, unless `changes` name a label."""
    source = changes.get("source", "demo")
    images = [_make_labelled(f"{source} {number}", number, changes) for number in range(count)]
    with database.write() as session:
        save_source(session, Source(name=source, licence="CC0-1.0"))
        save_images(session, images)
    return sorted(images, key=lambda image: image.image_id)


def start_campaign(
    database: Database,
    images: Sequence[ImageRecord],
    *,
    name: str = "recipe",
    arm: str = "main",
    ceiling_usd: float | None = None,
) -> str:
    """A campaign with work on these images."""
    with database.write() as session:
        campaign_id = open_campaign(session, make_recipe(name), ceiling_usd=ceiling_usd)
        add_work(session, campaign_id, arm, [image.image_id for image in images])
    return campaign_id


def make_reply(request_hash: str, **changes: Any) -> TeacherReply:
    values: dict[str, Any] = {
        "request_hash": request_hash,
        "raw": '{"id": "reply"}',
        "content": "{}",
        "refusal": None,
        "finish_reason": "stop",
        "model": "rehearsal",
        "usage": Usage(prompt_tokens=100, image_tokens=60, completion_tokens=20),
        "request_id": "request-1",
        "latency_s": 0.25,
    }
    return TeacherReply(**{**values, **changes})


def ask(ledger: DatabaseLedger, image: ImageRecord, question: str = "why") -> TeacherReply:
    """One paid call about an image, with its reply stored."""
    request_hash = sha256_text(question + image.image_id)
    attempt_id = ledger.open_attempt(
        request_hash=request_hash,
        image_id=image.image_id,
        arm="main",
        model="rehearsal",
        reserved_usd=0.002,
    )
    return ledger.store_reply(attempt_id, make_reply(request_hash), 0.001)


def store_draft(
    database: Database,
    campaign_id: str,
    image: ImageRecord,
    *findings: TraceFinding,
    question: str = "why",
    **changes: Any,
) -> Draft:
    """A draft with the call that it came from."""
    reply = ask(DatabaseLedger(database, campaign_id, teacher="rehearsal"), image, question)
    draft = make_draft(
        image,
        *findings,
        draft_id=content_id("draft", campaign_id, image.image_id, question),
        campaign_id=campaign_id,
        attempt_id=reply.attempt_id,
        **changes,
    )
    with database.write() as session:
        save_drafts(session, [draft])
    return draft


def mark_drafted(session: Session, claim: Claim) -> None:
    """End a claim as if its draft were stored; StateError where it was taken away in between."""
    (lost,) = drafted_or_lost(session, [claim])
    if lost is not None:
        raise lost


def make_chain(
    draft: Draft,
    *,
    review_level: ReviewLevel = ReviewLevel.DRAFT,
    correction_ids: tuple[str, ...] = (),
    reasoning: Reasoning | None = None,
) -> ReasoningChain:
    return ReasoningChain(
        chain_id=content_id("chain", draft.draft_id, correction_ids, review_level),
        image_id=draft.image_id,
        campaign_id=draft.campaign_id,
        arm=draft.arm,
        draft_id=draft.draft_id,
        teacher=draft.teacher,
        correction_ids=correction_ids,
        reasoning=reasoning or draft.reasoning,
        review_level=review_level,
        contradictions=0,
    )


def _make_labelled(name: str, number: int, changes: dict[str, Any]) -> ImageRecord:
    is_fake = number % 2 == 0
    label = Authenticity.FAKE if is_fake else Authenticity.REAL
    drawn = {"label": label, "generator": "sim-nearest" if is_fake else None}
    return make_image(name, **{**drawn, **changes})
