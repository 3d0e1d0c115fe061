"""`build_chain`: from a draft and its corrections to one FakeChain record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.ids import content_id
from core.records import (
    Authenticity,
    Confidence,
    Correction,
    Draft,
    ImageRecord,
    Reasoning,
    ReasoningChain,
    ReviewLevel,
)
from core.sentences import as_sentences


def build_chain(
    image: ImageRecord,
    draft: Draft,
    corrections: Sequence[Correction] = (),
    *,
    agreed_corrections: int,
    agreed_overlap: float,
) -> ReasoningChain:
    """What is held to be true about the traces of a labelled image.

    `corrections` are the newest versions, one per expert, oldest expert first. The adjudicator's
    word counts most, then the first expert's, then the draft's. A finding that speaks against the
    known label never enters a chain; it is counted in `contradictions`. Nor does one without a word
    of evidence, or the conclusion of a wrong verdict. Raises ValueError for an unlabelled image:
    those are never drafted.
    """
    if image.label is None:
        raise ValueError(f"image {image.image_id} has no label and cannot have a chain")
    word = deciding(corrections)
    reasoning = word.reasoning if word else draft.reasoning
    supporting = [finding for finding in reasoning.findings if finding.points_to is image.label]
    worded = (replace(finding, evidence=as_sentences(finding.evidence)) for finding in supporting)
    kept = tuple(finding for finding in worded if finding.evidence)
    clean = Reasoning(
        verdict=image.label,
        findings=kept,
        conclusion=as_sentences(reasoning.conclusion) if reasoning.verdict is image.label else "",
        confidence=reasoning.confidence if kept else Confidence.LOW,
    )
    level = review_level(corrections, required=agreed_corrections, overlap=agreed_overlap)
    correction_ids = tuple(correction.correction_id for correction in corrections)
    return ReasoningChain(
        chain_id=content_id("chain", image.image_id, draft.draft_id, correction_ids, level),
        image_id=image.image_id,
        campaign_id=draft.campaign_id,
        arm=draft.arm,
        draft_id=draft.draft_id,
        teacher=draft.teacher,
        correction_ids=correction_ids,
        reasoning=clean,
        review_level=level,
        contradictions=len(reasoning.findings) - len(supporting),
        merged_teachers=draft.merged_teachers,
    )


def review_level(
    corrections: Sequence[Correction], *, required: int, overlap: float
) -> ReviewLevel:
    """How much the corrections of one image have checked it (docs/architecture.md)."""
    if any(correction.is_adjudication for correction in corrections):
        return ReviewLevel.ADJUDICATED
    if not corrections:
        return ReviewLevel.DRAFT
    if len(corrections) >= required and _agree(corrections, overlap):
        return ReviewLevel.AGREED
    return ReviewLevel.EXPERT


def deciding(corrections: Sequence[Correction]) -> Correction | None:
    """The one that counts most: the adjudicator's, then the first expert's; None of none."""
    adjudicated = [correction for correction in corrections if correction.is_adjudication]
    return next(iter((*adjudicated[-1:], *corrections)), None)


def _agree(corrections: Sequence[Correction], overlap: float) -> bool:
    verdicts: set[Authenticity] = {c.reasoning.verdict for c in corrections}
    categories = [correction.categories() for correction in corrections]
    return len(verdicts) == 1 and jaccard_index(categories) >= overlap


def jaccard_index(sets: Sequence[frozenset[str]]) -> float:
    """What all have in common, as a share of what any has; 1 where all are empty."""
    union = frozenset.union(*sets)
    return len(frozenset.intersection(*sets)) / len(union) if union else 1.0
