"""What a shard set holds, as a person would read it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from instruct_builder.manifest import caveats
from instruct_builder.shards import ShardSet

WIDTH = 96
_SHOWN = ("family", "label", "split", "generator", "review_level", "source")


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
    return "\n".join(lines)


def readable_samples(shards: ShardSet) -> str:
    """One instruction of each family."""
    return "\n\n".join(_read_aloud(row) for row in _samples(shards))


def _samples(shards: ShardSet) -> Iterator[Mapping[str, Any]]:
    """From the first row group, of each family the row with the answer of middling length."""
    first = next(shards.rows(), None)
    rows = [] if first is None else first.to_pylist()
    for family in shards.manifest.families():
        own = [row for row in rows if row["family"] == family]
        own.sort(key=lambda row: (len(row["messages"][-1]["content"]), row["instruction_id"]))
        yield from own[len(own) // 2 :][:1]


def _read_aloud(row: Mapping[str, Any]) -> str:
    made = f"generator {row['generator']}" if row["generator"] else "photograph"
    head = f"{row['family'].replace('_', ' ')} · {row['form']} · known to be {row['label']}, {made}"
    speakers = {"user": "Q", "assistant": "A"}
    turns = [_indent(speakers[turn["role"]], turn["content"]) for turn in row["messages"]]
    return "\n".join([head, *turns])


def _indent(speaker: str, text: str) -> str:
    """Wrapped, with the speaker before the first line."""
    lines = [
        piece
        for line in text.splitlines()
        for piece in textwrap.wrap(line, WIDTH - 5, break_on_hyphens=False) or [""]
    ]
    marks = [f"  {speaker}: ", *["     "] * (len(lines) - 1)]
    return "\n".join(f"{mark}{line}".rstrip() for mark, line in zip(marks, lines, strict=True))
