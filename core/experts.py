"""What experts agree on about the traces of the same drafts, and whose answers are too alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Final

from core.agreement import (
    Alpha,
    Metric,
    Value,
    cohen_kappa,
    edit_distance,
    fleiss_kappa,
    krippendorff_alpha,
    region_overlap,
    text_similarity,
)
from core.chain import jaccard_index
from core.dawid_skene import Vote, dawid_skene
from core.quality import ReviewedDraft
from core.records import Confidence, Correction, Mask, Region, TraceFinding, TraceOutcome

LEAST_CHANGE: Final = 10
"""characters that an edit has to differ from the draft by, to be told from a mended slip"""
ALIKE_TEXTS: Final = 0.9
"""least similarity of two texts, or of two edits of one text, that are too alike"""
ALIKE_REGIONS: Final = 0.98
"""least overlap of two regions drawn by hand that are too alike"""
ALIKE_SECONDS: Final = 0.05
"""at most so far apart are two lead times that are too alike"""
LEAST_EXPERTS: Final = 3
"""with fewer, errors cannot be told from the truth"""
SURENESS: Final = {confidence: rank for rank, confidence in enumerate(Confidence)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mean:
    """The mean over pairs of experts on the same trace."""

    value: float | None
    """None: there is no pair"""
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceAgreement:
    """How far experts agree on some of the traces."""

    outcome: Alpha
    """accepted, edited or rejected: of each trace of a draft"""
    kept: Alpha
    """left or not: of each trace category in each image"""
    regions: Mean
    """overlap, of traces that both left with a region, unless both left the teacher's"""
    texts: Mean
    """similarity, of traces that both left, unless both left the teacher's words"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Where two experts' own words, regions and times are nearly the same.

    In Label Studio's Community edition either can read the other's answer.
    """

    texts: int
    of_texts: int
    """pairs of texts by both for the same trace"""
    regions: int
    of_regions: int
    """pairs of regions drawn by both for the same trace"""
    times: int
    of_times: int
    image_ids: tuple[str, ...]
    """where a text or a region is too alike"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAgreement:
    """How far two experts agree on the drafts that both reviewed."""

    experts: tuple[str, str]
    images: int
    kappa: float | None
    """Cohen's, of the outcome of each trace; None: nothing varies"""
    categories: float
    """mean Jaccard index of the categories left"""
    alike: Alike


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewAgreement:
    """How far experts agree on the drafts that two or more of them reviewed."""

    images: int
    overall: TraceAgreement
    fleiss: float | None
    """Fleiss' kappa of the outcomes; None unless all drafts have equally many experts"""
    verdict: Alpha
    """the form leaves the draft's verdict as it is, so that it cannot differ"""
    confidence: Alpha
    """ordinal"""
    traces: Alpha
    """interval: how many were left in an image"""
    categories: float | None
    """mean Jaccard index of the categories left, over pairs of experts"""
    by_category: dict[str, TraceAgreement]
    by_teacher_version: dict[str, TraceAgreement]
    by_expert: dict[str, TraceAgreement]
    """of each expert with each other one"""
    accuracy: dict[str, float]
    """by expert: share of decisions to leave a trace or not that are probably right (Dawid and
    Skene); empty with fewer than three experts"""
    pairs: tuple[PairAgreement, ...]


def review_agreement(
    reviews: Iterable[ReviewedDraft], categories: Sequence[str]
) -> ReviewAgreement:
    """How far experts agree; `categories` are those that they can choose from."""
    shared = [review for review in reviews if len(review.corrections) > 1]
    return ReviewAgreement(
        images=len({review.image.image_id for review in shared}),
        overall=_traces(shared, categories),
        fleiss=fleiss_kappa([unit for _, unit in _outcomes(shared, categories)]),
        verdict=alpha_over_images(_answers(shared, lambda c: str(c.reasoning.verdict))),
        confidence=alpha_over_images(_answers(shared, _sureness), Metric.ORDINAL),
        traces=alpha_over_images(
            _answers(shared, lambda c: len(c.reasoning.findings)), Metric.INTERVAL
        ),
        categories=_mean([_shared_categories(*pair) for _, pair in _pairs(shared)]).value,
        by_category={category: _traces(shared, [category]) for category in categories},
        by_teacher_version={
            version: _traces([r for r in shared if r.teacher_version == version], categories)
            for version in sorted({review.teacher_version for review in shared})
        },
        by_expert={
            expert: _traces(_with_each_other(shared, expert), categories)
            for expert in _experts(shared)
        },
        accuracy=_accuracy(shared),
        pairs=tuple(_pair_agreement(*item) for item in sorted(_by_pair(shared).items())),
    )


# Slices

Units = list[tuple[str, list[Value]]]
"""the image of each unit, and the values that experts gave it"""


def _experts(reviews: Iterable[ReviewedDraft]) -> list[str]:
    return sorted({said.expert for review in reviews for said in review.corrections})


def _with_each_other(reviews: Iterable[ReviewedDraft], expert: str) -> list[ReviewedDraft]:
    """Each draft that an expert reviewed, once with each other expert who did."""
    pairs = _pairs(reviews)
    return [review for review, (one, other) in pairs if expert in (one.expert, other.expert)]


def _by_pair(reviews: Iterable[ReviewedDraft]) -> dict[tuple[str, str], list[ReviewedDraft]]:
    found: dict[tuple[str, str], list[ReviewedDraft]] = defaultdict(list)
    for review, (one, other) in _pairs(reviews):
        found[one.expert, other.expert].append(review)
    return found


def _pairs(
    reviews: Iterable[ReviewedDraft],
) -> Iterator[tuple[ReviewedDraft, tuple[Correction, Correction]]]:
    """Each draft with each two of its experts, by name, and with nobody else."""
    for review in reviews:
        said = sorted(review.corrections, key=lambda correction: correction.expert)
        for pair in combinations(said, 2):
            yield replace(review, corrections=pair), pair


# Figures


def _traces(reviews: Sequence[ReviewedDraft], categories: Sequence[str]) -> TraceAgreement:
    """How far experts agree on the traces of these categories."""
    regions, texts = [], []
    for review, pair in _pairs(reviews):
        for drafted, one, other in _matched(review, *pair):
            if one.category not in categories:
                continue
            if one.region and other.region and not _are(drafted, "region", one, other):
                regions.append(region_overlap(one.region, other.region))
            if not _are(drafted, "evidence", one, other):
                texts.append(text_similarity(one.evidence, other.evidence))
    return TraceAgreement(
        outcome=alpha_over_images(_outcomes(reviews, categories)),
        kept=alpha_over_images(_kept(reviews, categories)),
        regions=_mean(regions),
        texts=_mean(texts),
    )


def _outcomes(reviews: Iterable[ReviewedDraft], categories: Sequence[str]) -> Units:
    return [
        (review.image.image_id, [said.outcomes[position] for said in review.corrections])
        for review in reviews
        for position, finding in enumerate(review.draft.reasoning.findings)
        if finding.category in categories
    ]


def _kept(reviews: Iterable[ReviewedDraft], categories: Sequence[str]) -> Units:
    return [
        (review.image.image_id, [category in left for left in kept])
        for review in reviews
        for kept in [[said.categories() for said in review.corrections]]
        for category in categories
    ]


def _answers(reviews: Iterable[ReviewedDraft], answer: Callable[[Correction], Value]) -> Units:
    return [
        (review.image.image_id, [answer(said) for said in review.corrections]) for review in reviews
    ]


def _sureness(correction: Correction) -> int:
    return SURENESS[correction.reasoning.confidence]


def _shared_categories(one: Correction, other: Correction) -> float:
    return jaccard_index([one.categories(), other.categories()])


def alpha_over_images(units: Units, metric: Metric = Metric.NOMINAL) -> Alpha:
    """Alpha with an interval over images: the traces of one are judged together."""
    return krippendorff_alpha(
        [unit for _, unit in units], metric, clusters=[image_id for image_id, _ in units]
    )


def _mean(values: Sequence[float]) -> Mean:
    return Mean(value=fmean(values) if values else None, pairs=len(values))


def _accuracy(reviews: Sequence[ReviewedDraft]) -> dict[str, float]:
    if len(_experts(reviews)) < LEAST_EXPERTS:
        return {}
    votes = [
        Vote(
            item=f"{review.draft.draft_id} {position}",
            rater=said.expert,
            choice="rejected" if outcome is TraceOutcome.REJECTED else "left",
        )
        for review in reviews
        for said in review.corrections
        for position, outcome in enumerate(said.outcomes)
        if outcome is not TraceOutcome.ADDED
    ]
    return dawid_skene(votes).accuracy if votes else {}


def _pair_agreement(experts: tuple[str, str], reviews: Sequence[ReviewedDraft]) -> PairAgreement:
    pairs = [pair for _, pair in _pairs(reviews)]
    decisions = [
        (mine, theirs)
        for one, other in pairs
        for mine, theirs in zip(one.outcomes, other.outcomes, strict=False)
        if TraceOutcome.ADDED not in (mine, theirs)
    ]
    return PairAgreement(
        experts=experts,
        images=len({review.image.image_id for review in reviews}),
        kappa=cohen_kappa(decisions),
        categories=fmean(_shared_categories(*pair) for pair in pairs),
        alike=_alike(reviews),
    )


# Traces that two experts left


def _matched(
    review: ReviewedDraft, one: Correction, other: Correction
) -> Iterator[tuple[TraceFinding | None, TraceFinding, TraceFinding]]:
    """The traces that both left: what the teacher wrote, and what either made of it.

    Added traces have nothing of the teacher's. They are the same when either added just one of
    their category.
    """
    mine, theirs = one.drafted(), other.drafted()
    for position in sorted(mine.keys() & theirs.keys()):
        yield review.draft.reasoning.findings[position], mine[position], theirs[position]
    my_own, their_own = _added_once(one), _added_once(other)
    for category in sorted(my_own.keys() & their_own.keys()):
        yield None, my_own[category], their_own[category]


def _added_once(correction: Correction) -> dict[str, TraceFinding]:
    counts = Counter(finding.category for finding in correction.added())
    return {f.category: f for f in correction.added() if counts[f.category] == 1}


def _are(drafted: TraceFinding | None, part: str, *left: TraceFinding) -> bool:
    """Whether all left a part of a trace as the teacher made it."""
    return drafted is not None and all(
        getattr(finding, part) == getattr(drafted, part) for finding in left
    )


def _alike(reviews: Sequence[ReviewedDraft]) -> Alike:
    texts: list[bool] = []
    regions: list[bool] = []
    times: list[bool] = []
    image_ids: set[str] = set()
    for review, (one, other) in _pairs(reviews):
        judged = len(texts), len(regions)
        for drafted, mine, theirs in _matched(review, one, other):
            texts += _alike_texts(drafted, mine.evidence, theirs.evidence)
            regions += _alike_regions(drafted, mine.region, theirs.region)
        if any(texts[judged[0] :]) or any(regions[judged[1] :]):
            image_ids.add(review.image.image_id)
        times += _alike_times(review, one, other)
    return Alike(
        texts=sum(texts),
        of_texts=len(texts),
        regions=sum(regions),
        of_regions=len(regions),
        times=sum(times),
        of_times=len(times),
        image_ids=tuple(sorted(image_ids)),
    )


def _alike_texts(drafted: TraceFinding | None, mine: str, theirs: str) -> list[bool]:
    """Whether two texts are too alike; nothing where one is not of the expert's own making.

    Edits of one text are alike anyway: what counts is how much they differ from one another, as a
    share of how much they differ from it.
    """
    if drafted is None:
        return [text_similarity(mine, theirs) >= ALIKE_TEXTS]
    change = min(edit_distance(drafted.evidence, text) for text in (mine, theirs))
    if change < LEAST_CHANGE:
        return []
    return [edit_distance(mine, theirs) <= (1 - ALIKE_TEXTS) * change]


def _alike_regions(
    drafted: TraceFinding | None, mine: Region | Mask | None, theirs: Region | Mask | None
) -> list[bool]:
    """Whether two regions are too alike; nothing where one was not drawn by the expert."""
    if mine is None or theirs is None or (drafted and drafted.region in (mine, theirs)):
        return []
    return [region_overlap(mine, theirs) >= ALIKE_REGIONS]


def _alike_times(review: ReviewedDraft, one: Correction, other: Correction) -> list[bool]:
    mine, theirs = (review.seconds.get(said.correction_id) for said in (one, other))
    if mine is None or theirs is None:
        return []
    return [abs(mine - theirs) <= ALIKE_SECONDS]
