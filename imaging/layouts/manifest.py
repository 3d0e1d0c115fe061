"""A folder or archive with a table of its files: `manifest.csv`, `.jsonl` or `.parquet`.

The columns path and label are needed; generator, group, license (or licence) and topic (or content)
are read where they are, others are left alone. Paths are relative to the table's folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from core.errors import ConfigError
from core.records import Authenticity
from imaging.files import shown_name
from imaging.layouts.found import FoundFile, Layout, found_from
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.rows import Row, read_rows
from imaging.layouts.tree import Tree, find_inside, matches, say_held

TABLE: Final = r"manifest\.(?:csv|jsonl|parquet)"
NEEDED: Final = ("path", "label")
UNLABELLED: Final = ""


def recognise_manifest(tree: Tree) -> str | None:
    """Say which table it is."""
    return say_held(_tables(tree)[:1])


def read_manifest(tree: Tree) -> Iterator[FoundFile]:
    """The files that the table lists, in its order; those that it does not list are not read.

    A row that cannot be used is refused with a reason; a table that cannot be read is a
    ConfigError. An empty label means unlabelled.
    """
    table = next(iter(_tables(tree)), None)
    if table is None:
        raise ConfigError(f"{tree.place}: there is no manifest.csv, .jsonl or .parquet in it")
    seen: dict[str, int] = {}
    for line, row in read_rows(tree, table, needed=NEEDED):
        reason = "an empty row"
        if is_used := any(_text(row, name) for name in row):
            found = _find(tree, row)
            is_used = found.name not in seen
            reason = f"lists {found.name} again, as line {seen.get(found.name)} does"
        if not is_used:
            found = FoundFile(name=f"{table}, line {line}", content=b"", refusal=reason)
        seen.setdefault(found.name, line)
        yield found


def _tables(tree: Tree) -> list[str]:
    return sorted(matches(tree, TABLE))


def _find(tree: Tree, row: Row) -> FoundFile:
    label, refusal = _read_label(row)
    return replace(
        found_from(
            find_inside(tree, str(row.get("path") or "")),
            label=label,
            generator=shown_name(_text(row, "generator")) or UNKNOWN_GENERATOR,
            group=shown_name(_text(row, "group")) or None,
            refusal=refusal,
        ),
        licence=shown_name(_text(row, "license") or _text(row, "licence")) or None,
        topic=shown_name(_text(row, "topic") or _text(row, "content")) or None,
    )


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    return "" if value is None else str(value).strip()


def _read_label(row: Row) -> tuple[Authenticity | None, str | None]:
    """The label, and why the row cannot be used."""
    text = _text(row, "label").lower()
    if text == UNLABELLED:
        return None, None
    for label in Authenticity:
        if text == label.value:
            return label, None
    return None, f"label {shown_name(text)!r} is neither real nor fake"


LAYOUT: Final = Layout(name="manifest", recognise=recognise_manifest, read=read_manifest)
