"""Sets published as Parquet files with the image bytes inside: one entry of data for each set."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from core.errors import ConfigError, DataError
from core.records import Authenticity
from imaging.files import Entry, shown_name
from imaging.layouts.found import FoundFile, Layout
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.records import ZERO_IS_REAL, label_of
from imaging.layouts.tree import Tree, matches
from imaging.tables import Cell

FILES: Final = r".+\.parquet"
BATCH_ROWS: Final = 4096
MOST_GROUP_BYTES: Final = 2**30
"""of the images of one row group: a process may have to hold them all at once, even twice"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shards:
    """Which columns hold what."""

    name: str
    image: str
    label: str
    generator: str
    polarity: Mapping[int, Authenticity]
    licence: str | None


SHARDS: Final = (
    Shards(
        name="community-forensics",
        image="image_data",
        label="label",
        generator="model_name",
        polarity=ZERO_IS_REAL,
        licence="CC-BY-4.0, images under the terms of their sources",
    ),
    Shards(
        name="openfake",
        image="image",
        label="label",
        generator="model",
        polarity={},
        licence="CC-BY-SA-4.0",
    ),
)


def recognise_shards(shards: Shards, tree: Tree) -> str | None:
    """Name the first file, and the columns that it has."""
    first = next(iter(matches(tree, FILES)), None)
    entry = tree.find(first) if first else None
    if entry is None or entry.refusal is not None or not isinstance(entry.path, str):
        return None
    columns = [shards.image, shards.label, shards.generator]
    if not set(columns) <= set(_columns_of(entry.path)):
        return None
    return f"{shown_name(entry.name)} has the columns {', '.join(columns)}"


def _columns_of(path: str) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        names: list[str] = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError):
        return []
    return names


def read_shards(shards: Shards, tree: Tree) -> Iterator[FoundFile]:
    """One file for each row, named by its Parquet file and number; image bytes stay unread.

    A Parquet file that cannot be read, and a row group that is too large, are refused as a whole;
    other files are left alone.
    """
    names = matches(tree, FILES)
    if not names:
        raise ConfigError(f"{tree.place}: there is no Parquet file in it")
    for name in sorted(names):
        yield from _read_file(shards, tree.find(name))


def _read_file(shards: Shards, entry: Entry) -> Iterator[FoundFile]:
    import pyarrow

    refusal = entry.refusal
    try:
        if refusal is None and isinstance(entry.path, str):
            yield from _read_rows(shards, entry, entry.path)
            return
    except (pyarrow.ArrowException, OSError) as error:
        refusal = f"not a whole Parquet file of {shards.name}: {error}"
    reason = refusal or "a Parquet file inside an archive is not read: take it out"
    yield FoundFile(name=shown_name(entry.name), content=b"", refusal=shown_name(reason))


def _read_rows(shards: Shards, entry: Entry, path: str) -> Iterator[FoundFile]:
    import pyarrow.parquet

    first = 0
    with pyarrow.parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            described = file.metadata.row_group(group)
            if reason := _group_refusal(described, shards):
                name = f"{shown_name(entry.name)}, row group {group}"
                yield FoundFile(name=name, content=b"", refusal=reason)
            else:
                for row, fields in enumerate(_fields_of(file, group, shards)):
                    cell = Cell(path, group, row, shards.image)
                    yield _label(shards, entry, first + row, cell, fields)
            first += described.num_rows


def _group_refusal(described: Any, shards: Shards) -> str | None:
    columns = [described.column(number) for number in range(described.num_columns)]
    images = [c for c in columns if c.path_in_schema.split(".")[0] == shards.image]
    size = sum(column.total_uncompressed_size for column in images)
    if size <= MOST_GROUP_BYTES:
        return None
    return f"{size} bytes, the most is {MOST_GROUP_BYTES}; write it again in smaller row groups"


def _fields_of(file: Any, group: int, shards: Shards) -> Iterable[Mapping[str, Any]]:
    columns = [shards.label, shards.generator]
    batches = file.iter_batches(batch_size=BATCH_ROWS, row_groups=[group], columns=columns)
    return (fields for batch in batches for fields in batch.to_pylist())


def _label(
    shards: Shards, entry: Entry, number: int, cell: Cell, fields: Mapping[str, Any]
) -> FoundFile:
    label, refusal = None, None
    try:
        label = label_of(fields.get(shards.label), shards.polarity)
    except DataError as error:
        refusal = str(error)
    maker = shown_name(str(fields.get(shards.generator) or UNKNOWN_GENERATOR))
    return FoundFile(
        name=f"{shown_name(entry.name)}/{number:07}",
        content=cell,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        label=label,
        generator=maker if label is Authenticity.FAKE else None,
        refusal=refusal,
    )


LAYOUTS: Final = tuple(
    Layout(
        name=shards.name,
        recognise=partial(recognise_shards, shards),
        read=partial(read_shards, shards),
        licence=shards.licence,
    )
    for shards in SHARDS
)
