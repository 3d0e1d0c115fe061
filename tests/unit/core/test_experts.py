"""What experts agree on, counted by hand, and whose answers are too alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from core.agreement import krippendorff_alpha
from core.experts import Alike, review_agreement
from core.quality import ReviewedDraft
from core.records import Confidence, Correction, Region, TraceFinding, TraceOutcome
from tests.unit.records import make_correction, make_draft, make_finding, make_image

ACCEPTED, EDITED, REJECTED, ADDED = TraceOutcome
CATEGORIES = ("texture", "edge", "shape")
SENTENCE = "The surface of the wall repeats a pattern of eight pixels without any end."
Answer = tuple[TraceFinding | None, ...]


def box(left: float, right: float) -> Region:
    return Region(points=((left, 0.0), (right, 0.0), (right, 1.0), (left, 1.0)))


def review(
    drafted: Sequence[TraceFinding],
    answers: dict[str, Answer],
    *,
    number: int = 0,
    seconds: dict[str, float] | None = None,
) -> ReviewedDraft:
    """Each expert gives what is left of each drafted trace, None for nothing, then added ones."""
    image = make_image(f"image {number}")
    draft = make_draft(image, *drafted)
    said = tuple(correction(draft, drafted, expert, left) for expert, left in answers.items())
    times = {c.correction_id: seconds[c.expert] for c in said} if seconds else {}
    return ReviewedDraft(image=image, draft=draft, corrections=said, ruling=None, seconds=times)


def correction(
    draft: Any, drafted: Sequence[TraceFinding], expert: str, left: Answer
) -> Correction:
    outcomes = [
        REJECTED if trace is None else ACCEPTED if trace.evidence == was.evidence else EDITED
        for was, trace in zip(drafted, left, strict=False)
    ] + [ADDED] * (len(left) - len(drafted))
    return make_correction(
        draft,
        expert,
        *(trace for trace in left if trace is not None),
        outcomes=tuple(outcomes),
        correction_id=f"{draft.draft_id} {expert}",
    )


T, E, S = (make_finding(category, evidence=SENTENCE) for category in CATEGORIES)
REWRITTEN = replace(
    T, evidence="On the wall one square of eight pixels comes back again and again."
)


def test_outcomes_and_categories_by_hand() -> None:
    reviews = [
        review([T, E], {"expert-1": (T, E), "expert-2": (T, None, S)}, number=0),
        review([T], {"expert-1": (REWRITTEN,), "expert-2": (T,)}, number=1),
        review([E], {"expert-1": (None,), "expert-2": (None,)}, number=2),
        review([E], {"expert-1": (None,)}, number=3),
    ]
    found = review_agreement(reviews, CATEGORIES)
    assert found.images == 3
    outcomes = [("a", "a"), ("a", "r"), ("e", "a"), ("r", "r")]
    assert found.overall.outcome.value == pytest.approx(krippendorff_alpha(outcomes).value)
    assert found.overall.outcome.agreement == 0.5
    kept = [(1, 1), (1, 0), (0, 1), (1, 1), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)]
    assert found.overall.kept.value == pytest.approx(krippendorff_alpha(kept).value)
    assert found.categories == pytest.approx((1 / 3 + 1 + 1) / 3)
    assert found.by_category["texture"].kept.agreement == 1
    assert found.by_category["edge"].outcome.units == 2
    assert found.by_category["shape"].outcome.units == 0
    assert found.traces.units == 3
    assert found.verdict.value is None
    (pair,) = found.pairs
    assert (pair.experts, pair.images) == (("expert-1", "expert-2"), 3)
    # equal 2/4, by chance (2*2 + 1*0 + 1*2) / 16: kappa (1/2 - 3/8) / (1 - 3/8)
    assert pair.kappa == pytest.approx(0.2)
    assert found.fleiss == pytest.approx(6 / 38)  # (1/2 - 26/64) / (1 - 26/64)


def test_confidence_is_ordinal() -> None:
    pairs = [("low", "low"), ("medium", "low"), ("high", "high")]
    reviews = [
        with_confidence(review([T], {"expert-1": (T,), "expert-2": (T,)}, number=number), *pair)
        for number, pair in enumerate(pairs)
    ]
    found = review_agreement(reviews, CATEGORIES).confidence
    # middle ranks of low (3 of 6 values), medium (1), high (2): 1.5, 3.5, 5
    observed = 2 * 2**2
    expected = 2 * (3 * 1 * 2**2 + 3 * 2 * 3.5**2 + 1 * 2 * 1.5**2) / 5
    assert found.value == pytest.approx(1 - observed / expected)


def with_confidence(found: ReviewedDraft, *words: str) -> ReviewedDraft:
    said = [
        replace(item, reasoning=replace(item.reasoning, confidence=Confidence(word)))
        for item, word in zip(found.corrections, words, strict=True)
    ]
    return replace(found, corrections=tuple(said))


def test_regions_and_texts_that_both_left_as_they_were_say_nothing() -> None:
    drawn = replace(T, region=box(0, 0.5))
    found = review_agreement(
        [
            review([drawn], {"expert-1": (drawn,), "expert-2": (drawn,)}, number=0),
            review(
                [drawn],
                {
                    "expert-1": (replace(REWRITTEN, region=box(0, 0.5)),),
                    "expert-2": (replace(T, region=box(0.25, 0.75)),),
                },
                number=1,
            ),
            review([], {"expert-1": (replace(E, region=box(0, 1)),), "expert-2": (E,)}, number=2),
        ],
        CATEGORIES,
    )
    assert (found.overall.regions.value, found.overall.regions.pairs) == (pytest.approx(1 / 3), 1)
    assert found.overall.texts.pairs == 2
    assert found.by_category["edge"].texts.value == 1


def test_an_expert_is_compared_with_each_other_one() -> None:
    reviews = [
        review([T], {"expert-1": (T,), "expert-2": (T,), "expert-3": (None,)}, number=0),
        review([T], {"expert-1": (None,), "expert-2": (None,)}, number=1),
    ]
    found = review_agreement(reviews, CATEGORIES)
    units = {expert: row.outcome.units for expert, row in found.by_expert.items()}
    assert units == {"expert-1": 3, "expert-2": 3, "expert-3": 2}
    assert found.by_expert["expert-3"].outcome.agreement == 0
    assert found.by_expert["expert-1"].outcome.agreement == pytest.approx(2 / 3)
    assert found.fleiss is None  # unequally many experts
    assert [pair.images for pair in found.pairs] == [2, 1, 1]


def test_who_is_right_is_told_with_three_experts() -> None:
    pair = [review([T], {"expert-1": (T,), "expert-2": (T,)}, number=n) for n in range(20)]
    assert review_agreement(pair, CATEGORIES).accuracy == {}
    three = [
        review(
            [T],
            {
                "expert-1": (T if n % 2 else None,),
                "expert-2": (T if n % 2 else None,),
                "expert-3": (T if n % 3 else None,),
            },
            number=n,
        )
        for n in range(30)
    ]
    accuracy = review_agreement(three, CATEGORIES).accuracy
    assert accuracy["expert-1"] > 0.95
    assert accuracy["expert-3"] == pytest.approx(0.5, abs=0.05)


def test_nothing_reviewed_twice_has_no_figures() -> None:
    found = review_agreement([review([T], {"expert-1": (T,)})], CATEGORIES)
    assert (found.images, found.overall.outcome.value, found.pairs) == (0, None, ())
    assert found.categories is None


# Too alike

OTHER_WORDS = replace(T, evidence="One square of pixels is all that the wall is made of.")


@pytest.mark.parametrize(
    ("drafted", "mine", "theirs", "texts", "of_texts"),
    [
        ([T], REWRITTEN, REWRITTEN, 1, 1),
        ([T], REWRITTEN, replace(T, evidence=REWRITTEN.evidence.lower()), 1, 1),
        ([T], REWRITTEN, OTHER_WORDS, 0, 1),
        ([T], T, T, 0, 0),
        ([T], T, REWRITTEN, 0, 0),
        ([T], replace(T, evidence=f"{SENTENCE}!"), replace(T, evidence=f"{SENTENCE}!"), 0, 0),
        ([], REWRITTEN, REWRITTEN, 1, 1),
        ([], REWRITTEN, OTHER_WORDS, 0, 1),
    ],
    ids=[
        "same edit", "nearly the same edit", "two edits", "untouched", "one edit", "mended slip",
        "same added", "two added",
    ],
)  # fmt: skip
def test_texts_are_too_alike(
    drafted: list[TraceFinding],
    mine: TraceFinding,
    theirs: TraceFinding,
    texts: int,
    of_texts: int,
) -> None:
    alike = alike_of(drafted, mine, theirs)
    assert (alike.texts, alike.of_texts) == (texts, of_texts)
    assert len(alike.image_ids) == texts


@pytest.mark.parametrize(
    ("mine", "theirs", "regions", "of_regions"),
    [
        (box(0.1, 0.4), box(0.1, 0.4), 1, 1),
        (box(0.1, 0.4), box(0.1, 0.402), 1, 1),
        (box(0.1, 0.4), box(0.1, 0.45), 0, 1),
        (box(0, 1), box(0, 1), 0, 0),
        (None, box(0.1, 0.4), 0, 0),
    ],
    ids=["same", "nearly the same", "drawn twice", "the teacher's", "one"],
)
def test_regions_are_too_alike(
    mine: Region | None, theirs: Region | None, regions: int, of_regions: int
) -> None:
    drafted = replace(T, region=box(0, 1))
    alike = alike_of([drafted], replace(T, region=mine), replace(T, region=theirs))
    assert (alike.regions, alike.of_regions) == (regions, of_regions)


def test_times_are_too_alike() -> None:
    seconds = {"expert-1": 30.01, "expert-2": 30.02}
    assert alike_of([T], T, T, seconds=seconds).times == 1
    assert alike_of([T], T, T, seconds={**seconds, "expert-2": 31.0}).times == 0
    assert alike_of([T], T, T).of_times == 0


def alike_of(
    drafted: list[TraceFinding],
    mine: TraceFinding,
    theirs: TraceFinding,
    seconds: dict[str, float] | None = None,
) -> Alike:
    answers: dict[str, Answer] = {"expert-1": (mine,), "expert-2": (theirs,)}
    (pair,) = review_agreement([review(drafted, answers, seconds=seconds)], CATEGORIES).pairs
    return pair.alike
