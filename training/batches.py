"""Items in lists of a given length, the last one shorter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

BATCH: Final = 16
"""images that go through a model together"""

Item = TypeVar("Item")


def in_batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of `size` items, in their order."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
