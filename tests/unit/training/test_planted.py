"""A planted scorer whose log-odds are known: every figure equals what a person counts by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from core.records import Authenticity
from training.calibrate import Calibration
from training.detection import ScoredImage, measure_detection

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
PLANTED = {
    FAKE: [3.0, 2.0, 1.0, -1.0],
    REAL: [-3.0, -2.0, -1.5, 1.5],
}
"""by hand: of 16 pairs, 4 + 4 + 3 + 3 have the fake above; threshold 0"""


def planted() -> list[ScoredImage]:
    return [
        ScoredImage(
            name=f"{label}-{place}",
            label=label,
            generator="a" if label is FAKE and place < 2 else "b" if label is FAKE else None,
            group=f"{label}-{place}",
            log_odds=value,
        )
        for label, values in PLANTED.items()
        for place, value in enumerate(values)
    ]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_every_figure_equals_the_hand_computed_one() -> None:
    found = measure_detection(planted(), None)
    assert found.whole is not None
    figures = found.whole.figures
    assert figures["auroc"] == pytest.approx((4 + 4 + 3 + 3) / 16)
    precisions = [1 / 1, 2 / 2, 3 / 4, 4 / 5]
    assert figures["average_precision"] == pytest.approx(sum(precisions) / 4)
    assert figures["accuracy"] == figures["balanced_accuracy"] == 6 / 8
    assert (found.found, found.alarms, found.majority) == (0.75, 0.25, 0.5)
    assert figures["equal_error_rate"] == pytest.approx(0.25)
    assert figures["true_positive_rate_at_1_percent_false"] == 0.5
    assert figures["true_positive_rate_at_5_percent_false"] == 0.5
    fakes, photographs = PLANTED[FAKE], PLANTED[REAL]
    squares = [(1 - sigmoid(x)) ** 2 for x in fakes] + [sigmoid(x) ** 2 for x in photographs]
    assert figures["brier"] == pytest.approx(sum(squares) / 8)
    missed = sum(math.log2(1 + math.exp(-x)) for x in fakes) / 4
    alarmed = sum(math.log2(1 + math.exp(x)) for x in photographs) / 4
    assert figures["cllr"] == pytest.approx((missed + alarmed) / 2)
    surprise = [-math.log(sigmoid(x)) for x in fakes] + [
        -math.log(sigmoid(-x)) for x in photographs
    ]
    assert figures["negative_log_likelihood"] == pytest.approx(sum(surprise) / 8)


def test_generators_are_set_against_all_photographs() -> None:
    found = measure_detection(planted(), None)
    first, second = found.generators
    assert (first.name, first.fakes, first.photographs) == ("a", 2, 4)
    assert first.figures["auroc"] == 1.0
    assert second.figures["auroc"] == pytest.approx((3 + 3) / 8)
    assert found.macro["auroc"] == pytest.approx((1.0 + 0.75) / 2)
    assert found.worst == "b"


def test_a_calibration_moves_threshold_and_probabilities_and_no_ranks() -> None:
    fitted = Calibration(scale=2.0, bias=1.0, threshold=4.5, images=8)
    found = measure_detection(planted(), fitted)
    assert found.whole is not None
    assert found.whole.figures["auroc"] == pytest.approx(14 / 16)
    assert (found.found, found.alarms) == (0.5, 0.0)
    ratios = [2 * x + 1 for x in PLANTED[FAKE]], [2 * x + 1 for x in PLANTED[REAL]]
    missed = sum(math.log2(1 + math.exp(-x)) for x in ratios[0]) / 4
    alarmed = sum(math.log2(1 + math.exp(x)) for x in ratios[1]) / 4
    assert found.whole.figures["cllr"] == pytest.approx((missed + alarmed) / 2)


def test_with_shuffled_labels_everything_is_at_chance() -> None:
    rng = np.random.default_rng(8)
    scores = np.concatenate([rng.normal(-2, 1, 1000), rng.normal(2, 1, 1000)])
    labels = rng.permutation([FAKE] * 1000 + [REAL] * 1000)
    images = [
        ScoredImage(
            name=str(place),
            label=Authenticity(label),
            generator=None,
            group=str(place),
            log_odds=float(score),
        )
        for place, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    found = measure_detection(images, None)
    assert found.whole is not None
    figures = found.whole.figures
    assert found.whole.auroc.low < 0.5 < found.whole.auroc.high
    for name in ("auroc", "balanced_accuracy", "equal_error_rate", "average_precision"):
        assert figures[name] == pytest.approx(0.5, abs=0.04), name
    assert figures["true_positive_rate_at_5_percent_false"] == pytest.approx(0.05, abs=0.03)
    assert figures["cllr"] > 1
