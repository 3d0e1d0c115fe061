"""Any folder or archive of images, or a single image: all with one label, or with none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from core.records import Authenticity
from imaging.layouts.found import FoundFile, found_from
from imaging.layouts.tree import Tree

UNKNOWN_GENERATOR: Final = "unknown"
"""of a fake whose generator nobody named"""


def read_plain(
    tree: Tree, *, label: Authenticity | None = None, generator: str | None = None
) -> Iterator[FoundFile]:
    """Every file of a tree under one label."""
    maker = generator or UNKNOWN_GENERATOR
    return (found_from(entry, label=label, generator=maker) for entry in tree.entries())
