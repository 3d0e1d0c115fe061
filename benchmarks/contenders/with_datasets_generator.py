"""`datasets.Dataset.from_generator`, then `to_parquet`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets

from benchmarks.contenders.measured import measure
from benchmarks.contenders.plain_rows import Chain, read_chains, rows_of


def build(chains: list[Chain], rows: int, out: Path) -> int:
    """Write `out/rows.parquet`."""

    def generate() -> Iterator[dict[str, Any]]:
        for chain in chains:
            yield from rows_of(chain, rows // len(chains))

    made: Any = datasets.Dataset.from_generator(generate, cache_dir=str(out / "cache"))
    made.to_parquet(str(out / "rows.parquet"))
    return int(made.num_rows)


datasets.disable_progress_bars()
measure(read_chains, build)
