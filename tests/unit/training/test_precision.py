"""What saves memory or time does not change what is learnt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.training.families import build_family, save_family
from tests.unit.training.test_tree import encode_all
from training.attention import use_tree_attention
from training.config import Checkpoint
from training.losses import token_losses
from training.model import Assembly, load_checkpoint
from training.tree import collate_trees

COARSE = 0.02
"""share of a loss that bfloat16 may change"""


def learn(assembly: Assembly) -> tuple[Tensor, list[Tensor]]:
    use_tree_attention(assembly.model)
    assembly.model.train()
    losses = token_losses(assembly.model, collate_trees(encode_all(assembly), assembly)).values
    losses.sum().backward()
    return losses.detach(), [p.grad for p in assembly.model.parameters() if p.grad is not None]


@contextmanager
def calls(module: Any) -> Iterator[list[int]]:
    """One entry for each forward pass of a module."""
    counted: list[int] = []
    hook = module.register_forward_pre_hook(lambda *_: counted.append(1))
    yield counted
    hook.remove()


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl", "qwen3_vl", "internvl"])
def test_recomputed_layers_have_the_same_gradients(family: str) -> None:
    losses, gradients = learn(build_family(family))
    settings = Checkpoint(
        kind="checkpoint", name=str(save_family(family)), activation_checkpointing=True
    )
    assembly = load_checkpoint(settings)
    parts = assembly.model.model
    tower = parts.visual if family.startswith("qwen") else parts.vision_tower
    linear = next(module for module in tower.modules() if isinstance(module, torch.nn.Linear))
    with (
        calls(parts.language_model.layers[0].mlp) as in_language,
        calls(linear) as in_tower,
    ):
        again, recomputed = learn(assembly)
    assert (len(in_language), len(in_tower)) == (2, 1)
    assert torch.equal(again, losses)
    for one, other in zip(recomputed, gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
@pytest.mark.parametrize("weights", ["float32", "bfloat16"])
def test_losses_in_bfloat16_are_close(family: str, weights: str) -> None:
    losses, _ = learn(build_family(family))
    settings = Checkpoint.model_validate(
        {"kind": "checkpoint", "name": str(save_family(family)), "dtype": weights}
    )
    with torch.autocast("cpu", torch.bfloat16, enabled=weights == "float32"):
        coarse, _ = learn(load_checkpoint(settings))
    assert not torch.equal(coarse, losses)
    assert float(coarse.mean()) == pytest.approx(float(losses.mean()), rel=COARSE)
