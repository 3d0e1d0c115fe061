"""Small records for tests, valid in every field that a test does not name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from core.ids import image_id_of, sha256_text
from core.records import (
    Authenticity,
    Confidence,
    Correction,
    Draft,
    ImageRecord,
    Reasoning,
    Tombstone,
    TraceFinding,
    TraceOutcome,
)


def make_image(name: str = "image", **changes: Any) -> ImageRecord:
    digest = sha256_text(name)
    values: dict[str, Any] = {
        "image_id": image_id_of(digest),
        "sha256": digest,
        "original_sha256": digest,
        "path": f"{digest[:2]}/{digest}.jpg",
        "width": 128,
        "height": 128,
        "format": "JPEG",
        "jpeg_quality": 90,
        "phash": digest[:16],
        "cluster": image_id_of(digest),
        "group": name,
        "label": Authenticity.FAKE,
        "generator": "sim-nearest",
        "source": "demo",
        "size_bytes": 4321,
        "subsampling": "4:2:0",
    }
    return ImageRecord(**{**values, **changes})


def make_tombstone(image: ImageRecord, **changes: Any) -> Tombstone:
    values: dict[str, Any] = {
        "image_id": image.image_id,
        "sha256": image.sha256,
        "original_sha256": image.original_sha256,
        "reason": "the photographer asked for it",
        "withdrawn_at": datetime(2026, 3, 1, 12, tzinfo=UTC),
    }
    return Tombstone(**{**values, **changes})


def make_finding(
    category: str = "texture", points_to: Authenticity = Authenticity.FAKE, evidence: str = ""
) -> TraceFinding:
    return TraceFinding(
        category=category,
        evidence=evidence or f"The {category} repeats every two pixels.",
        points_to=points_to,
    )


def make_reasoning(*findings: TraceFinding, **changes: Any) -> Reasoning:
    values: dict[str, Any] = {
        "verdict": Authenticity.FAKE,
        "findings": findings,
        "conclusion": "The picture was generated.",
        "confidence": Confidence.HIGH,
    }
    return Reasoning(**{**values, **changes})


def make_draft(image: ImageRecord, *findings: TraceFinding, **changes: Any) -> Draft:
    values: dict[str, Any] = {
        "draft_id": f"draft-{image.image_id}",
        "image_id": image.image_id,
        "attempt_id": "attempt-1",
        "campaign_id": "campaign-1",
        "arm": "main",
        "teacher": "rehearsal",
        "prompt_version": "acoti-00000000",
        "demonstrations": 0,
        "reasoning": make_reasoning(*findings, verdict=image.label),
    }
    return Draft(**{**values, **changes})


def make_correction(
    draft: Draft, expert: str, *findings: TraceFinding, **changes: Any
) -> Correction:
    values: dict[str, Any] = {
        "correction_id": f"correction-{expert}",
        "image_id": draft.image_id,
        "draft_id": draft.draft_id,
        "expert": expert,
        "version": 1,
        "reasoning": make_reasoning(*findings, verdict=draft.reasoning.verdict),
        "outcomes": tuple(TraceOutcome.ACCEPTED for _ in draft.reasoning.findings),
    }
    return Correction(**{**values, **changes})
