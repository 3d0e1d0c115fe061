"""How many bytes the tensors of a training step hold at most, counted as they come and go."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from training.config import TrainingConfig
from training.inputs import Inputs
from training.loop import Training
from training.plan import make_plan
from training.run import prepare_model, prepare_torch


class LiveBytes(TorchDispatchMode):
    """Sees the storage of every tensor that an operation returns, and when it is let go."""

    def __init__(self, held: Iterator[Any]) -> None:
        super().__init__()
        self.live = self.most = 0
        self._seen: set[int] = set()
        for value in held:
            self._see(value)

    def _see(self, value: Any) -> None:
        if not isinstance(value, torch.Tensor):
            return
        storage = value.untyped_storage()
        address, size = storage._cdata, storage.nbytes()
        if address not in self._seen:
            self._seen.add(address)
            self.live += size
            self.most = max(self.most, self.live)
            weakref.finalize(storage, self._drop, address, size)

    def _drop(self, address: int, size: int) -> None:
        self._seen.discard(address)
        self.live -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for value in tree_leaves(output):
            self._see(value)
        return output


def check_estimate(config: TrainingConfig, inputs: Inputs, shards: Path) -> float:
    """What the plan says that a step takes, as a share of what the steps of a run took at most."""
    prepare_torch(config)
    planned = make_plan(config, shards).memory[0]
    training = Training(prepare_model(config, inputs)[0], inputs.rows, inputs.folder, config)
    steps = training.steps()
    next(steps)
    with LiveBytes(_held(training)) as counted:
        for _ in steps:
            pass
    return planned.total / counted.most


def _held(training: Training) -> Iterator[Any]:
    for parameter in training._model.parameters():
        yield parameter.detach()
        yield parameter.grad
    for state in training._optimiser.state.values():
        yield from state.values()
