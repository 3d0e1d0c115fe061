"""Rows of the tables that collections come with: CSV, JSON, JSON lines, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, BinaryIO, Final

from core.errors import ConfigError
from imaging.files import explain, shown_name
from imaging.layouts.tree import Tree, open_table

Row = Mapping[str, Any]
Numbered = tuple[int, Row]

BATCH_ROWS: Final = 1024


def read_rows(tree: Tree, name: str, *, needed: Iterable[str] = ()) -> Iterator[Numbered]:
    """Number and fields of each row, by column name in lower case; streamed, numbers from 1.

    A CSV row has the number of its line. What is no row at all comes as an empty one. ConfigError
    for a table that cannot be read or lacks a column.
    """
    suffix = name.lower().rpartition(".")[2]
    place = f"{tree.place}/{shown_name(name)}"
    with open_table(tree, name) as file:
        try:
            yield from READERS[suffix](file, tuple(needed), place)
        except OSError as error:
            raise ConfigError(f"{place}: {explain(error)}") from None


def read_records(tree: Tree, name: str) -> list[Any]:
    """The list that a JSON file is; ConfigError when it is none."""
    place = f"{tree.place}/{shown_name(name)}"
    with open_table(tree, name) as file:
        try:
            records = json.load(file)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{place}: not valid JSON: {error}") from None
    if not isinstance(records, list):
        raise ConfigError(f"{place}: not a JSON list")
    return records


def _read_csv(file: BinaryIO, needed: tuple[str, ...], place: str) -> Iterator[Numbered]:
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        _check_columns(columns, needed, place)
        for fields in reader:
            if fields:
                yield reader.line_num, dict(zip(columns, fields, strict=False))
    except csv.Error as error:
        raise ConfigError(f"{place}, line {reader.line_num}: not valid CSV: {error}") from None


def _read_json_lines(file: BinaryIO, needed: tuple[str, ...], place: str) -> Iterator[Numbered]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{place}, line {number}: not valid JSON: {error}") from None
        row = _lower_keys(fields) if isinstance(fields, dict) else {}
        if row:
            _check_columns(row, needed, f"{place}, line {number}")
        yield number, row


def _read_parquet(file: BinaryIO, needed: tuple[str, ...], place: str) -> Iterator[Numbered]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(file)
        names = table.schema_arrow.names
        _check_columns([name.lower() for name in names], needed, place)
        batches = table.iter_batches(batch_size=BATCH_ROWS)
        rows = (row for batch in batches for row in batch.to_pylist())
        yield from ((number, _lower_keys(row)) for number, row in enumerate(rows, start=1))
    except pyarrow.ArrowException as error:
        raise ConfigError(f"{place}: not valid Parquet: {error}") from None


def _lower_keys(fields: Mapping[str, Any]) -> Row:
    return {name.strip().lower(): value for name, value in fields.items()}


def _check_columns(columns: Iterable[str], needed: tuple[str, ...], place: str) -> None:
    present = set(columns)
    if missing := [name for name in needed if name not in present]:
        raise ConfigError(f"{place}: there is no column {' and no column '.join(missing)}")


READERS: Final[Mapping[str, Callable[[BinaryIO, tuple[str, ...], str], Iterator[Numbered]]]] = (
    MappingProxyType({"csv": _read_csv, "jsonl": _read_json_lines, "parquet": _read_parquet})
)
