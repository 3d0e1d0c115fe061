"""`datasets.Dataset.map` in batches from chains to rows, then `to_parquet`."""

from pathlib import Path
from typing import Any

import datasets

from benchmarks.contenders.measured import measure
from benchmarks.contenders.plain_rows import read_chains, rows_of


def prepare(folder: Path) -> Any:
    """The chains as a data set of their own."""
    return datasets.Dataset.from_list(read_chains(folder))


def build(chains: Any, rows: int, out: Path) -> int:
    """Write `out/rows.parquet`."""
    each = rows // chains.num_rows

    def expand(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        names = list(batch)
        listed = [
            dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True)
        ]
        made = [row for chain in listed for row in rows_of(chain, each)]
        return {name: [row[name] for row in made] for name in made[0]}

    cache = str(out / "rows.arrow")
    made = chains.map(
        expand, batched=True, remove_columns=chains.column_names, cache_file_name=cache
    )
    made.to_parquet(str(out / "rows.parquet"))
    return int(made.num_rows)


datasets.disable_progress_bars()
measure(prepare, build)
