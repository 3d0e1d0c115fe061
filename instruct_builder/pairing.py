"""Which rows of two sets are the same row, which changed, and which have no counterpart. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

EXAMPLES: Final = 3
"""of each reason"""
COMPARED: Final = (
    "image_path", "image_sha256", "family", "form", "template_id", "aspect", "target", "label",
    "generator", "source", "split", "review_level",
)  # fmt: skip
"""what may differ between rows of one id; the id is a hash of the conversation itself"""
COLUMNS: Final = ("instruction_id", "chain_id", "image_id", *COMPARED)
PAIRINGS: Final = (
    ("wording changed", ("image_id", "chain_id", "template_id", "aspect")),
    ("pattern changed", ("image_id", "chain_id", "form", "aspect")),
    ("chain changed", ("image_id", "form", "aspect")),
)
"""by what rows of different ids are one row that changed, the closest first"""
NULL: Final = -1

Numbers = NDArray[np.int64]
Pair = tuple[str | None, str | None]


class Fate(StrEnum):
    """What became of a row between an old set and a new one."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    REMOVED = "removed"
    ADDED = "added"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Rows that have had one fate for one reason."""

    fate: Fate
    reason: str
    rows: int
    examples: list[Pair]
    """instruction ids in the old and in the new set, of the first few"""


class Part:
    """Rows of an old and of a new set, all about the same images."""

    def __init__(self, old: pa.Table, new: pa.Table, *, withdrawn: Collection[str]) -> None:
        """Tables of COLUMNS; `withdrawn` are the tombstones of the new set."""
        both = pa.concat_tables([old, new])
        self._ids = both["instruction_id"]
        self._codes = {name: _encode(both[name]) for name in COLUMNS}
        self._old = np.arange(old.num_rows)
        self._new = np.arange(old.num_rows, both.num_rows)
        stones = pa.array(sorted(withdrawn), type=pa.string())
        is_withdrawn = pc.is_in(both["image_id"], value_set=stones)
        self._withdrawn = is_withdrawn.to_numpy(zero_copy_only=False)

    def findings(self) -> Iterator[Finding]:
        """Every row of either set once; a pair of rows counts as one."""
        (before, after), old, new = self._pair(("instruction_id",), self._old, self._new)
        yield from self._compare(before, after)
        for reason, key in PAIRINGS:
            (before, after), old, new = self._pair(key, old, new)
            yield from self._found(Fate.CHANGED, reason, before, after)
        yield from self._explain_removed(old)
        yield from self._explain_added(new)

    def _pair(
        self, key: Sequence[str], old: Numbers, new: Numbers
    ) -> tuple[tuple[Numbers, Numbers], Numbers, Numbers]:
        """Rows that agree in the key, the first with the first; then what is left on both sides."""
        codes = _combine([self._codes[name] for name in key])
        ours, theirs = _count_up(codes[old]), _count_up(codes[new])
        width = 1 + max(ours.max(initial=0), theirs.max(initial=0))
        _, first, second = np.intersect1d(
            codes[old] * width + ours,
            codes[new] * width + theirs,
            assume_unique=True,
            return_indices=True,
        )
        return (old[first], new[second]), np.delete(old, first), np.delete(new, second)

    def _compare(self, old: Numbers, new: Numbers) -> Iterator[Finding]:
        """Rows of one id, column by column."""
        differs = np.zeros(len(old), dtype=np.int64)
        for bit, name in enumerate(COMPARED):
            differs |= (self._codes[name][old] != self._codes[name][new]).astype(np.int64) << bit
        for bits in np.unique(differs):
            chosen = differs == bits
            names = [name.replace("_", " ") for bit, name in enumerate(COMPARED) if bits >> bit & 1]
            fate = Fate.CHANGED if names else Fate.UNCHANGED
            reason = f"{', '.join(names)} changed" if names else ""
            yield from self._found(fate, reason, old[chosen], new[chosen])

    def _explain_removed(self, old: Numbers) -> Iterator[Finding]:
        nobody = np.empty(0, dtype=np.int64)
        for reason, places in self._sort_out(old, self._new, "not asked any more"):
            is_absent = reason == "absent"
            withdrawn = self._withdrawn[places] & is_absent
            yield from self._found(Fate.REMOVED, "image withdrawn", places[withdrawn], nobody)
            why = "image left out" if is_absent else reason
            yield from self._found(Fate.REMOVED, why, places[~withdrawn], nobody)

    def _explain_added(self, new: Numbers) -> Iterator[Finding]:
        nobody = np.empty(0, dtype=np.int64)
        for reason, places in self._sort_out(new, self._old, "asked anew"):
            why = "image added" if reason == "absent" else reason
            yield from self._found(Fate.ADDED, why, nobody, places)

    def _sort_out(
        self, places: Numbers, others: Numbers, same_chain: str
    ) -> Iterator[tuple[str, Numbers]]:
        """Rows without a counterpart, by what the other set has of their image."""
        images, chains = self._codes["image_id"], self._codes["chain_id"]
        alone = images[places] == NULL
        present = np.isin(images[places], images[others])
        known = np.isin(chains[places], chains[others])
        yield "row without an image", places[alone]
        yield "absent", places[~alone & ~present]
        yield same_chain, places[~alone & present & known]
        yield "chain changed", places[~alone & present & ~known]

    def _found(self, fate: Fate, reason: str, old: Numbers, new: Numbers) -> Iterator[Finding]:
        if rows := max(len(old), len(new)):
            ours, theirs = self._names(old), self._names(new)
            shown = range(min(rows, EXAMPLES))
            examples = [(ours[n] if ours else None, theirs[n] if theirs else None) for n in shown]
            yield Finding(fate=fate, reason=reason, rows=rows, examples=examples)

    def _names(self, places: Numbers) -> list[str]:
        return list(self._ids.take(pa.array(places[:EXAMPLES])).to_pylist())


def _encode(column: pa.ChunkedArray) -> Numbers:
    """The same number for the same text; NULL for none."""
    indices = column.combine_chunks().dictionary_encode().indices.fill_null(NULL)
    codes: Numbers = indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _combine(columns: Sequence[Numbers]) -> Numbers:
    """One number per row for the values of several columns, from 0."""
    combined = columns[0] - NULL
    for column in columns[1:]:
        keys = combined * (column.max(initial=NULL) + 2) + column - NULL
        combined = np.unique(keys, return_inverse=True)[1].astype(np.int64)
    return combined


def _count_up(keys: Numbers) -> Numbers:
    """For each row how many rows before it have the same key."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] - 1))
    runs = np.diff(np.append(starts, len(keys)))
    counted = np.empty(len(keys), dtype=np.int64)
    counted[order] = np.arange(len(keys)) - np.repeat(starts, runs)
    return counted
