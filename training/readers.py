"""Processes that make the steps of a run ready; what a step holds does not depend on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from core.errors import FakeScopeError

if TYPE_CHECKING:
    from training.loop import Step

AHEAD = 2
"""steps that each process makes ready before they are asked for"""

ReadSteps = Callable[[int, int], "Iterator[Step]"]
"""every n-th of the steps, from the k-th of those that are left on"""


class _Share(IterableDataset["Step | FakeScopeError"]):
    """The steps that one process makes ready; the last item says what went wrong, if anything."""

    def __init__(self, read: ReadSteps) -> None:
        self._read = read

    def __iter__(self) -> Iterator[Step | FakeScopeError]:
        own = get_worker_info()
        part = (own.id, own.num_workers) if own else (0, 1)
        try:
            yield from self._read(*part)
        except FakeScopeError as error:
            yield error


def read_in_processes(read: ReadSteps, workers: int) -> Iterator[Step]:
    """The steps in their order, made ready by several processes.

    What a process cannot do is raised here, at the step that it belongs to.
    """
    loader = DataLoader(
        _Share(read),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD,
        collate_fn=_as_it_is,
        multiprocessing_context="fork",
        generator=torch.Generator(),  # that of the run must not notice
    )
    for step in loader:
        if isinstance(step, FakeScopeError):
            raise step
        yield step


def _as_it_is(step: Any) -> Any:
    return step
