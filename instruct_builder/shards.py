"""The shard format, both directions: what the training side sees of the platform.

A shard set is a folder with `rows-*.parquet`, `images.parquet`, a few documents for people and
`manifest.json`, which is written last and publishes it. Rows of one image are neighbours and never
part; a file holds rows of one split only, in row groups that end where an image ends.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.errors import ConfigError, StateError
from core.records import NO_VALUE, ImageRecord, Instruction, Message, ReviewLevel, Split
from instruct_builder.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    BuildFacts,
    Manifest,
    ShardFile,
    read_manifest,
)

__all__ = [
    "IMAGES",
    "IMAGE_SCHEMA",
    "MANIFEST",
    "ROW_SCHEMA",
    "SCHEMA_VERSION",
    "BuildFacts",
    "Manifest",
    "Placed",
    "RowGroup",
    "ShardSet",
    "ShardWriter",
    "chains_of",
    "count_rows",
    "image_ends",
    "images_table",
    "locked",
    "published",
    "read_manifest",
    "rows_table",
    "sha256_of",
    "verify",
    "write_shards",
]

IMAGES = "images.parquet"
ROW_GROUP_ROWS = 8_192
COUNTED = ("family", "form", "label", "split", "generator", "review_level", "source")

_METADATA = {b"fakescope_schema_version": str(SCHEMA_VERSION).encode()}
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])

ROW_SCHEMA = pa.schema(
    [
        ("instruction_id", pa.string()),
        ("chain_id", pa.string()),
        ("image_id", pa.string()),
        ("image_path", pa.string()),
        ("image_sha256", pa.string()),
        ("family", pa.string()),
        ("form", pa.string()),
        ("template_id", pa.string()),
        ("aspect", pa.string()),
        ("messages", pa.list_(pa.field("element", MESSAGE))),
        ("target", pa.string()),
        ("label", pa.string()),
        ("generator", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
        ("review_level", pa.string()),
    ],
    metadata=_METADATA,
)

IMAGE_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("original_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("format", pa.string()),
        ("jpeg_quality", pa.int32()),
        ("phash", pa.string()),
        ("cluster", pa.string()),
        ("group", pa.string()),
        ("label", pa.string()),
        ("generator", pa.string()),
        ("source", pa.string()),
        ("split", pa.string()),
    ],
    metadata=_METADATA,
)

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is full",
    errno.EROFS: "it is read-only",
    errno.ENOTDIR: "it is not a folder",
    errno.EEXIST: "it is not a folder",
}

ROWS_NAME = re.compile(r"rows-\d{5,}\.parquet")
_OURS = re.compile(
    rf"\.[\w.-]+\.partial|{ROWS_NAME.pattern}|{re.escape(IMAGES)}"
    r"|README\.md|croissant\.json|preview\.html|recipe\.json|topics\.json"
)
_UNIQUE = {"instruction_id", "messages"}
_DICTIONARY = [name for name in ROW_SCHEMA.names if name not in _UNIQUE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Instructions of one chain with the image and the split that they share."""

    image: ImageRecord
    split: Split
    review_level: ReviewLevel
    instructions: Sequence[Instruction]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """One readable piece of a shard set: whole images of one split."""

    path: str
    index: int
    rows: int
    split: Split


def rows_table(placed: Sequence[Placed]) -> pa.Table:
    """Rows of whole images in ROW_SCHEMA, in the given order."""
    lengths = [len(item.instructions) for item in placed]
    flat = [instruction for item in placed for instruction in item.instructions]
    columns = _own_columns(flat) | {
        name: _repeat(values, lengths) for name, values in _shared_columns(placed).items()
    }
    return pa.Table.from_arrays([columns[name] for name in ROW_SCHEMA.names], schema=ROW_SCHEMA)


def _own_columns(flat: Sequence[Instruction]) -> dict[str, pa.Array]:
    names = ("instruction_id", "chain_id", "family", "form", "template_id", "aspect", "target")
    columns = {
        name: pa.array([getattr(row, name) for row in flat], type=pa.string()) for name in names
    }
    return columns | {"messages": _messages(flat)}


def _messages(flat: Sequence[Instruction]) -> pa.Array:
    offsets = np.cumsum([0, *(len(row.messages) for row in flat)], dtype=np.int32)
    turns = [message for row in flat for message in row.messages]
    values = pa.StructArray.from_arrays(
        [
            pa.array([turn.role for turn in turns], type=pa.string()),
            pa.array([turn.content for turn in turns], type=pa.string()),
        ],
        fields=list(MESSAGE),
    )
    kind = ROW_SCHEMA.field("messages").type
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind)


def _shared_columns(placed: Sequence[Placed]) -> dict[str, list[str | None]]:
    return {
        "image_id": [item.image.image_id for item in placed],
        "image_path": [item.image.path for item in placed],
        "image_sha256": [item.image.sha256 for item in placed],
        "label": [item.image.label for item in placed],
        "generator": [item.image.generator for item in placed],
        "source": [item.image.source for item in placed],
        "split": [item.split for item in placed],
        "review_level": [item.review_level for item in placed],
    }


def _repeat(values: list[str | None], lengths: list[int]) -> pa.Array:
    return pa.array(values, type=pa.string()).take(pa.array(np.repeat(range(len(values)), lengths)))


def instructions_of(table: pa.Table) -> list[Instruction]:
    """Rows in ROW_SCHEMA as records, for people to read."""
    names = ("instruction_id", "chain_id", "image_id", "family", "form", "template_id", "aspect")
    return [
        Instruction(
            **{name: row[name] for name in names},
            messages=tuple(Message(**turn) for turn in row["messages"]),
            target=row["target"],
        )
        for row in table.to_pylist()
    ]


def images_table(images: Iterable[tuple[ImageRecord, Split]]) -> pa.Table:
    """Images in IMAGE_SCHEMA, in the given order."""
    names = IMAGE_SCHEMA.names[:-1]
    told = attrgetter(*names)
    rows = [(*told(image), split) for image, split in images]
    columns = zip(*rows, strict=True) if rows else [()] * len(IMAGE_SCHEMA.names)
    return pa.table(dict(zip(IMAGE_SCHEMA.names, columns, strict=True)), schema=IMAGE_SCHEMA)


def count_rows(table: pa.Table, columns: Sequence[str] = COUNTED) -> dict[str, Counter[str]]:
    """Rows by value of each column."""
    return {name: _count(table.column(name)) for name in columns}


def chains_of(table: pa.Table) -> set[str]:
    """The chains of some rows; rows of a general set have none."""
    return {*table.column("chain_id").unique().to_pylist()} - {None}


def _count(column: pa.ChunkedArray) -> Counter[str]:
    values = pc.value_counts(column.combine_chunks())
    return Counter({pair["values"] or NO_VALUE: pair["counts"] for pair in values.to_pylist()})


@dataclass(frozen=True, slots=True, kw_only=True)
class StagedShard:
    """A shard that is whole on the disk, with what the manifest will say of it."""

    path: Path
    rows: int
    bytes: int
    sha256: str
    split: Split
    chains: int
    """each has all its rows in one shard"""
    counts: dict[str, dict[str, int]]

    @classmethod
    def read(cls, path: Path) -> StagedShard:
        """What `write_shard_file` wrote beside a shard."""
        values = json.loads(path.read_bytes())
        shard = path.with_suffix(".parquet")
        return cls(**{**values, "path": shard, "split": Split(values["split"])})


def write_shard_file(table: pa.Table, path: Path, split: Split) -> StagedShard:
    """Write rows of whole images of one split; the file appears whole, then a note beside it.

    Two machines may make the same shard at once: no name that is not whole yet is shared.
    """
    partial = path.with_name(f"{path.name}.{uuid4().hex}.new")
    write_parquet(table, partial, list(_runs(image_ends(table), ROW_GROUP_ROWS)))
    size, digest = partial.stat().st_size, sha256_of(partial)
    partial.replace(path)
    counts = {name: dict(found) for name, found in count_rows(table).items()}
    said = {
        "rows": table.num_rows,
        "bytes": size,
        "sha256": digest,
        "split": split.value,
        "chains": len(chains_of(table)),
        "counts": counts,
    }
    note = path.with_suffix(".json")
    beside = note.with_name(f"{note.name}.{uuid4().hex}.new")
    write_bytes(json.dumps(said).encode(), beside)
    beside.replace(note)
    return StagedShard.read(note)


IMAGE_COUNTED = ("label", "split", "generator", "source")


class ShardWriter:
    """Stages the files of one shard set; until `publish` nothing has its final name.

    Rows come in tables of whole images, all of a split before the next split. An older set in the
    folder stays valid until `publish`. Raises ConfigError when the folder cannot be written.
    """

    def __init__(self, folder: Path, *, rows_per_shard: int) -> None:
        self._folder = folder
        self._rows_per_shard = rows_per_shard
        self._waiting: list[pa.Table] = []
        self._files: list[ShardFile] = []
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
        self._chains = 0
        self._shards = 0
        self._images: list[tuple[ImageRecord, Split]] = []
        self._image_counts: dict[str, Counter[str]] = {}

    def __enter__(self) -> Self:
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            _refuse_foreign(self._folder)
            discard_staged(self._folder)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        discard_staged(self._folder)

    def add_rows(self, table: pa.Table) -> None:
        """Append rows of whole images of one split."""
        if table.num_rows == 0:
            return
        if self._waiting and _split_of(self._waiting[0]) is not _split_of(table):
            while self._waiting:
                self._cut()
        self._waiting.append(table)
        while sum(part.num_rows for part in self._waiting) >= self._rows_per_shard:
            self._cut()

    def add_images(self, images: Iterable[tuple[ImageRecord, Split]]) -> None:
        """Note images for `images.parquet`; it is written with the first document or manifest."""
        self._images += images

    def add_document(self, name: str, data: bytes) -> None:
        """Write a document for people, after all rows; listed in the manifest like the rest."""
        self._flush()
        self._stage(name, lambda path: write_bytes(data, path))
        self._note(name)

    def manifest(self, facts: BuildFacts) -> Manifest:
        """The manifest of what was added so far."""
        self._flush()
        return Manifest(
            **{name: getattr(facts, name) for name in BuildFacts.model_fields},
            schema_version=SCHEMA_VERSION,
            rows=sum(self._counts["family"].values()),
            images=len(self._images),
            chains=self._chains,
            counts=sorted_counts(self._counts),
            image_counts=sorted_counts(self._image_counts),
            files=tuple(self._files),
        )

    def publish(self, facts: BuildFacts) -> Manifest:
        """Give all files their final names; the manifest comes last and makes the set valid."""
        manifest = self.manifest(facts)
        self._stage(MANIFEST, lambda path: write_bytes(manifest_bytes(manifest), path))
        with writing(self._folder):
            put_in_place(self._folder, manifest)
        return manifest

    def _flush(self) -> None:
        """Write what waits: the last rows, then the images."""
        while self._waiting:
            self._cut()
        if all(file.path != IMAGES for file in self._files):
            table = images_table(self._images)
            self._image_counts = count_rows(table, IMAGE_COUNTED)
            self._stage(IMAGES, lambda path: write_parquet(table, path, [table.num_rows]))
            self._note(IMAGES, rows=table.num_rows)

    def _cut(self) -> None:
        """Write the next shard: as many whole images as come nearest to the wanted rows."""
        table = pa.concat_tables(self._waiting).combine_chunks()
        length = next(_runs(image_ends(table), self._rows_per_shard))
        rest = table.slice(length)
        self._waiting = [rest] if rest.num_rows else []
        self._write_shard(table.slice(0, length))

    def _write_shard(self, table: pa.Table) -> None:
        name = self._next_name()
        lengths = list(_runs(image_ends(table), ROW_GROUP_ROWS))
        self._stage(name, lambda path: write_parquet(table, path, lengths))
        self._note(name, rows=table.num_rows, split=_split_of(table))
        self._chains += len(chains_of(table))
        for column, counts in count_rows(table).items():
            self._counts[column] += counts

    def adopt(self, shard: StagedShard) -> None:
        """Take in a shard that was made elsewhere on this file system; shards in their order."""
        name = self._next_name()
        with writing(self._folder):
            shard.path.replace(partial_of(self._folder, name))
        self._files.append(
            ShardFile(
                path=name,
                rows=shard.rows,
                bytes=shard.bytes,
                sha256=shard.sha256,
                split=shard.split,
            )
        )
        self._chains += shard.chains
        for column, counts in shard.counts.items():
            self._counts[column] += Counter(counts)

    def _next_name(self) -> str:
        self._shards += 1
        return f"rows-{self._shards - 1:05d}.parquet"

    def _stage(self, name: str, write: Callable[[Path], None]) -> None:
        with writing(self._folder):
            write(partial_of(self._folder, name))

    def _note(self, name: str, *, rows: int | None = None, split: Split | None = None) -> None:
        path = partial_of(self._folder, name)
        size, digest = path.stat().st_size, sha256_of(path)
        self._files.append(ShardFile(path=name, rows=rows, bytes=size, sha256=digest, split=split))


def write_shards(
    folder: Path,
    tables: Iterable[pa.Table],
    images: Iterable[tuple[ImageRecord, Split]],
    facts: BuildFacts,
    *,
    rows_per_shard: int,
) -> Manifest:
    """Write and publish a whole shard set; `tables` as `ShardWriter.add_rows` takes them."""
    with locked(folder), ShardWriter(folder, rows_per_shard=rows_per_shard) as writer:
        for table in tables:
            writer.add_rows(table)
        writer.add_images(images)
        return writer.publish(facts)


def manifest_bytes(manifest: Manifest) -> bytes:
    """`manifest.json`."""
    values = manifest.model_dump(mode="json")
    return (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()


def put_in_place(folder: Path, manifest: Manifest) -> None:
    """Give staged files their final names, and remove rows that the manifest does not list.

    The old manifest goes first and the new one, staged too, comes last: in between the set has
    none. Doing it again completes what was cut off.
    """
    listed = [file.path for file in manifest.files]
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        if ROWS_NAME.fullmatch(path.name) and path.name not in listed:
            path.unlink()
    for name in (*listed, MANIFEST):
        if (staged := partial_of(folder, name)).exists():
            staged.replace(folder / name)
    sync_folder(folder)


def discard_staged(folder: Path) -> None:
    """Remove what was staged and never put in place."""
    for path in folder.glob(".*.partial"):
        with suppress(OSError):
            path.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder against a second builder; a StateError when one is at work."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StateError(f"{folder}: another build is writing there; wait for it to end") from None


def _refuse_foreign(folder: Path) -> None:
    """A folder that holds something else is not written to: a README.md there may be anybody's."""
    foreign = [path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name)]
    if foreign and not _looks_ours(folder / MANIFEST):
        raise ConfigError(
            f"{folder} is neither empty nor a shard set, it holds {min(foreign)!r}; "
            "name another folder with --out"
        )


def _looks_ours(path: Path) -> bool:
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and {"schema_version", "files"} <= data.keys()


def partial_of(folder: Path, name: str) -> Path:
    return folder / f".{name}.partial"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise ConfigError(
            f"{folder}: the shards cannot be written, {reason}; "
            "make room or grant the right to write there, or name another folder with --out"
        ) from None


def write_bytes(data: bytes, path: Path) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_parquet(table: pa.Table, path: Path, lengths: Sequence[int]) -> None:
    """Row groups of the given lengths; the same table gives the same bytes."""
    dictionary = [name for name in _DICTIONARY if name in table.column_names]
    with path.open("wb") as file:
        with pq.ParquetWriter(
            file,
            table.schema,
            compression="zstd",
            use_dictionary=dictionary,
            write_statistics=True,
            write_page_index=True,
        ) as writer:
            start = 0
            for length in lengths:
                writer.write_table(table.slice(start, length), row_group_size=max(length, 1))
                start += length
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _split_of(table: pa.Table) -> Split:
    return Split(table.column("split")[0].as_py())


def image_ends(table: pa.Table) -> Sequence[int]:
    """Row numbers after which another image begins, and the end of the table."""
    ids = table.column("image_id").combine_chunks()
    changes = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
    return [*(np.flatnonzero(changes) + 1).tolist(), len(ids)]


def _runs(ends: Sequence[int], wanted: int) -> Iterator[int]:
    """Lengths of at least `wanted` rows, but for the last, that end where an image ends."""
    start = 0
    for end in ends:
        if end - start >= wanted or end == ends[-1]:
            yield end - start
            start = end


def sorted_counts(counts: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: dict(sorted(values.items())) for name, values in counts.items()}


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, slots=True)
class ShardSet:
    """A published shard set, read lazily."""

    folder: Path
    manifest: Manifest

    @classmethod
    def open(cls, folder: Path) -> ShardSet:
        """Read the manifest; a ConfigError when there is none or it cannot be understood."""
        return cls(folder, read_manifest(folder))

    def images(self, columns: Sequence[str] | None = None) -> pa.Table:
        """`images.parquet`: one row per image of the set."""
        return _read(self.folder / IMAGES, lambda path: pq.read_table(path, columns=columns))

    def row_groups(self, split: str | None = None) -> list[RowGroup]:
        """The readable pieces of a split, or of all, in their order."""
        groups = []
        for file in self._row_files(split):
            meta = _read(self.folder / file.path, pq.read_metadata)
            groups += [
                RowGroup(path=file.path, index=i, rows=meta.row_group(i).num_rows, split=file.split)
                for i in range(meta.num_row_groups)
                if file.split is not None
            ]
        return groups

    def read_row_group(self, group: RowGroup, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of one piece: whole images, rows of one image are neighbours."""
        return _read(
            self.folder / group.path,
            lambda path: pq.ParquetFile(path).read_row_group(group.index, columns=columns),
        )

    def rows(
        self, *, split: str | None = None, columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Tables of rows, one row group at a time."""
        for group in self.row_groups(split):
            yield self.read_row_group(group, columns)

    def _row_files(self, split: str | None = None) -> list[ShardFile]:
        wanted = None if split is None else Split(split)
        return [
            file
            for file in self.manifest.files
            if file.split is not None and wanted in (None, file.split)
        ]


def _read(path: Path, reader: Callable[[Path], Any]) -> Any:
    try:
        return reader(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ConfigError(
            f"{path}: cannot be read: {' '.join(str(error).split())}; run `verify` on its folder"
        ) from None


def published(folder: Path) -> Manifest | None:
    """The manifest of a set whose files are all there in full length; None for anything else."""
    try:
        manifest = read_manifest(folder)
    except ConfigError:
        return None
    sizes = {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}
    return manifest if all(sizes.get(f.path) == f.bytes for f in manifest.files) else None


def verify(folder: Path) -> list[str]:
    """Recompute every checksum and every count of the manifest; each problem is one line."""
    shards = ShardSet.open(folder)
    problems = _file_problems(shards) + _stray_files(shards)
    if problems:
        return problems
    return _schema_problems(shards) or _count_problems(shards) + _image_problems(shards)


def _file_problems(shards: ShardSet) -> list[str]:
    problems = (_file_problem(shards.folder / file.path, file) for file in shards.manifest.files)
    return [problem for problem in problems if problem]


def _file_problem(path: Path, file: ShardFile) -> str | None:
    if not path.is_file():
        return f"{file.path}: missing"
    if path.stat().st_size != file.bytes:
        return f"{file.path}: {path.stat().st_size} bytes, the manifest says {file.bytes}"
    if sha256_of(path) != file.sha256:
        return f"{file.path}: its SHA-256 is not the one in the manifest"
    return None


def _stray_files(shards: ShardSet) -> list[str]:
    listed = {file.path for file in shards.manifest.files}
    found = sorted(path.name for path in shards.folder.iterdir() if ROWS_NAME.fullmatch(path.name))
    missing = [] if IMAGES in listed else [f"{IMAGES}: not listed in the manifest"]
    return missing + [f"{name}: not listed in the manifest" for name in found if name not in listed]


def _schema_problems(shards: ShardSet) -> list[str]:
    problems = []
    for file in shards.manifest.files:
        wanted = IMAGE_SCHEMA if file.path == IMAGES else ROW_SCHEMA
        if file.rows is None:
            continue
        schema = _read(shards.folder / file.path, pq.read_schema)
        if not schema.equals(wanted, check_metadata=True):
            problems.append(f"{file.path}: not the schema of version {SCHEMA_VERSION}")
    return problems


def _count_problems(shards: ShardSet) -> list[str]:
    """Rows per file and per value of each counted column, read again from the files."""
    seen: dict[str, Counter[str]] = {name: Counter() for name in COUNTED}
    chains: set[str] = set()
    by_file: Counter[str] = Counter()
    problems: list[str] = []
    for group in shards.row_groups():
        table = shards.read_row_group(group, (*COUNTED, "chain_id"))
        by_file[group.path] += table.num_rows
        chains.update(chains_of(table))
        for name, counts in count_rows(table).items():
            seen[name] += counts
        if set(table.column("split").unique().to_pylist()) != {group.split}:
            problems.append(f"{group.path}: rows of another split than {group.split}")
    manifest = shards.manifest
    problems += _differences("rows by", manifest.counts, sorted_counts(seen))
    problems += [
        f"{file.path}: {by_file[file.path]} rows, the manifest says {file.rows}"
        for file in manifest.files
        if file.split is not None and by_file[file.path] != file.rows
    ]
    totals = {"rows": sum(by_file.values()), "chains": len(chains)}
    return problems + _total_problems(manifest, totals)


def _image_problems(shards: ShardSet) -> list[str]:
    """Image counts, and that rows and `images.parquet` speak of the same images alike."""
    table = shards.images()
    counted = sorted_counts(count_rows(table, IMAGE_COUNTED))
    problems = _differences("images by", shards.manifest.image_counts, counted)
    problems += _total_problems(shards.manifest, {"images": table.num_rows})
    pairs = {"image_path": "path", "image_sha256": "sha256"} | {n: n for n in IMAGE_COUNTED}
    known = {row["image_id"]: row for row in table.to_pylist()}
    withdrawn = sorted(known.keys() & set(shards.manifest.tombstones))
    problems += [f"{name}: withdrawn, and still in {IMAGES}" for name in withdrawn]
    seen: set[str] = set()
    for rows in shards.rows(columns=["image_id", *pairs]):
        for row in rows.group_by(["image_id", *pairs]).aggregate([]).to_pylist():
            image = known.get(row["image_id"], {})
            seen.add(row["image_id"])
            problems += [
                f"{row['image_id']}: {name} of a row is not the one in {IMAGES}"
                for name, other in pairs.items()
                if image.get(other) != row[name]
            ]
    return problems + [f"{name}: in {IMAGES}, but has no row" for name in sorted(set(known) - seen)]


def _differences(
    what: str, listed: Mapping[str, Mapping[str, int]], found: Mapping[str, Mapping[str, int]]
) -> list[str]:
    return [
        f"{what} {name}: counted {dict(found.get(name, {}))}, "
        f"the manifest says {dict(listed.get(name, {}))}"
        for name in sorted({*listed, *found})
        if dict(listed.get(name, {})) != dict(found.get(name, {}))
    ]


def _total_problems(manifest: Manifest, totals: Mapping[str, int]) -> list[str]:
    return [
        f"{name}: counted {found}, the manifest says {getattr(manifest, name)}"
        for name, found in totals.items()
        if getattr(manifest, name) != found
    ]
