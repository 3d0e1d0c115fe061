"""datatrove: a pipeline from a generator of documents to its Parquet writer."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from datatrove.data import Document
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.writers.parquet import ParquetWriter

from benchmarks.contenders.measured import measure
from benchmarks.contenders.plain_rows import Chain, read_chains, rows_of


def schema_of(example: pa.Table) -> pa.Schema:
    """Of all rows: a batch may hold no value of a column."""
    return pa.schema(
        [
            pa.field(f.name, pa.string() if pa.types.is_null(f.type) else f.type)
            for f in example.schema
        ]
    )


def build(chains: list[Chain], rows: int, out: Path) -> int:
    """Write Parquet files below `out`."""
    each = rows // len(chains)

    def documents(data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for chain in chains:
            for row in rows_of(chain, each):
                text = "\n".join(turn["content"] for turn in row["messages"])
                yield Document(text=text, id=row["instruction_id"], metadata=row)

    example = pa.Table.from_pylist(list(rows_of(chains[0], each)) + list(rows_of(chains[1], each)))
    writer = ParquetWriter(
        str(out),
        compression="zstd",
        adapter=lambda _, document: document.metadata,
        schema=schema_of(example),
    )
    LocalPipelineExecutor([documents, writer], logging_dir=str(out / "logs")).run()
    return each * len(chains)


measure(read_chains, build)
