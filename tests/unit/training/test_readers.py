from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from core.errors import ConfigError
from tests.unit.training.toys import ToySet, make_config
from training.data import ImageFolder
from training.inputs import Inputs, read_inputs
from training.loop import Training
from training.resume import load_state, save_state
from training.run import prepare_model, prepare_torch

AUGMENT = {
    "flips": True,
    "changes": {
        "noise": {"share": 0.5, "least": 1, "most": 9},
        "jpeg": {"share": 0.5, "least": 50, "most": 90},
    },
}


def begin(inputs: Inputs, workers: int) -> Training:
    config = make_config(
        optimiser__steps=7, data__max_tokens=40, data__augment=AUGMENT, data__workers=workers
    )
    prepare_torch(config)
    return Training(prepare_model(config, inputs)[0], inputs.rows, inputs.folder, config)


def test_steps_are_the_same_to_the_bit_whoever_makes_them_ready(
    inputs: Inputs, tmp_path: Path
) -> None:
    whole = begin(inputs, workers=0)
    expected = [step.loss for step in whole.steps()]
    first = begin(inputs, workers=2)
    steps = first.steps()
    losses = [next(steps).loss for _ in range(3)]
    save_state(tmp_path, first.save(), step=3)
    torch.manual_seed(99)
    second = begin(inputs, workers=2)
    saved = load_state(tmp_path)
    assert saved is not None
    second.restore(saved)
    assert losses + [step.loss for step in second.steps()] == expected
    assert second.set_aside == whole.set_aside
    assert whole.set_aside.total() > 0


def test_what_a_process_cannot_read_is_one_clear_error(toy: ToySet, tmp_path: Path) -> None:
    images = Path(shutil.copytree(toy.images, tmp_path / "images"))
    inputs = read_inputs(make_config(), toy.shards, images)
    training = begin(inputs, workers=2)
    for ref in inputs.rows.images():
        ImageFolder(images).path_of(ref).write_bytes(b"something else")
    with pytest.raises(ConfigError, match="has changed since the shards were built") as caught:
        list(training.steps())
    assert "\n" not in str(caught.value)


def test_kept_features_have_one_keeper() -> None:
    with pytest.raises(ValueError, match=r"write data\.workers=0"):
        make_config(features={}, data__workers=2)
