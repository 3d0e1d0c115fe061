"""How tests ask what a collection was recognised as."""

from __future__ import annotations

from pathlib import Path

from imaging.layouts import open_collection


def recognised(path: Path) -> tuple[str, str]:
    """The name of the layout, and why it is that one."""
    collection = open_collection(path)
    return collection.layout, collection.reason
