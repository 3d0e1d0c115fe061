from __future__ import annotations

import numpy as np
import pytest

from core.records import Authenticity
from training.calibrate import Calibration
from training.detection import UNNAMED, ScoredImage, measure_detection

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL


def scored(
    label: Authenticity, log_odds: float, *, generator: str | None = None, group: str = ""
) -> ScoredImage:
    name = f"{label}-{generator}-{log_odds}-{group}"
    return ScoredImage(
        name=name, label=label, generator=generator, group=group or name, log_odds=log_odds
    )


IMAGES = [
    scored(FAKE, 3.0, generator="good"),
    scored(FAKE, 2.0, generator="good"),
    scored(FAKE, -0.5, generator="bad"),
    scored(FAKE, 1.0, generator="bad"),
    scored(REAL, 0.5),
    scored(REAL, -1.0),
]


def test_each_generator_is_set_against_all_photographs() -> None:
    found = measure_detection(IMAGES, None)
    assert [(line.name, line.fakes, line.photographs) for line in found.generators] == [
        ("bad", 2, 2),
        ("good", 2, 2),
    ]
    # by hand: of 8 pairs all but (-0.5, 0.5) are in order; of `bad` 3 of 4
    assert found.whole is not None
    assert found.whole.auroc.value == pytest.approx(7 / 8)
    assert [line.auroc.value for line in found.generators] == pytest.approx([3 / 4, 1])
    assert found.macro["auroc"] == pytest.approx(7 / 8)
    assert found.worst == "bad"
    assert (found.found, found.alarms) == (0.75, 0.5)
    assert found.whole.figures["accuracy"] == pytest.approx(4 / 6)
    assert found.whole.figures["balanced_accuracy"] == pytest.approx((0.75 + 0.5) / 2)
    assert found.majority == pytest.approx(4 / 6)


def test_the_threshold_of_a_calibration_is_used_and_none_of_the_test_images() -> None:
    calibration = Calibration(scale=2.0, bias=-1.0, threshold=1.5, images=10)
    found = measure_detection(IMAGES, calibration)
    # ratios 5, 3, -2, 1 of fakes and 0, -3 of photographs
    assert (found.found, found.alarms) == (0.5, 0.0)
    assert found.whole is not None
    fakes, photographs = np.array([5, 3, -2, 1]), np.array([0, -3])
    by_hand = np.mean(np.log2(1 + np.exp(-fakes))) + np.mean(np.log2(1 + np.exp(photographs)))
    assert found.whole.figures["cllr"] == pytest.approx(by_hand / 2)
    assert found.whole.auroc.value == pytest.approx(7 / 8)


def test_fakes_alone_have_recall_and_nothing_else() -> None:
    found = measure_detection(IMAGES[:4], None)
    assert found.whole is None
    assert (found.generators, found.macro, found.worst) == ((), {}, None)
    assert (found.found, found.alarms) == (0.75, None)


def test_fakes_of_nobody_are_a_line_of_their_own() -> None:
    found = measure_detection([scored(FAKE, 1.0), *IMAGES[4:]], None)
    assert [line.name for line in found.generators] == [UNNAMED]


def test_shuffled_labels_are_at_chance() -> None:
    rng = np.random.default_rng(5)
    images = [
        scored(FAKE if fake else REAL, value, generator="g" if fake else None, group=str(place))
        for place, (fake, value) in enumerate(
            zip(rng.random(600) < 0.5, rng.normal(size=600), strict=True)
        )
    ]
    whole = measure_detection(images, None).whole
    assert whole is not None
    assert whole.auroc.low < 0.5 < whole.auroc.high
    assert whole.figures["equal_error_rate"] == pytest.approx(0.5, abs=0.06)
