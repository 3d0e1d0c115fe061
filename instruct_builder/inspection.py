"""What a shard set holds, as a person would read it; whatever others wrote is shown as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from core.ids import seed_of
from core.printable import printable, printable_lines
from instruct_builder.manifest import caveats
from instruct_builder.shards import ShardSet

WIDTH = 96
_SHOWN = ("family", "label", "split", "generator", "review_level", "source")

Row = Mapping[str, Any]


def readable_counts(shards: ShardSet) -> str:
    """Rows, images and files, and the rows by each property."""
    manifest = shards.manifest
    lines = [
        f"{manifest.rows:,} instructions on {manifest.images:,} images from {manifest.chains:,} "
        f"chains, in {sum(file.split is not None for file in manifest.files)} shards",
        f"recipe {manifest.recipe.name}, seed {manifest.seed}; {manifest.statement}",
        *caveats(manifest),
        "",
    ]
    for name in _SHOWN:
        values = manifest.families() if name == "family" else manifest.counts[name]
        counts = ", ".join(f"{value} {number:,}" for value, number in values.items())
        lines.append(f"{name.replace('_', ' ')}: {counts}")
    lines += [f"left out: {number:,} {why}" for why, number in manifest.left_out.items()]
    return "\n".join(map(printable, lines))


def readable_samples(shards: ShardSet) -> str:
    """One instruction of each family."""
    return "\n\n".join(map(read_aloud, _samples(shards)))


def _samples(shards: ShardSet) -> Iterator[Row]:
    """From the first row group, of each family the row with the answer of middling length."""
    first = next(shards.rows(), None)
    rows = [] if first is None else first.to_pylist()
    for family in shards.manifest.families():
        own = [row for row in rows if row["family"] == family]
        own.sort(key=lambda row: (len(row["messages"][-1]["content"]), row["instruction_id"]))
        yield from own[len(own) // 2 :][:1]


def draw_rows(shards: ShardSet, number: int, *, seed: int) -> list[Row]:
    """At most `number` rows, drawn from all with equal chance, in their order in the set."""
    groups = shards.row_groups()
    ends = np.cumsum([group.rows for group in groups])
    total = int(ends[-1]) if groups else 0
    rng = np.random.default_rng(seed_of("inspect", seed))
    places = np.sort(rng.choice(total, min(number, total), replace=False))
    owners = np.searchsorted(ends, places, side="right")
    rows: list[Row] = []
    for owner in np.unique(owners):
        start = ends[owner] - groups[owner].rows
        table = shards.read_row_group(groups[owner])
        rows += table.take(places[owners == owner] - start).to_pylist()
    return rows


def read_aloud(row: Row) -> str:
    """One instruction with what is known of its image."""
    made = f"generator {row['generator']}" if row["generator"] else "photograph"
    known = (
        f"known to be {row['label']}, {made}" if row["label"] else "about no image of known origin"
    )
    head = f"{row['family'].replace('_', ' ')} · {row['form']} · {known}"
    speakers = {"user": "Q", "assistant": "A"}
    turns = [_indent(speakers.get(t["role"], t["role"]), t["content"]) for t in row["messages"]]
    return "\n".join([printable(head), *turns])


def read_aloud_in_full(row: Row) -> str:
    """The same, with the ids by which it is found again."""
    facts = [row["instruction_id"], row["split"]]
    facts += [f"review level {row['review_level']}"] if row["review_level"] else []
    facts += [f"answer {row['target']}"] if row["target"] else []
    return f"{read_aloud(row)}\n  {printable(' · '.join(facts))}"


def _indent(speaker: str, text: str) -> str:
    """Wrapped, with the speaker before the first line."""
    lines = [
        piece
        for line in printable_lines(text)
        for piece in textwrap.wrap(line, WIDTH - 5, break_on_hyphens=False) or [""]
    ]
    marks = [f"  {printable(speaker)}: ", *["     "] * (len(lines) - 1)]
    return "\n".join(f"{mark}{line}".rstrip() for mark, line in zip(marks, lines, strict=True))
