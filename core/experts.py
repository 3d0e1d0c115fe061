"""What experts agree on about the traces of the same drafts, and whose answers are too alike."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.agreement import (
    Alpha,
    Metric,
    Value,
    Values,
    alpha_of_counts,
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
from core.records import Confidence, Correction, TraceFinding, TraceOutcome

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
OUTCOMES: Final = sorted(TraceOutcome)
_OUTCOME_NUMBERS: Final = {outcome: number for number, outcome in enumerate(OUTCOMES)}
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
    shared = [_share(review) for review in reviews if len(review.corrections) > 1]
    pairs = _by_pair(shared)
    everything = range(len(categories))
    said = _stack(shared, categories)
    versions = sorted({draft.review.teacher_version for draft in shared})
    return ReviewAgreement(
        images=len(set(said.images)),
        overall=_traces(said, everything),
        fleiss=fleiss_kappa(said.outcomes[np.isin(said.category, everything)]),
        verdict=alpha_over_images(_answers(shared, lambda c: str(c.reasoning.verdict))),
        confidence=alpha_over_images(_answers(shared, _sureness), Metric.ORDINAL),
        traces=alpha_over_images(
            _answers(shared, lambda c: len(c.reasoning.findings)), Metric.INTERVAL
        ),
        categories=_mean([pair.jaccard for draft in shared for pair in draft.pairs]).value,
        by_category={name: _traces(said, [place]) for place, name in enumerate(categories)},
        by_teacher_version={
            version: _traces(_stack(_by_version(shared, version), categories), everything)
            for version in versions
        },
        by_expert={
            expert: _traces(_stack(_with_each_other(pairs, expert), categories), everything)
            for expert in _experts(shared)
        },
        accuracy=_accuracy(shared),
        pairs=tuple(_pair_agreement(*item) for item in sorted(pairs.items())),
    )


# Drafts, with what is asked of them for every figure


class _Match(NamedTuple):
    """A trace that two experts left."""

    drafted: TraceFinding | None
    """what the teacher wrote; None: both added it"""
    one: TraceFinding
    other: TraceFinding
    overlap: float | None
    """of their regions; None unless both have one, and not both the teacher's"""
    similarity: float | None
    """of their texts; None: both left the teacher's words"""


class _Pair(NamedTuple):
    """Two experts on one draft, by name."""

    one: Correction
    other: Correction
    jaccard: float
    """index of the categories that they left"""
    matches: tuple[_Match, ...]


class _Shared(NamedTuple):
    """A draft, with the experts on it who are compared."""

    review: ReviewedDraft
    said: tuple[Correction, ...]
    left: tuple[frozenset[str], ...]
    """the categories of each of them"""
    pairs: tuple[_Pair, ...]

    @property
    def image_id(self) -> str:
        return self.review.image.image_id


def _share(review: ReviewedDraft) -> _Shared:
    said = tuple(sorted(review.corrections, key=lambda correction: correction.expert))
    left = tuple(correction.categories() for correction in said)
    pairs = tuple(
        _Pair(one, other, jaccard_index(kept), tuple(_matches(review, one, other)))
        for (one, other), kept in zip(combinations(said, 2), combinations(left, 2), strict=True)
    )
    return _Shared(review, said, left, pairs)


Units = list[tuple[str, list[Value]]]
"""the image of each unit, and the values that experts gave it"""


def _experts(drafts: Iterable[_Shared]) -> list[str]:
    return sorted({correction.expert for draft in drafts for correction in draft.said})


def _by_version(drafts: Iterable[_Shared], version: str) -> list[_Shared]:
    return [draft for draft in drafts if draft.review.teacher_version == version]


def _by_pair(drafts: Iterable[_Shared]) -> dict[tuple[str, str], list[_Shared]]:
    """Each draft with each two of its experts, and with nobody else."""
    found: dict[tuple[str, str], list[_Shared]] = defaultdict(list)
    for draft in drafts:
        for pair, left in zip(draft.pairs, combinations(draft.left, 2), strict=True):
            both = (pair.one, pair.other)
            found[pair.one.expert, pair.other.expert].append(
                _Shared(draft.review, both, left, (pair,))
            )
    return found


def _with_each_other(
    pairs: Mapping[tuple[str, str], Sequence[_Shared]], expert: str
) -> list[_Shared]:
    """Each draft that an expert reviewed, once with each other expert who did."""
    return [draft for experts, drafts in pairs.items() if expert in experts for draft in drafts]


# Figures


class _Stack(NamedTuple):
    """What was said of some drafts, to be counted over any of their categories."""

    images: NDArray[np.intp]
    """of each draft"""
    draft: NDArray[np.intp]
    """of each trace"""
    category: NDArray[np.intp]
    """of each trace; -1: none that experts can choose"""
    outcomes: Values
    """how many experts said what of each trace: (traces, outcomes)"""
    kept: Values
    """how many left each category or not: (drafts, categories, 2)"""
    matches: tuple[tuple[int, _Match], ...]
    """with the category, as above"""


def _stack(drafts: Sequence[_Shared], categories: Sequence[str]) -> _Stack:
    images: dict[str, int] = {}
    place = {category: number for number, category in enumerate(categories)}
    traces = [
        (number, finding.category, position)
        for number, draft in enumerate(drafts)
        for position, finding in enumerate(draft.review.draft.reasoning.findings)
    ]
    outcomes = _tally(
        (len(traces), len(OUTCOMES)),
        (
            (row, _OUTCOME_NUMBERS[said.outcomes[position]])
            for row, (number, _, position) in enumerate(traces)
            for said in drafts[number].said
        ),
    )
    kept = np.zeros((len(drafts), len(categories), 2))
    kept[:, :, 1] = _tally(
        (len(drafts), len(categories)),
        (
            (number, place[name])
            for number, draft in enumerate(drafts)
            for left in draft.left
            for name in left
            if name in place
        ),
    )
    experts = _integers(len(draft.left) for draft in drafts)
    kept[:, :, 0] = experts[:, np.newaxis] - kept[:, :, 1]
    return _Stack(
        images=_integers(images.setdefault(draft.image_id, len(images)) for draft in drafts),
        draft=_integers(number for number, _, _ in traces),
        category=_integers(place.get(category, -1) for _, category, _ in traces),
        outcomes=outcomes,
        kept=kept,
        matches=tuple(
            (place.get(match.one.category, -1), match)
            for draft in drafts
            for pair in draft.pairs
            for match in pair.matches
        ),
    )


def _tally(shape: tuple[int, int], places: Iterable[tuple[int, int]]) -> Values:
    """How often each place of a table occurs; adding to an array one by one takes far longer."""
    rows, columns = shape
    flat = _integers(row * columns + column for row, column in places)
    return np.bincount(flat, minlength=rows * columns).reshape(shape).astype(np.float64)


def _integers(values: Iterable[int]) -> NDArray[np.intp]:
    return np.fromiter(values, dtype=np.intp)


def _traces(said: _Stack, categories: Sequence[int]) -> TraceAgreement:
    """How far experts agree on the traces of these categories."""
    is_wanted = np.isin(said.category, categories)
    matches = [match for category, match in said.matches if category in categories]
    return TraceAgreement(
        outcome=alpha_of_counts(
            said.outcomes[is_wanted], OUTCOMES, clusters=said.images[said.draft[is_wanted]]
        ),
        kept=alpha_of_counts(
            said.kept[:, categories].reshape(-1, 2),
            (False, True),
            clusters=np.repeat(said.images, len(categories)),
        ),
        regions=_mean([m.overlap for m in matches if m.overlap is not None]),
        texts=_mean([m.similarity for m in matches if m.similarity is not None]),
    )


def _answers(drafts: Iterable[_Shared], answer: Callable[[Correction], Value]) -> Units:
    return [(draft.image_id, [answer(said) for said in draft.said]) for draft in drafts]


def _sureness(correction: Correction) -> int:
    return SURENESS[correction.reasoning.confidence]


def alpha_over_images(units: Units, metric: Metric = Metric.NOMINAL) -> Alpha:
    """Alpha with an interval over images: the traces of one are judged together."""
    return krippendorff_alpha(
        [unit for _, unit in units], metric, clusters=[image_id for image_id, _ in units]
    )


def _mean(values: Sequence[float]) -> Mean:
    return Mean(value=fmean(values) if values else None, pairs=len(values))


def _accuracy(drafts: Sequence[_Shared]) -> dict[str, float]:
    if len(_experts(drafts)) < LEAST_EXPERTS:
        return {}
    votes = [
        Vote(
            item=f"{draft.review.draft.draft_id} {position}",
            rater=said.expert,
            choice="rejected" if outcome is TraceOutcome.REJECTED else "left",
        )
        for draft in drafts
        for said in draft.said
        for position, outcome in enumerate(said.outcomes)
        if outcome is not TraceOutcome.ADDED
    ]
    return dawid_skene(votes).accuracy if votes else {}


def _pair_agreement(experts: tuple[str, str], drafts: Sequence[_Shared]) -> PairAgreement:
    pairs = [pair for draft in drafts for pair in draft.pairs]
    decisions = [
        (mine, theirs)
        for pair in pairs
        for mine, theirs in zip(pair.one.outcomes, pair.other.outcomes, strict=False)
        if TraceOutcome.ADDED not in (mine, theirs)
    ]
    return PairAgreement(
        experts=experts,
        images=len({draft.image_id for draft in drafts}),
        kappa=cohen_kappa(decisions),
        categories=fmean(pair.jaccard for pair in pairs),
        alike=_alike(drafts),
    )


# Traces that two experts left


def _matches(review: ReviewedDraft, one: Correction, other: Correction) -> Iterator[_Match]:
    """The traces that both left.

    Added traces have nothing of the teacher's. They are the same when either added just one of
    their category.
    """
    mine, theirs = one.drafted(), other.drafted()
    for position in sorted(mine.keys() & theirs.keys()):
        drafted = review.draft.reasoning.findings[position]
        yield _match(drafted, mine[position], theirs[position])
    my_own, their_own = _added_once(one), _added_once(other)
    for category in sorted(my_own.keys() & their_own.keys()):
        yield _match(None, my_own[category], their_own[category])


def _match(drafted: TraceFinding | None, one: TraceFinding, other: TraceFinding) -> _Match:
    overlap = similarity = None
    if one.region and other.region and not _are(drafted, "region", one, other):
        overlap = region_overlap(one.region, other.region)
    if not _are(drafted, "evidence", one, other):
        similarity = text_similarity(one.evidence, other.evidence)
    return _Match(drafted, one, other, overlap, similarity)


def _added_once(correction: Correction) -> dict[str, TraceFinding]:
    counts = Counter(finding.category for finding in correction.added())
    return {f.category: f for f in correction.added() if counts[f.category] == 1}


def _are(drafted: TraceFinding | None, part: str, *left: TraceFinding) -> bool:
    """Whether all left a part of a trace as the teacher made it."""
    return drafted is not None and all(
        getattr(finding, part) == getattr(drafted, part) for finding in left
    )


def _alike(drafts: Sequence[_Shared]) -> Alike:
    texts: list[bool] = []
    regions: list[bool] = []
    times: list[bool] = []
    image_ids: set[str] = set()
    for draft in drafts:
        for pair in draft.pairs:
            own_texts = [is_alike for match in pair.matches for is_alike in _alike_texts(match)]
            own_regions = [is_alike for match in pair.matches for is_alike in _alike_regions(match)]
            if any(own_texts) or any(own_regions):
                image_ids.add(draft.image_id)
            texts += own_texts
            regions += own_regions
            times += _alike_times(draft.review, pair)
    return Alike(
        texts=sum(texts),
        of_texts=len(texts),
        regions=sum(regions),
        of_regions=len(regions),
        times=sum(times),
        of_times=len(times),
        image_ids=tuple(sorted(image_ids)),
    )


def _alike_texts(match: _Match) -> list[bool]:
    """Whether two texts are too alike; nothing where one is not of the expert's own making.

    Edits of one text are alike anyway: what counts is how much they differ from one another, as a
    share of how much they differ from it.
    """
    mine, theirs = match.one.evidence, match.other.evidence
    if match.drafted is None:
        return [text_similarity(mine, theirs) >= ALIKE_TEXTS]
    change = min(edit_distance(match.drafted.evidence, text) for text in (mine, theirs))
    if change < LEAST_CHANGE:
        return []
    return [edit_distance(mine, theirs) <= (1 - ALIKE_TEXTS) * change]


def _alike_regions(match: _Match) -> list[bool]:
    """Whether two regions are too alike; nothing where one was not drawn by the expert."""
    regions = (match.one.region, match.other.region)
    if match.overlap is None or (match.drafted and match.drafted.region in regions):
        return []
    return [match.overlap >= ALIKE_REGIONS]


def _alike_times(review: ReviewedDraft, pair: _Pair) -> list[bool]:
    mine, theirs = (review.seconds.get(said.correction_id) for said in (pair.one, pair.other))
    if mine is None or theirs is None:
        return []
    return [abs(mine - theirs) <= ALIKE_SECONDS]
