"""What the metadata of users' files said of the origin of images: a table by label."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from core.printable import printable
from db.engine import Database
from db.provenance import ProvenanceCount, commonest_values, count_provenance
from imaging.provenance import is_free_text

VALUES_SHOWN: Final = 5
WIDTH: Final = 60
NOTHING: Final = "no image has metadata that says where it comes from"


def summarise(database: Database) -> list[ProvenanceCount]:
    """One row for each name, and after it those for its commonest values unless it is free text."""
    rows: list[ProvenanceCount] = []
    with database.read() as session:
        for count in count_provenance(session):
            rows.append(count)
            if not is_free_text(count.name):
                rows.extend(commonest_values(session, count.name, most=VALUES_SHOWN))
    return rows


def table(rows: Sequence[ProvenanceCount]) -> str:
    """The rows as text for a terminal; the values are untrusted and stand on one line each."""
    return "\n".join(_lines(rows)) if rows else NOTHING


def _lines(rows: Sequence[ProvenanceCount]) -> Iterator[str]:
    yield f"{'images that say':{WIDTH}} {'real':>8} {'fake':>8} {'unlabelled':>11}"
    for row in rows:
        title = row.name if row.value is None else f"    {printable(row.value)}"
        yield f"{title[:WIDTH]:{WIDTH}} {row.real:8} {row.fake:8} {row.unlabelled:11}"
