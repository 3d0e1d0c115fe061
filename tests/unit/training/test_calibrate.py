from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, logit

from core.errors import DataError
from training.calibrate import calibrate
from training.metrics import cllr

rng = np.random.default_rng(1)


def draw(number: int, *, share_fake: float, scale: float = 1.0, shift: float = 0.0):
    """Scores whose true log-likelihood ratio is known: two normal classes one apart per side.

    For N(+1, sd 1) against N(-1, sd 1) the ratio is twice the score.
    """
    labels = rng.random(number) < share_fake
    scores = np.where(labels, 1.0, -1.0) + rng.normal(size=number)
    return labels, scale * scores + shift, 2 * scores


@pytest.mark.parametrize("share_fake", [0.5, 0.1])
@pytest.mark.parametrize(("scale", "shift"), [(1, 0), (7, 3), (0.01, -2)])
def test_the_true_ratio_is_found_whatever_the_scale_and_the_shares(
    share_fake: float, scale: float, shift: float
) -> None:
    labels, log_odds, ratios = draw(40_000, share_fake=share_fake, scale=scale, shift=shift)
    calibration = calibrate(labels, log_odds)
    assert np.abs(calibration.log_likelihood_ratios(log_odds) - ratios).max() < 0.5
    assert calibration.threshold == pytest.approx(0, abs=0.6)


def test_scores_that_part_the_classes_have_a_finite_fit_and_a_threshold_between_them() -> None:
    labels = np.array([True] * 6 + [False] * 4)
    log_odds = np.where(labels, 5.0, -3.0)
    calibration = calibrate(labels, log_odds)
    ratios = calibration.log_likelihood_ratios(log_odds)
    assert np.isfinite(ratios).all()
    assert expit(ratios[0]) == pytest.approx(7 / 8, abs=1e-3)
    assert expit(ratios[-1]) == pytest.approx(1 / 6, abs=1e-3)
    assert calibration.calls_fake(log_odds).tolist() == labels.tolist()


def test_scores_at_chance_say_nothing() -> None:
    labels = np.arange(20_000) % 2 == 0
    log_odds = rng.normal(size=20_000)
    calibration = calibrate(labels, log_odds)
    assert cllr(labels, calibration.log_likelihood_ratios(log_odds)) == pytest.approx(1, abs=0.01)


def test_scores_that_are_the_wrong_way_round_are_not_turned_around() -> None:
    labels, log_odds, _ = draw(1000, share_fake=0.5)
    assert calibrate(labels, -log_odds).scale >= 0


def test_a_prior_moves_the_odds_and_nothing_else() -> None:
    labels, log_odds, _ = draw(1000, share_fake=0.5)
    calibration = calibrate(labels, log_odds)
    even = calibration.probabilities(log_odds)
    rare = calibration.probabilities(log_odds, prior=0.01)
    assert np.allclose(logit(even) - logit(rare), -logit(0.01))
    assert np.allclose(logit(even), calibration.log_likelihood_ratios(log_odds))


@pytest.mark.parametrize("value", [True, False])
def test_one_class_alone_cannot_be_calibrated(value: bool) -> None:
    with pytest.raises(DataError, match="needs fakes and photographs"):
        calibrate(np.array([value] * 5), np.arange(5.0))


@given(st.lists(st.tuples(st.booleans(), st.integers(-50, 50)), min_size=2, max_size=40))
def test_the_threshold_is_the_best_of_all(pairs: list[tuple[bool, int]]) -> None:
    labels = np.array([fake for fake, _ in pairs])
    log_odds = np.array([score / 10 for _, score in pairs])
    if labels.all() or not labels.any():
        return
    calibration = calibrate(labels, log_odds)

    def gain(called: np.ndarray) -> float:
        return float(called[labels].mean() - called[~labels].mean())

    chosen = gain(calibration.calls_fake(log_odds))
    others = [gain(log_odds >= place) for place in np.unique(log_odds)]
    assert chosen == pytest.approx(max(*others, chosen)) or calibration.scale < 1e-3
