"""SynthWildX: a list of url, filename and typ (`real` or a generator), the images beside it.

The list is published, the images are not: whoever uses it fetches them, and some are gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from core.errors import ConfigError
from core.records import Authenticity
from imaging.files import shown_name
from imaging.layouts.found import FoundFile, Layout, found_from
from imaging.layouts.rows import Row, read_rows
from imaging.layouts.tree import Tree, find_inside, matches, say_held

LISTS: Final = r"(?:[^/]+/)?[^/]*\.csv"
COLUMNS: Final = ("url", "filename", "typ")


def recognise_synthwildx(tree: Tree) -> str | None:
    """Say which list it is."""
    reason = say_held(_lists(tree))
    return reason and f"{reason} with the columns {', '.join(COLUMNS)}"


def read_synthwildx(tree: Tree) -> Iterator[FoundFile]:
    """The listed images; one that was not fetched is refused like any missing file."""
    lists = _lists(tree)
    if not lists:
        raise ConfigError(f"{tree.place}: no list with the columns {', '.join(COLUMNS)} in it")
    root = str(PurePosixPath(lists[0]).parent)
    seen: set[str] = set()
    for line, row in read_rows(tree, lists[0], needed=COLUMNS):
        found = _find(tree, root, row, f"{lists[0]}, line {line}")
        if found.name not in seen:
            yield found
        seen.add(found.name)


def _find(tree: Tree, root: str, row: Row, place: str) -> FoundFile:
    name, kind = str(row.get("filename") or "").strip(), str(row.get("typ") or "").strip()
    if not name or not kind:
        return FoundFile(name=shown_name(place), content=b"", refusal="no filename or no typ")
    is_real = kind.lower() == Authenticity.REAL.value
    return found_from(
        find_inside(tree, f"{root}/{name}"),
        label=Authenticity.REAL if is_real else Authenticity.FAKE,
        generator=shown_name(kind),
    )


def _lists(tree: Tree) -> list[str]:
    return [name for name in matches(tree, LISTS) if _has_columns(tree, name)]


def _has_columns(tree: Tree, name: str) -> bool:
    try:
        _, first = next(read_rows(tree, name), (0, {}))
    except ConfigError:
        return False
    return set(COLUMNS) <= set(first)


LAYOUT: Final = Layout(
    name="synthwildx",
    recognise=recognise_synthwildx,
    read=read_synthwildx,
    licence="the images belong to those who posted them",
)
