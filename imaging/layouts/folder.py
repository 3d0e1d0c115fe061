"""A folder with `real/` and `fake/<generator>/` in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from core.records import Authenticity
from imaging.files import Entry, shown_name
from imaging.layouts.found import FoundFile, Layout, found_from
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.tree import Tree, matches

ELSEWHERE: Final = "neither under real/ nor under fake/"


def recognise_folder(tree: Tree) -> str | None:
    """Name the label folders that are there, in any case of letters."""
    names = sorted(matches(tree, "real|fake"))
    return f"it holds {' and '.join(f'{name}/' for name in names)}" if names else None


def read_folder(tree: Tree) -> Iterator[FoundFile]:
    """Files under `real/` as photographs, under `fake/<generator>/` as that generator's.

    Files right in `fake/` are of an unknown generator; files elsewhere are refused.
    """
    return (_label_entry(entry) for entry in tree.entries())


def _label_entry(entry: Entry) -> FoundFile:
    first, *rest = entry.name.split("/")
    label = _label_of(first) if rest else None
    if label is None:
        return found_from(entry, refusal=ELSEWHERE)
    generator = shown_name(rest[0]) if len(rest) > 1 else UNKNOWN_GENERATOR
    return found_from(entry, label=label, generator=generator)


def _label_of(folder: str) -> Authenticity | None:
    return next((label for label in Authenticity if label.value == folder.lower()), None)


LAYOUT: Final = Layout(name="folder", recognise=recognise_folder, read=read_folder)
