"""Take images out of a published shard set: only the files that hold them are written anew.

All new files are staged beside the old ones. Then the old manifest goes, the files get their names,
and the new manifest comes. A set that was cut off in between is the old one as it was, or has no
manifest and everything that is needed to complete it.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from core.errors import ConfigError
from core.ids import sha256_bytes
from instruct_builder.card import CARD, render_card
from instruct_builder.croissant import CROISSANT, render_croissant
from instruct_builder.manifest import MANIFEST, Manifest, RemovalFact, ShardFile
from instruct_builder.preview import PREVIEW, remove_scenes
from instruct_builder.shards import (
    COUNTED,
    IMAGE_COUNTED,
    IMAGES,
    ShardSet,
    chains_of,
    count_rows,
    discard_staged,
    locked,
    manifest_bytes,
    partial_of,
    put_in_place,
    sha256_of,
    write_bytes,
    write_parquet,
    writing,
)
from instruct_builder.staging import FOLDER as BUILD_UNDER_WAY
from instruct_builder.topics import TOPICS, without

_COUNTING = {CARD: render_card, CROISSANT: render_croissant}
"""documents that follow from the manifest alone"""
Counts = dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What was taken out of a set."""

    images: int
    rows: int
    files: tuple[str, ...]
    """written anew, or gone because nothing was left in them"""


def remove_images(folder: Path, image_ids: Collection[str]) -> Removed:
    """Take images out of a set and name them among its tombstones; again, it changes nothing.

    A set that was cut off while it was being published is completed first. Raises ConfigError when
    the folder is no shard set or cannot be written, StateError while somebody else writes there.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: there is no such folder")
    with locked(folder), writing(folder):
        shutil.rmtree(folder / BUILD_UNDER_WAY, ignore_errors=True)  # it may hold them too
        complete(folder)
        shards = ShardSet.open(folder)
        held = _held(shards, image_ids)
        if not held:
            return Removed(images=0, rows=0, files=())
        discard_staged(folder)
        return _Removal(shards, held).run()


def complete(folder: Path) -> None:
    """Put a set in place that was staged as a whole when its publication was cut off."""
    if (folder / MANIFEST).exists() or (manifest := _read_staged(folder)) is None:
        return
    if all(_size_of(folder, file) == file.bytes for file in manifest.files):
        put_in_place(folder, manifest)


def _read_staged(folder: Path) -> Manifest | None:
    """The staged manifest; None when there is none, or it was not written to its end."""
    try:
        return Manifest.model_validate(json.loads(partial_of(folder, MANIFEST).read_bytes()))
    except (OSError, ValueError):
        return None


def _size_of(folder: Path, file: ShardFile) -> int | None:
    """Bytes of a file that is staged, or in place already."""
    found = (path for path in (partial_of(folder, file.path), folder / file.path) if path.exists())
    return next((path.stat().st_size for path in found), None)


def _held(shards: ShardSet, image_ids: Collection[str]) -> set[str]:
    """Those of the images that the set holds."""
    ids = shards.images(columns=["image_id"])["image_id"]
    return set(ids.filter(_is_among(ids, image_ids)).to_pylist())


def _is_among(ids: pa.ChunkedArray, image_ids: Collection[str]) -> pa.ChunkedArray:
    """Row by row, never null: a row without an image is none of them."""
    return pc.is_in(ids, value_set=pa.array(sorted(image_ids), type=pa.string()))


@dataclass(slots=True)
class _Removal:
    """One set on its way to another manifest."""

    shards: ShardSet
    held: set[str]
    files: list[ShardFile] = field(default_factory=list)
    """of the new manifest"""
    changed: list[str] = field(default_factory=list)
    rows: int = 0
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """rows that go, by column and value"""
    chains: set[str] = field(default_factory=set)
    image_counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def run(self) -> Removed:
        for file in self.shards.manifest.files:
            if file.split is not None:
                self._remove_rows(file)
            elif file.path == IMAGES:
                self._remove_images(file)
            else:
                self.files.append(file)
        manifest = self._write_documents(self._manifest())
        self._stage(MANIFEST, manifest_bytes(manifest))
        put_in_place(self.shards.folder, manifest)
        return Removed(images=len(self.held), rows=self.rows, files=tuple(self.changed))

    def _remove_rows(self, file: ShardFile) -> None:
        path = self.shards.folder / file.path
        ids = pq.read_table(path, columns=["image_id"])["image_id"]
        goes = _is_among(ids, self.held).combine_chunks()
        if not pc.any(goes).as_py():
            self.files.append(file)
            return
        table = pq.read_table(path)
        self._count(table.filter(goes))
        self.changed.append(file.path)
        stays = ~goes.to_numpy(zero_copy_only=False)
        lengths = [length for length in _lengths(path, stays) if length]
        if lengths:
            self._stage_table(file, table.filter(pa.array(stays)), lengths)

    def _count(self, gone: pa.Table) -> None:
        self.rows += gone.num_rows
        self.chains |= chains_of(gone)
        self.counts += _flat(count_rows(gone, COUNTED))

    def _remove_images(self, file: ShardFile) -> None:
        table = self.shards.images()
        goes = _is_among(table["image_id"], self.held)
        self.image_counts += _flat(count_rows(table.filter(goes), IMAGE_COUNTED))
        rest = table.filter(pc.invert(goes))
        self.changed.append(file.path)
        self._stage_table(file, rest, [rest.num_rows])

    def _stage_table(self, file: ShardFile, table: pa.Table, lengths: Sequence[int]) -> None:
        path = partial_of(self.shards.folder, file.path)
        write_parquet(table, path, lengths)
        size, digest = path.stat().st_size, sha256_of(path)
        changes = {"rows": table.num_rows, "bytes": size, "sha256": digest}
        self.files.append(file.model_copy(update=changes))

    def _manifest(self) -> Manifest:
        old = self.shards.manifest
        before = next(file.sha256 for file in old.files if file.path == IMAGES)
        removal = RemovalFact(
            image_ids=tuple(sorted(self.held)), rows=self.rows, images_sha256=before
        )
        changes = {
            "rows": old.rows - self.rows,
            "images": old.images - len(self.held),
            "chains": old.chains - len(self.chains),
            "counts": _less(old.counts, self.counts),
            "image_counts": _less(old.image_counts, self.image_counts),
            "tombstones": tuple(sorted({*old.tombstones, *self.held})),
            "removals": (*old.removals, removal),
            "files": tuple(self.files),
        }
        return old.model_copy(update=changes)

    def _write_documents(self, manifest: Manifest) -> Manifest:
        """Write the documents anew that count rows or show images."""
        files = tuple(self._renew(file, manifest) for file in manifest.files)
        return manifest.model_copy(update={"files": files})

    def _renew(self, file: ShardFile, manifest: Manifest) -> ShardFile:
        data = self._document(self.shards.folder / file.path, manifest)
        if data is None or sha256_bytes(data) == file.sha256:
            return file
        self.changed.append(file.path)
        return self._stage(file.path, data)

    def _document(self, path: Path, manifest: Manifest) -> bytes | None:
        """A document as it is now to be; None for any other file."""
        if path.name in _COUNTING:
            return _COUNTING[path.name](manifest)
        if path.name == TOPICS:
            return without(path.parent, self.held)
        return remove_scenes(path.read_bytes(), self.held) if path.name == PREVIEW else None

    def _stage(self, name: str, data: bytes) -> ShardFile:
        path = partial_of(self.shards.folder, name)
        write_bytes(data, path)
        return ShardFile(path=name, rows=None, bytes=len(data), sha256=sha256_of(path))


def _lengths(path: Path, stays: NDArray[np.bool_]) -> Iterator[int]:
    """Rows that stay of each row group."""
    meta, start = pq.read_metadata(path), 0
    for group in range(meta.num_row_groups):
        end = start + meta.row_group(group).num_rows
        yield int(np.count_nonzero(stays[start:end]))
        start = end


def _flat(counts: Mapping[str, Counter[str]]) -> Counter[tuple[str, str]]:
    return Counter({(name, v): n for name, values in counts.items() for v, n in values.items()})


def _less(counts: Counts, gone: Counter[tuple[str, str]]) -> Counts:
    """What is left; values that no row has any more are not counted."""
    return {
        name: {v: n - gone[name, v] for v, n in values.items() if n > gone[name, v]}
        for name, values in counts.items()
    }
