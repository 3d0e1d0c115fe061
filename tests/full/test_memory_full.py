"""The memory that `--plan` gives, against what the steps of small models take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.training.families import save_family
from tests.unit.training.live_bytes import check_estimate
from tests.unit.training.toys import ToySet, make_config, make_set
from training.inputs import read_inputs

pytestmark = pytest.mark.full
WIDE = {
    "kind": "tiny_llava",
    "vision": {"image_size": 32, "patch_size": 8, "hidden_size": 128, "layers": 2, "heads": 2},
    "language": {
        "vocabulary": 330, "hidden_size": 256, "layers": 4, "heads": 4, "max_tokens": 256,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToySet:
    return make_set(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("layout", ["tree", "plain"])
@pytest.mark.parametrize("images", [8, 48])
def test_a_model_that_is_trained_whole(toy: ToySet, layout: str, images: int) -> None:
    config = make_config(
        model=WIDE, data__layout=layout, data__batch_images=images, data__branches=3,
        optimiser={"steps": 4, "learning_rate": 1e-3},
    )  # fmt: skip
    inputs = read_inputs(config, toy.shards, toy.images)
    assert check_estimate(config, inputs, toy.shards) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("rank", [None, 8])
def test_a_checkpoint(toy: ToySet, family: str, recomputes: bool, rank: int | None) -> None:
    """Recomputing, a third too much at most: logits and one layer are not held together."""
    config = make_config(
        model={
            "kind": "checkpoint",
            "name": str(save_family(family)),
            "activation_checkpointing": recomputes,
        },
        lora=rank and {"rank": rank},
        optimiser={"steps": 4, "learning_rate": 1e-3, "part_rates": {"tower": 0}},
        data__batch_images=24,
        scoring__answer_prefix=" The image is" if family == "llava" else "The image is",
    )
    inputs = read_inputs(config, toy.shards, toy.images)
    estimate = check_estimate(config, inputs, Path(toy.shards))
    assert 0.85 < estimate < (1.33 if recomputes else 1.1)
