from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.toys import ToySet
from training.config import load_config
from training.inputs import read_inputs
from training.loop import Training
from training.run import prepare_model, prepare_torch

RECIPE = Path(__file__).resolve().parents[3] / "recipes/fakescope/training/tiny.yaml"
CHANGES = (
    "data.mix={verdict: 0.9, discussion: 0.1}",
    "data.batch_images=4",
    "model.vision.image_size=32",
    "model.vision.whitening_images=72",
    "optimiser.steps=20",
    "optimiser.warmup_steps=5",
)
"""what the toy pictures ask for; the rest is the recipe's"""
GOLDEN = [
    6.27284,
    5.52280,
    5.82697,
    4.35689,
    3.83854,
    3.44107,
    2.82133,
    2.44968,
    2.20300,
    1.88269,
    2.03233,
    1.97729,
    1.59036,
    1.71104,
    1.59325,
    1.70382,
    1.63604,
    1.28961,
    1.22691,
    1.41191,
]  # fmt: skip
TOLERANCE = 2e-3
"""of the loss: other processors and versions of torch add in another order"""


def test_the_first_losses_of_the_tiny_recipe_stay_what_they_were(toy: ToySet) -> None:
    config = load_config(RECIPE, CHANGES)
    assert config.threads == 1
    inputs = read_inputs(config, toy.shards, toy.images)
    prepare_torch(config)
    training = Training(prepare_model(config, inputs)[0], inputs.rows, inputs.folder, config)
    assert [step.loss for step in training.steps()] == pytest.approx(GOLDEN, rel=TOLERANCE)
