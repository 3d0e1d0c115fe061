"""Agreement figures: the published worked examples, and the laws that they obey.

What the examples give was checked with other people's programs, each fed with the data as they
stand here: alpha with `krippendorff` 0.9.0, whose own tests hold two of the tables too; Fleiss'
kappa with `statsmodels`, whose tests hold the table of Fleiss (1971) as the R package `irr` has it,
with its 0.4302445; Cohen's kappa with `statsmodels` and `scikit-learn`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.draw import polygon2mask

from core.agreement import (
    LEAST_CLUSTERS,
    MOST_CHARACTERS,
    Metric,
    Unit,
    Values,
    cohen_kappa,
    edit_distance,
    fleiss_kappa,
    krippendorff_alpha,
    region_overlap,
    text_similarity,
)
from core.records import Mask, Region
from tests.masks import masks

NOMINAL, ORDINAL, INTERVAL = Metric

ratings = st.lists(st.lists(st.integers(0, 4), max_size=4), max_size=30)
metrics = st.sampled_from(Metric)
words = st.text(max_size=30)
fractions = st.floats(0, 1)


def thousandths(least: int, most: int) -> st.SearchStrategy[float]:
    """Coordinates as a person can draw them; of two that differ by 1e-300 no overlap is certain."""
    return st.integers(least, most).map(lambda number: number / 1000)


boxes = st.builds(
    lambda left, top, width, height: box(left, top, left + width, top + height),
    thousandths(0, 500), thousandths(0, 500), thousandths(10, 500), thousandths(10, 500),
)  # fmt: skip
polygons = st.builds(
    lambda points: Region(points=tuple(points)),
    st.lists(st.tuples(fractions, fractions), min_size=3, max_size=8),
)


def box(left: float, top: float, right: float, bottom: float) -> Region:
    return Region(points=((left, top), (right, top), (right, bottom), (left, bottom)))


def columns(*rows: str) -> list[list[str]]:
    """Units from one row per observer; a dot is a missing value."""
    return [[value for value in unit if value != "."] for unit in zip(*rows, strict=True)]


def numbers(*rows: str) -> list[list[int]]:
    return [[int(value) for value in unit] for unit in columns(*rows)]


# Alpha

TWO_OBSERVERS_OF_TWO_VALUES = columns("0100000010", "1110010000")
TWO_OBSERVERS_OF_FIVE_VALUES = columns("aabbdcccedda", "babbbccceddd")
FOUR_OBSERVERS = numbers("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
THREE_CODERS = numbers(".....34121133.3", "1.213343.......", "..21344.21133.4")


@pytest.mark.parametrize(
    ("units", "metric", "published"),
    [
        (TWO_OBSERVERS_OF_TWO_VALUES, NOMINAL, 0.095),
        (TWO_OBSERVERS_OF_FIVE_VALUES, NOMINAL, 0.692),
        (FOUR_OBSERVERS, NOMINAL, 0.743),
        (FOUR_OBSERVERS, ORDINAL, 0.815),
        (FOUR_OBSERVERS, INTERVAL, 0.849),
    ],
)
def test_alpha_of_the_examples_of_krippendorff_2011(
    units: Sequence[Unit], metric: Metric, published: float
) -> None:
    assert krippendorff_alpha(units, metric).value == pytest.approx(published, abs=5e-4)


@pytest.mark.parametrize(("metric", "published"), [(NOMINAL, 0.691358), (INTERVAL, 0.810845)])
def test_alpha_of_the_example_of_the_encyclopaedia(metric: Metric, published: float) -> None:
    """Three coders and many missing values: Wikipedia, Krippendorff's alpha."""
    assert krippendorff_alpha(THREE_CODERS, metric).value == pytest.approx(published, abs=5e-7)


def test_units_with_one_value_tell_nothing() -> None:
    found = krippendorff_alpha(FOUR_OBSERVERS)
    assert found.units == 11
    assert found == krippendorff_alpha([unit for unit in FOUR_OBSERVERS if len(unit) > 1])


@given(ratings, metrics, st.randoms())
def test_alpha_knows_no_order_of_units_and_raters(
    units: list[list[int]], metric: Metric, shuffler: random.Random
) -> None:
    shuffled = [shuffler.sample(unit, len(unit)) for unit in units]
    shuffler.shuffle(shuffled)
    assert_same(krippendorff_alpha(shuffled, metric), krippendorff_alpha(units, metric))


@given(ratings, st.permutations(range(5)))
def test_nominal_alpha_knows_no_names(units: list[list[int]], renamed: list[int]) -> None:
    others = [[renamed[value] for value in unit] for unit in units]
    known, found = krippendorff_alpha(units), krippendorff_alpha(others)
    assert (found.agreement, found.units) == (pytest.approx(known.agreement), known.units)
    assert found.value == pytest.approx(known.value)


@given(ratings, st.floats(0.5, 100), st.floats(-100, 100))
def test_interval_alpha_knows_no_unit_of_measurement(
    units: list[list[int]], scale: float, shift: float
) -> None:
    others = [[scale * value + shift for value in unit] for unit in units]
    assert_same(krippendorff_alpha(others, INTERVAL), krippendorff_alpha(units, INTERVAL))


@given(ratings)
def test_ordinal_alpha_knows_the_order_alone(units: list[list[int]]) -> None:
    others = [[2**value for value in unit] for unit in units]
    assert_same(krippendorff_alpha(others, ORDINAL), krippendorff_alpha(units, ORDINAL))


@given(ratings)
def test_with_two_values_all_metrics_are_one(units: list[list[int]]) -> None:
    halved = [[value % 2 for value in unit] for unit in units]
    for metric in (ORDINAL, INTERVAL):
        assert_same(krippendorff_alpha(halved, metric), krippendorff_alpha(halved))


@given(st.lists(st.integers(0, 4), min_size=2, max_size=30), st.integers(2, 4), metrics)
def test_perfect_agreement_is_one(truth: list[int], raters: int, metric: Metric) -> None:
    found = krippendorff_alpha([[value] * raters for value in truth], metric)
    assert found.agreement == 1
    assert found.value == (1 if len(set(truth)) > 1 else None)


@given(ratings, metrics)
def test_alpha_is_at_most_one_and_inside_its_interval_most_often(
    units: list[list[int]], metric: Metric
) -> None:
    found = krippendorff_alpha(units, metric)
    for value in (found.value, found.low, found.high):
        assert value is None or value <= 1 + 1e-12
    if found.low is not None and found.high is not None:
        assert found.low <= found.high


def test_chance_agrees_with_nobody() -> None:
    random_numbers = np.random.default_rng(1).integers(0, 3, (3000, 2)).tolist()
    found = krippendorff_alpha(random_numbers)
    assert found.value == pytest.approx(0, abs=0.03)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0 < found.high


def test_the_interval_holds_what_the_same_raters_would_give_again() -> None:
    """Of 100 samples from raters of known alpha about 95 have an interval that holds it."""
    draw = np.random.default_rng(2)
    truth = draw.integers(0, 2, 200_000)
    said = np.where(draw.random((2, len(truth))) < 0.8, truth, 1 - truth).T
    alpha = krippendorff_alpha(said.tolist()).value
    assert alpha is not None
    held = 0
    for sample in range(100):
        found = krippendorff_alpha(said[sample * 200 : sample * 200 + 200].tolist())
        assert found.low is not None
        assert found.high is not None
        held += found.low <= alpha <= found.high
    assert 88 <= held <= 100


def test_what_was_rated_together_makes_the_interval_wider() -> None:
    images = [number // 20 for number in range(400)]
    units = [[number % 2, (number + image % 2) % 2] for number, image in enumerate(images)]
    alone = krippendorff_alpha(units)
    together = krippendorff_alpha(units, clusters=images)
    assert alone.value == together.value
    assert width(together) > width(alone)


def test_too_few_clusters_have_no_interval() -> None:
    units = [[0, 1], [1, 1]] * LEAST_CLUSTERS
    found = krippendorff_alpha(units, clusters=["one", "other"] * LEAST_CLUSTERS)
    assert (found.low, found.high) == (None, None)
    assert found.value is not None


def test_nothing_rated_twice_has_no_alpha() -> None:
    found = krippendorff_alpha([[1], [], [2]])
    assert (found.value, found.agreement, found.units) == (None, None, 0)


def width(alpha: Any) -> float:
    return float(alpha.high - alpha.low)


def assert_same(one: Any, other: Any) -> None:
    assert one.units == other.units
    for name in ("value", "low", "high", "agreement"):
        first, second = getattr(one, name), getattr(other, name)
        assert (first is None) == (second is None)
        assert first is None or first == pytest.approx(second, abs=1e-9)


# Kappa

PATIENTS = """
    444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333
    144444 224445 333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224
    111155 224444 133333 555555
"""
"""30 patients, diagnosed by six psychiatrists each: table 1 of Fleiss (1971)"""


def counted(units: Sequence[Unit]) -> Values:
    """How often each value was given to each unit."""
    scale = sorted({value for unit in units for value in unit})
    return np.array([[list(unit).count(value) for value in scale] for unit in units]).reshape(
        len(units), len(scale)
    )


def test_fleiss_kappa_of_the_example_of_fleiss_1971() -> None:
    assert fleiss_kappa(counted(PATIENTS.split())) == pytest.approx(0.430, abs=5e-4)


@given(
    st.integers(2, 4).flatmap(
        lambda n: st.lists(st.lists(st.integers(0, 3), min_size=n, max_size=n), min_size=1)
    )
)
def test_fleiss_kappa_is_alpha_without_its_correction_for_small_samples(
    units: list[list[int]],
) -> None:
    kappa, alpha = fleiss_kappa(counted(units)), krippendorff_alpha(units).value
    total = sum(map(len, units))
    assert (kappa is None) == (alpha is None)
    if kappa is not None and alpha is not None:
        assert 1 - alpha == pytest.approx((1 - kappa) * (total - 1) / total)


def test_fleiss_kappa_asks_for_equally_many_values() -> None:
    assert fleiss_kappa(counted([[1, 2], [1, 2, 2]])) is None
    assert fleiss_kappa(counted([[1], [2]])) is None
    assert fleiss_kappa(counted([])) is None


def test_cohen_kappa_of_the_example_of_cohen_1968() -> None:
    """Table 1 there: two judges, three categories, 200 cases; kappa before it is weighted."""
    table = [[88, 14, 18], [10, 40, 10], [2, 6, 12]]
    pairs = [(i, j) for i in range(3) for j in range(3) for _ in range(table[i][j])]
    assert cohen_kappa(pairs) == pytest.approx(0.492, abs=5e-4)


def test_cohen_kappa_of_one_value_says_nothing() -> None:
    assert cohen_kappa([]) is None
    assert cohen_kappa([("a", "a"), ("a", "a")]) is None
    assert cohen_kappa([("a", "b"), ("a", "b")]) == 0


# Regions


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        (box(0, 0, 0.5, 0.5), box(0, 0, 0.5, 0.5), 1),
        (box(0, 0, 0.5, 0.5), box(0.25, 0, 0.75, 0.5), 1 / 3),
        (box(0, 0, 0.5, 0.5), box(0.5, 0.5, 1, 1), 0),
        (box(0, 0, 1, 1), Region(points=((0, 0), (1, 0), (0, 1))), 1 / 2),
        (Region(points=((0, 0), (1, 1), (1, 0), (0, 1))), box(0, 0, 1, 1), 1 / 2),
        (box(0.5, 0, 0.5, 1), box(0.5, 0, 0.5, 1), 1),
        (box(0.5, 0, 0.5, 1), box(0, 0, 1, 1), 0),
    ],
    ids=["same", "shifted", "touching", "triangle", "crossing", "line", "line in box"],
)
def test_overlap_of_regions_by_hand(one: Region, other: Region, overlap: float) -> None:
    assert region_overlap(one, other) == pytest.approx(overlap)


@given(boxes | polygons, boxes | polygons)
def test_overlap_knows_no_order(one: Region, other: Region) -> None:
    overlap = region_overlap(one, other)
    assert 0 <= overlap <= 1
    assert overlap == pytest.approx(region_overlap(other, one), abs=1e-9)
    assert region_overlap(one, one) == pytest.approx(1)


@given(boxes, boxes, st.integers(0, 3))
def test_overlap_knows_no_first_corner_and_no_direction(
    one: Region, other: Region, start: int
) -> None:
    turned = Region(points=(*one.points[start:], *one.points[:start])[::-1])
    assert region_overlap(turned, other) == pytest.approx(region_overlap(one, other))


@given(boxes, boxes, st.floats(0.1, 1), st.floats(0.1, 1))
def test_overlap_in_fractions_is_that_in_pixels(
    one: Region, other: Region, width: float, height: float
) -> None:
    stretched = [
        Region(points=tuple((width * x, height * y) for x, y in region.points))
        for region in (one, other)
    ]
    assert region_overlap(*stretched) == pytest.approx(region_overlap(one, other), abs=1e-9)


def test_overlap_is_that_of_counted_pixels() -> None:
    draw = np.random.default_rng(3)
    side = 1000
    for _ in range(5):
        one, other = (
            Region(points=tuple(map(tuple, draw.random((3, 2)).tolist()))) for _ in range(2)
        )
        masks = [polygon2mask((side, side), side * np.array(r.points)) for r in (one, other)]
        counted = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
        assert region_overlap(one, other) == pytest.approx(counted, abs=0.01)


@given(masks(width=9, height=7), masks(width=9, height=7))
def test_overlap_of_masks_counts_pixels(one: Mask, other: Mask) -> None:
    first, second = (marked(mask) for mask in (one, other))
    overlap = region_overlap(one, other)
    assert overlap == pytest.approx(len(first & second) / len(first | second))
    assert overlap == region_overlap(other, one)


def marked(mask: Mask) -> set[int]:
    """The places of the marked pixels, down each column."""
    ends = np.cumsum(mask.counts)
    runs = zip(ends[::2], ends[1::2], strict=False)
    return {place for start, end in runs for place in range(start, end)}


def test_a_box_along_pixels_is_the_mask_of_the_same_pixels() -> None:
    mask = Mask(width=10, height=4, counts=(8, 8, 24))  # columns 2 and 3
    assert region_overlap(mask, box(0.2, 0, 0.4, 1)) == 1
    assert region_overlap(box(0.3, 0, 0.5, 1), mask) == pytest.approx(1 / 3)
    assert region_overlap(mask, box(0.8, 0, 0.8, 1)) == 0


# Texts


@given(words, words)
def test_the_distance_is_symmetric_and_bounded(one: str, other: str) -> None:
    distance = edit_distance(one, other)
    assert distance == edit_distance(other, one)
    assert abs(len(one) - len(other)) <= distance <= max(len(one), len(other))
    assert (distance == 0) == (one == other)
    assert 0 <= text_similarity(one, other) <= 1


@given(words, words, words)
def test_the_distance_obeys_the_triangle(one: str, other: str, third: str) -> None:
    assert edit_distance(one, third) <= edit_distance(one, other) + edit_distance(other, third)


def test_the_distance_counts_characters() -> None:
    assert edit_distance("kitten", "sitting") == 3
    assert text_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert text_similarity("", "") == 1


def test_a_text_without_end_is_compared_by_its_beginning() -> None:
    assert edit_distance("a" * 1_000_000, "b" * 1_000_000) == MOST_CHARACTERS
