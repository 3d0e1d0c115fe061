"""The self-test of tree batches: the same losses and gradients as separate forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from core.errors import PermanentError
from training.losses import token_losses
from training.model import Assembly
from training.tree import Tree, collate_plain, collate_trees

TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.float16: 0.01}
"""largest difference, as a share of the largest loss or gradient, by the type of the weights"""
SAMPLED = 4096
"""entries of each gradient that are compared"""


def check_parity(assembly: Assembly, trees: Sequence[Tree], *, are_compiled: bool = False) -> None:
    """PermanentError when trees differ from one forward pass per conversation.

    `are_compiled` layers are so in training mode alone: trees are tried in it, and what they are
    compared with is not compiled.
    """
    model = assembly.model
    was_training = model.training
    apart = [Tree(tree.image, [row]) for tree in trees for row in tree.rows]
    model.train(are_compiled)
    together = _learn(model, [collate_trees(trees, assembly)])
    model.eval()
    separate = _learn(model, [collate_plain([tree], assembly) for tree in apart])
    model.train(was_training)
    if not separate[0].isfinite().all():
        return  # no matter of trees: the first step says what it is
    differences = [_difference(one, other) for one, other in zip(together, separate, strict=True)]
    if not max(differences) <= TOLERANCES.get(model.dtype, 0.0):
        remedy = "compile=false" if are_compiled else "data.layout=plain"
        raise PermanentError(
            f"tree batches of this {model.config.model_type} model differ from separate forward "
            f"passes: losses by {differences[0]:.1e}, gradients by {differences[1]:.1e} of the "
            f"largest; write {remedy}"
        )


def _learn(model: Any, batches: Iterable[Any]) -> tuple[Tensor, Tensor]:
    """Loss of each answer token in order, and a sample of the gradients of their sum."""
    model.zero_grad(set_to_none=True)
    losses = []
    for batch in batches:
        values = token_losses(model, batch).values
        values.sum().backward()  # type: ignore[no-untyped-call]
        losses.append(values.detach())
    gradients = [
        _sample(parameter.grad) for parameter in model.parameters() if parameter.grad is not None
    ]
    model.zero_grad(set_to_none=True)
    return torch.cat(losses).float(), torch.cat(gradients)


def _sample(gradient: Tensor) -> Tensor:
    step = -(-gradient.numel() // SAMPLED)
    return gradient.flatten()[::step].float()


def _difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())
