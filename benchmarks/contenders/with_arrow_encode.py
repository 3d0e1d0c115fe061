"""Nothing but writing our finished rows again: what any builder of these files has to do."""

from pathlib import Path

import pyarrow as pa

from benchmarks.contenders.measured import measure
from instruct_builder.shards import ShardSet, write_parquet

Shards = list[tuple[pa.Table, list[int]]]


def prepare(folder: Path) -> Shards:
    """The row groups of each shard of the finished set."""
    shards = ShardSet.open(folder / "finished")
    groups: dict[str, list[pa.Table]] = {}
    for group in shards.row_groups():
        groups.setdefault(group.path, []).append(shards.read_row_group(group))
    return [
        (pa.concat_tables(each).combine_chunks(), list(map(len, each))) for each in groups.values()
    ]


def build(shards: Shards, rows: int, out: Path) -> int:
    """Write each shard."""
    for number, (table, lengths) in enumerate(shards):
        write_parquet(table, out / f"{number}.parquet", lengths)
    return sum(len(table) for table, _ in shards)


measure(prepare, build)
