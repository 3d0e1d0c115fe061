"""The turns of rows in ROW_SCHEMA as columns: what checks of words read. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Numbers = npt.NDArray[np.int64]


def turns_of(table: pa.Table) -> tuple[Numbers, pa.Array]:
    """Where the turns of each row begin, and the end (rows + 1); and what each turn says."""
    messages = whole(table.column("messages"))
    starts = messages.offsets.to_numpy().astype(np.int64)
    return starts - starts[0], pc.struct_field(messages.flatten(), "content")


def last_answers(table: pa.Table) -> pa.Array:
    """What the last turn of each row says."""
    starts, contents = turns_of(table)
    return contents.take(pa.array(starts[1:] - 1))


def conversations(table: pa.Table) -> pa.Array:
    """All turns of each row as one text."""
    starts, contents = turns_of(table)
    return pc.binary_join(
        pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), contents), "\n"
    )


def codes_of(column: Any) -> Numbers:
    """Numbers from 0, the same for equal values."""
    codes: Numbers = whole(column).dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def whole(column: Any) -> pa.Array:
    """A column in one piece."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
