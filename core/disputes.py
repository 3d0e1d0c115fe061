"""Drafts whose experts disagree: which ones, on what, and how much. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.chain import review_level
from core.quality import ReviewedDraft
from core.records import Correction, ReviewLevel, TraceOutcome


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedDraft:
    """A draft whose experts disagree, and that nobody has settled yet."""

    image_id: str
    draft_id: str
    experts: tuple[str, ...]
    disagreement: float
    """0..1, see `disagreement`"""
    disputed: tuple[str, ...]
    """categories of the traces that some see and others do not"""


def queue_of(
    reviews: Iterable[ReviewedDraft], *, required: int, overlap: float
) -> list[QueuedDraft]:
    """The drafts that as many experts as asked for have reviewed without agreeing, worst first."""
    found = [
        _queued(review)
        for review in reviews
        if len(review.corrections) >= required
        and _level(review, required, overlap) is ReviewLevel.EXPERT
    ]
    return sorted(found, key=lambda queued: (-queued.disagreement, queued.image_id))


def disagreement(corrections: Sequence[Correction]) -> float:
    """The share of the traces named by anybody that some see and others do not; 0..1.

    A trace of the draft is seen by who leaves it, edited or not, an added one by who names its
    category. Different verdicts count as 1.
    """
    if len({correction.reasoning.verdict for correction in corrections}) > 1:
        return 1.0
    named, disputed = _named(corrections), _disputed(corrections)
    return len(disputed) / len(named) if named else 0.0


def _level(review: ReviewedDraft, required: int, overlap: float) -> ReviewLevel:
    ruling = [review.ruling] if review.ruling else []
    return review_level([*review.corrections, *ruling], required=required, overlap=overlap)


def _queued(review: ReviewedDraft) -> QueuedDraft:
    drafted = review.draft.reasoning.findings
    categories = {
        drafted[trace].category if isinstance(trace, int) else trace
        for trace in _disputed(review.corrections)
    }
    return QueuedDraft(
        image_id=review.image.image_id,
        draft_id=review.draft.draft_id,
        experts=tuple(correction.expert for correction in review.corrections),
        disagreement=disagreement(review.corrections),
        disputed=tuple(sorted(categories)),
    )


def _seen(correction: Correction) -> set[int | str]:
    """The traces that an expert sees: places in the draft, and categories of added ones."""
    return {*correction.drafted(), *(finding.category for finding in correction.added())}


def _named(corrections: Sequence[Correction]) -> set[int | str]:
    rejected = {
        place
        for correction in corrections
        for place, outcome in enumerate(correction.outcomes)
        if outcome is TraceOutcome.REJECTED
    }
    return rejected.union(*map(_seen, corrections))


def _disputed(corrections: Sequence[Correction]) -> set[int | str]:
    counts = Counter(trace for correction in corrections for trace in _seen(correction))
    return {trace for trace, count in counts.items() if count < len(corrections)}
