from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training.metrics import (
    Scored,
    auroc,
    bootstrap,
    bootstrap_difference,
    calibration_error,
    cllr,
    equal_error_rate,
    group_members,
    reliability,
    resample,
    summarise,
    true_positive_rate,
)

LABELS = [True, True, False, False]


def make_scored(scores: list[float], groups: str = "abab") -> Scored:
    return Scored.of(LABELS, scores, list(groups))


def test_auroc_counts_pairs_and_half_of_ties() -> None:
    assert auroc(make_scored([0.9, 0.4, 0.4, 0.1])) == pytest.approx((1 + 1 + 0.5 + 1) / 4)


def test_a_perfect_score_has_a_perfect_interval() -> None:
    interval = bootstrap([make_scored([4, 3, 2, 1])], resamples=200, seed=1)
    assert (interval.value, interval.low, interval.high) == (1, 1, 1)


def test_a_group_is_drawn_whole_or_not_at_all() -> None:
    scored = make_scored([1, 2, 3, 4], groups="xxyz")
    for seed in range(30):
        rng = np.random.default_rng(seed)
        drawn = resample(scored, group_members(scored), rng).scores.tolist()
        assert drawn.count(1.0) == drawn.count(2.0)
        assert len(drawn) == drawn.count(3.0) + drawn.count(4.0) + 2 * drawn.count(1.0)


def test_crops_of_few_photographs_give_wider_intervals_than_as_many_photographs() -> None:
    rng = np.random.default_rng(0)
    photograph = np.repeat(np.arange(10), 40)
    labels = np.arange(400) % 2 == 0
    scores = labels + rng.normal(0, 1.5, 10)[photograph] + rng.normal(0, 0.3, 400)
    clustered = Scored.of(labels, scores, [str(name) for name in photograph])
    alone = Scored.of(labels, scores, [str(name) for name in range(400)])
    wide = bootstrap([clustered], resamples=300, seed=1)
    narrow = bootstrap([alone], resamples=300, seed=1)
    assert wide.high - wide.low > 1.5 * (narrow.high - narrow.low)
    assert wide.low <= wide.value <= wide.high


def test_several_test_sets_give_their_mean() -> None:
    sets = [make_scored([4, 3, 2, 1]), make_scored([1, 2, 3, 4])]
    interval = bootstrap(sets, resamples=100, seed=1)
    assert (interval.value, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_resamples_with_one_class_are_drawn_again() -> None:
    interval = bootstrap([make_scored([4, 3, 2, 1], groups="aabb")], resamples=100, seed=1)
    assert interval.low == 1


def test_the_difference_is_paired() -> None:
    labels, groups = np.array(LABELS), np.array(list("abab"))
    scores = np.array([0.9, 0.4, 0.4, 0.1])
    same = bootstrap_difference(labels, scores, scores, groups, resamples=100, seed=1)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    worse = bootstrap_difference(labels, -scores, scores, groups, resamples=100, seed=1)
    assert worse.value == pytest.approx(-0.75)
    assert worse.high < 0


def test_calibration_error_by_hand() -> None:
    probabilities = np.array([0.9, 0.9, 0.9, 0.1])
    labels = np.array([True, True, False, False])
    assert reliability(labels, probabilities) == [
        (pytest.approx(0.1), 0.0, 1),
        (pytest.approx(0.9), pytest.approx(2 / 3), 3),
    ]
    expected = (1 * 0.1 + 3 * (0.9 - 2 / 3)) / 4
    assert calibration_error(labels, probabilities) == pytest.approx(expected)


def test_rate_at_a_false_alarm_rate_by_hand() -> None:
    scored = Scored.of([True] * 4 + [False] * 4, [8, 7, 3, 1, 6, 2, 0, -1], list("abcdefgh"))
    assert true_positive_rate(scored, false_positives=0.0) == 0.5
    assert true_positive_rate(scored, false_positives=0.25) == 0.75


def test_the_summary_by_hand() -> None:
    probabilities = np.array([0.9, 0.4, 0.6, 0.1])
    figures = summarise(make_scored([2, -0.4, 0.4, -2]), probabilities, threshold=0.5)
    assert figures["accuracy"] == 0.5
    assert figures["balanced_accuracy"] == 0.5
    assert figures["auroc"] == 0.75
    assert figures["brier"] == pytest.approx((0.01 + 0.36 + 0.36 + 0.01) / 4)
    assert figures["average_precision"] == pytest.approx((1 + 2 / 3) / 2)


@given(st.lists(st.integers(-50, 50), min_size=4, max_size=4), st.floats(0.1, 5))
def test_auroc_depends_on_the_order_alone(scores: list[int], factor: float) -> None:
    plain = make_scored([float(score) for score in scores])
    stretched = make_scored([factor * score + 3 for score in scores])
    assert auroc(plain) == pytest.approx(auroc(stretched))
    assert auroc(plain) == pytest.approx(roc_auc_score(LABELS, scores))


def test_the_equal_error_rate_lies_where_both_errors_are_equal() -> None:
    assert equal_error_rate(make_scored([4, 3, 2, 1])) == 0
    assert equal_error_rate(make_scored([1, 2, 3, 4])) == 1
    assert equal_error_rate(make_scored([4, 2, 3, 1])) == 0.5
    one_alarm = Scored.of([True] * 4 + [False] * 4, [9, 8, 7, 2, 6, 1, 1, 0], ["g"] * 8)
    assert equal_error_rate(one_alarm) == 0.25


def test_the_equal_error_rate_is_interpolated_between_two_points() -> None:
    # points of the ROC curve: (0, 1/2) and (1/3, 1); misses = alarms on the line between them
    scored = Scored.of([True, True, False, False, False], [3, 2, 2, 1, 0], ["g"] * 5)
    assert equal_error_rate(scored) == pytest.approx(0.2)


def test_the_cost_of_likelihood_ratios() -> None:
    labels = np.array([True, False])
    assert cllr(labels, np.zeros(2)) == pytest.approx(1)
    assert cllr(labels, np.array([np.log(3), -np.log(3)])) == pytest.approx(np.log2(4 / 3))
    assert cllr(labels, np.array([500.0, -500.0])) == pytest.approx(0)
    assert cllr(labels, np.array([-500.0, 500.0])) == pytest.approx(500 / np.log(2))


def test_balanced_calibration_error_does_not_depend_on_the_number_of_photographs() -> None:
    labels, probabilities = np.array([True, False]), np.array([0.7, 0.4])
    more = np.array([True] + [False] * 9), np.array([0.7] + [0.4] * 9)
    assert calibration_error(*more, balanced=True) == pytest.approx(
        calibration_error(labels, probabilities)
    )
    assert calibration_error(labels, probabilities) == pytest.approx((0.3 + 0.4) / 2)
    assert calibration_error(*more) == pytest.approx((0.3 + 9 * 0.4) / 10)
