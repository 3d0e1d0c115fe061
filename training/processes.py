"""One process, or several that `torchrun` started: who this one is, and what they tell each other.

Several share a model by FSDP2: each holds a part of every weight and optimiser state, and learns
from its share of the images of a step.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.distributed.fsdp import FSDPModule, fully_shard

from core.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run."""

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one writes and reports."""
        return self.rank == 0

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Those of some items that are for this process."""
        return items[self.rank :: self.count]

    def even_share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Like `share`, and as many for each process: the last ones may be there twice.

        Processes that share a model have to call it equally often.
        """
        last = list(items[-1:])
        return self.share([*items, *last * (-len(items) % self.count)])

    def gather(self, value: Item) -> list[Item]:
        """The values of all processes, in the order of their ranks."""
        values: list[Any] = [value] * self.count
        if self.count > 1:
            distributed.all_gather_object(values, value)
        return values

    def sum(self, value: Tensor) -> Tensor:
        """A number added over all processes; nothing is learnt through it."""
        whole = value.detach().clone()
        if self.count > 1:
            distributed.all_reduce(whole)
        return whole

    def agree(self, value: Item) -> Item:
        """What the first process says."""
        return self.gather(value)[0]


def count_here() -> int:
    """How many processes of the run this machine has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def interleave(shares: Sequence[Sequence[Item]], count: int) -> list[Item]:
    """What processes made of their even shares of `count` items, in the order of the items."""
    return [item for together in zip(*shares, strict=True) for item in together][:count]


def join_processes(device: torch.device) -> Processes:
    """Meet the other processes where `torchrun` started several.

    ConfigError when there are more of them here than CUDA devices.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Processes()
    if device.type == "cuda":
        place, here = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if place >= here:
            raise ConfigError(f"torchrun: more processes than the {here} CUDA devices here")
        torch.cuda.set_device(place)
    if not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    return Processes(distributed.get_rank(), count)


def spread(model: Any) -> None:
    """Divide the weights of a model among the processes (FSDP2), one decoder layer at a time.

    ConfigError for weights in 4 bits, which cannot be divided so.
    """
    if getattr(model, "is_quantized", False):
        raise ConfigError("lora.quantised: 4-bit weights train in one process; start it alone")
    for layer in model.model.language_model.layers:
        fully_shard(layer)
    fully_shard(model)


def make_whole(model: Any) -> None:
    """Have each process hold all weights outside the decoder layers, until the next step is learnt.

    Every process has to ask. A model that is not divided stays as it is.
    """
    if isinstance(model, FSDPModule):
        model.unshard()


def divide_again(model: Any) -> None:
    """Undo `make_whole`."""
    if isinstance(model, FSDPModule):
        model.reshard()
