"""Images that lie in the cells of a Parquet file, read one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from core.errors import DataError

BATCH_ROWS: Final = 16
"""so many cells are taken out at once"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: bytes, or a struct with a field `bytes` as the `datasets` library writes it."""

    file: str
    row_group: int
    row: int
    """in its row group"""
    column: str

    def read(self, max_bytes: int) -> bytes:
        """The bytes; DataError when there are none, or more than `max_bytes`."""
        import pyarrow

        try:
            value = _open_column(self.file, self.row_group, self.column).value(self.row)
        except (pyarrow.ArrowException, OSError, IndexError) as error:
            raise DataError(f"cannot be read from its Parquet file: {error}") from None
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise DataError("its Parquet file holds no bytes of it")
        if len(data) > max_bytes:
            raise DataError(f"too large: {len(data)} bytes, the most is {max_bytes}")
        return data


class _Column:
    """One column of one row group, read forwards; a step back begins again.

    Holds at worst one row group: pages as large as that are written too.
    """

    def __init__(self, file: str, row_group: int, column: str) -> None:
        import pyarrow.parquet

        self._file = pyarrow.parquet.ParquetFile(file, memory_map=True)
        self._place = {"row_groups": [row_group], "columns": [column]}
        self._rewind()

    def _rewind(self) -> None:
        self._batches = self._file.iter_batches(batch_size=BATCH_ROWS, **self._place)
        self._start, self._end = 0, 0
        self._batch: Any = None

    def value(self, row: int) -> Any:
        if row < self._start:
            self._rewind()
        while row >= self._end:
            self._batch = next(self._batches, None)
            if self._batch is None:
                raise IndexError("it has fewer rows than it had")
            self._start, self._end = self._end, self._end + self._batch.num_rows
        return self._batch.column(0)[row - self._start].as_py()


@lru_cache(maxsize=1)
def _open_column(file: str, row_group: int, column: str) -> _Column:
    """Kept open for the next cell: a process reads a file row by row."""
    return _Column(file, row_group, column)
