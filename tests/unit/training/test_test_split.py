from __future__ import annotations

import numpy as np
import pytest

from imaging.measurements import FIGURES
from tests.unit.training.toys import CHECKS, STRIPES, make_config
from training.baselines import logistic_scores, measurement_features, metadata_features
from training.inputs import Inputs
from training.metrics import Interval
from training.test_split import (
    MODEL,
    Line,
    Prediction,
    by_generator,
    describe_difference,
    tabulate,
    with_others,
)

CONFIG = make_config()


def test_metadata_are_what_is_known_without_a_pixel(inputs: Inputs) -> None:
    features = metadata_features(inputs.test.images[:2], inputs.folder)
    ref = inputs.test.images[0].ref
    assert features[0].tolist() == [32, 32, inputs.folder.path_of(ref).stat().st_size, 0, True]


def test_measurements_have_one_column_for_each_figure(inputs: Inputs) -> None:
    done: list[None] = []
    features = measurement_features(
        inputs.test.images[:3], inputs.folder, after_image=lambda: done.append(None)
    )
    assert features.shape == (3, len(FIGURES))
    assert np.isfinite(features).all()
    assert len(done) == 3


def test_the_linear_baseline_finds_what_a_line_can_separate() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(80) < 0.5
    features = np.stack([labels * 1000.0 + rng.normal(0, 10, 80), rng.normal(0, 1, 80)], axis=1)
    scores = logistic_scores(features[:40], labels[:40], features[40:])
    assert ((scores > 0) == labels[40:]).all()


def test_the_table_keeps_seen_and_held_out_generators_apart(inputs: Inputs) -> None:
    strength = {None: 0.0, STRIPES: 1.0, CHECKS: -1.0}
    scores = np.array([strength[image.generator] for image in inputs.test.images])
    (line,) = tabulate(inputs.test, {MODEL: scores}, CONFIG)
    perfect, inverted = Interval(1, 1, 1), Interval(0, 0, 0)
    assert line == Line(MODEL, seen=perfect, held_out=inverted)
    held, seen = by_generator(inputs.test, scores, CONFIG)
    assert (held.generator, held.is_held_out, held.auroc, held.found) == (CHECKS, True, inverted, 0)
    assert (seen.generator, seen.is_held_out, seen.auroc, seen.found) == (
        STRIPES, False, perfect, 1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("difference", "beginning"),
    [
        (Interval(-0.1, -0.2, -0.05), "The model loses to"),
        (Interval(-0.1, -0.2, 0.05), "The model is behind"),
        (Interval(0.0, 0.0, 0.0), "The model is no worse than"),
        (Interval(0.1, -0.1, 0.2), "The model is no worse than"),
        (Interval(0.1, 0.05, 0.2), "The model beats"),
    ],
)
def test_the_comparison_says_who_wins_and_how_surely(difference: Interval, beginning: str) -> None:
    assert describe_difference(difference).startswith(beginning)


def test_predictions_carry_the_scores_that_the_model_is_compared_with() -> None:
    rows = [
        Prediction("img-1", "real", None, "a", -1.0, 0.27),
        Prediction("img-2", "fake", STRIPES, "b", 1.0, 0.73),
    ]
    scores = {MODEL: np.array([-1.0, 1.0]), "metadata only": np.array([0.5, 0.25])}
    assert [row.others for row in with_others(rows, scores, None)] == [
        {"metadata only": 0.5},
        {"metadata only": 0.25},
    ]
