"""What changed between two shard sets, row by row, and why.

Both sets are dealt out to files on the disk by a hash of the image, so that what must be compared
lies together: memory holds one part of each set at a time, however large the sets are.
"""

from __future__ import annotations

import math
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core.errors import ConfigError
from core.printable import printable
from instruct_builder.manifest import Manifest
from instruct_builder.pairing import COLUMNS, EXAMPLES, Fate, Finding, Pair, Part
from instruct_builder.shards import ROW_SCHEMA, ShardSet

ROWS_AT_ONCE = 100_000
"""of each set"""
SCHEMA = pa.schema([ROW_SCHEMA.field(name) for name in COLUMNS])
MADE_FROM = (
    "recipe", "builder_digest", "seed", "chains_digest", "arms", "min_review", "rewordings",
    "general", "licence",
)  # fmt: skip
"""of the manifests: what decides the rows, and under which terms they stand"""


@dataclass(slots=True, kw_only=True)
class Difference:
    """The rows of two sets; unchanged and changed ones are in both, and everything adds up."""

    old_rows: int
    new_rows: int
    facts: dict[str, tuple[str, str]]
    """what the manifests say differently, old and new"""
    counts: dict[Fate, dict[str, int]] = field(default_factory=lambda: {fate: {} for fate in Fate})
    """rows by fate and reason"""
    examples: dict[Fate, dict[str, list[Pair]]] = field(
        default_factory=lambda: {fate: {} for fate in Fate}
    )
    """instruction ids in the old and the new set, a few of each reason"""

    def add(self, finding: Finding) -> None:
        counts = self.counts[finding.fate]
        counts[finding.reason] = counts.get(finding.reason, 0) + finding.rows
        if finding.fate is not Fate.UNCHANGED:
            kept = self.examples[finding.fate].setdefault(finding.reason, [])
            kept += finding.examples[: EXAMPLES - len(kept)]

    def rows(self, fate: Fate) -> int:
        return sum(self.counts[fate].values())


def compare(old: Path, new: Path) -> Difference:
    """Compare two shard sets; a ConfigError names the one that cannot be read."""
    sets = ShardSet.open(old), ShardSet.open(new)
    before, after = (shards.manifest for shards in sets)
    found = Difference(
        old_rows=before.rows, new_rows=after.rows, facts=_compare_facts(before, after)
    )
    parts = max(1, math.ceil(max(before.rows, after.rows) / ROWS_AT_ONCE))
    try:
        with tempfile.TemporaryDirectory(prefix="fakescope-diff-") as name:
            folders = Path(name) / "old", Path(name) / "new"
            for shards, folder in zip(sets, folders, strict=True):
                _deal_out(shards, folder, parts)
            for part in range(parts):
                old_rows, new_rows = (_read(_file_of(folder, part)) for folder in folders)
                for finding in Part(old_rows, new_rows, withdrawn=after.tombstones).findings():
                    found.add(finding)
    except OSError as error:
        raise ConfigError(
            f"the sets cannot be dealt out in {tempfile.gettempdir()} ({error.strerror}); make "
            "room there, or name another folder in TMPDIR"
        ) from None
    return found


def _compare_facts(old: Manifest, new: Manifest) -> dict[str, tuple[str, str]]:
    pairs = {name: (getattr(old, name), getattr(new, name)) for name in MADE_FROM}
    return {name: (str(a), str(b)) for name, (a, b) in pairs.items() if a != b}


def _deal_out(shards: ShardSet, folder: Path, parts: int) -> None:
    """Write what is compared to one file per part; rows of one image go to the same."""
    folder.mkdir()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with ExitStack() as stack:
        writers = [
            stack.enter_context(
                pa.ipc.new_file(str(_file_of(folder, part)), SCHEMA, options=options)
            )
            for part in range(parts)
        ]
        for rows in shards.rows(columns=COLUMNS):
            owners = _owners(rows, parts)
            ordered = rows.take(pa.array(np.argsort(owners, kind="stable"))).cast(SCHEMA)
            start = 0
            for writer, length in zip(writers, np.bincount(owners, minlength=parts), strict=True):
                writer.write_table(ordered.slice(start, length))
                start += length


def _file_of(folder: Path, part: int) -> Path:
    return folder / f"{part:05d}.arrow"


def _owners(rows: pa.Table, parts: int) -> NDArray[np.int64]:
    """For each row the part of its image; a row without an image goes by its own id."""
    names = pa.compute.coalesce(rows["image_id"], rows["instruction_id"])
    coded = names.combine_chunks().dictionary_encode()
    numbers = [zlib.crc32(name.encode()) % parts for name in coded.dictionary.to_pylist()]
    owners: NDArray[np.int64] = np.array(numbers, dtype=np.int64)[coded.indices.to_numpy()]
    return owners


def _read(path: Path) -> pa.Table:
    with pa.OSFile(str(path)) as file:
        return pa.ipc.open_file(file).read_all()


def as_text(found: Difference) -> Iterator[str]:
    """Counts by fate and reason with a few rows of each; line by line."""
    yield f"{found.old_rows:,} rows in the old set, {found.new_rows:,} in the new one"
    for name, (old, new) in found.facts.items():
        yield printable(f"{name.replace('_', ' ')}: {old} -> {new}")
    yield f"unchanged: {found.rows(Fate.UNCHANGED):,}"
    for fate in (Fate.CHANGED, Fate.REMOVED, Fate.ADDED):
        yield f"{fate}: {found.rows(fate):,}"
        for reason, rows in sorted(found.counts[fate].items(), key=lambda item: -item[1]):
            shown = (_pair_in_words(pair) for pair in found.examples[fate][reason])
            yield printable(f"  {reason}: {rows:,} ({', '.join(shown)}{', …' * (rows > EXAMPLES)})")


def _pair_in_words(pair: Pair) -> str:
    old, new = pair
    return " -> ".join(filter(None, (old, new))) if old != new else str(old)
