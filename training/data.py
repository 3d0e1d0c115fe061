"""Shards and images as the training reads them: text stays in Arrow, pixels on the disk."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from core.errors import ConfigError, DataError
from core.ids import seed_of, sha256_bytes
from core.records import Authenticity, Split
from imaging.decode import open_image
from instruct_builder.shards import Manifest, ShardSet, verify

if TYPE_CHECKING:
    from PIL import Image

ROW_COLUMNS = (
    "instruction_id", "image_id", "image_path", "image_sha256", "family", "form", "messages",
    "target",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where the pixels of an image are, and which bytes they must be."""

    image_id: str
    path: str
    """relative to the image folder"""
    sha256: str


@dataclass(frozen=True, slots=True)
class Row:
    """One instruction with its image."""

    instruction_id: str
    image: ImageRef
    messages: list[dict[str, str]]
    target: str | None
    """the closed answer of the last turn, where there is one"""


@dataclass(frozen=True, slots=True)
class LabelledImage:
    """One image with what is known of it apart from its pixels."""

    ref: ImageRef
    is_fake: bool
    generator: str | None
    group: str
    split: Split
    width: int
    height: int
    jpeg_quality: int | None


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The image store, read one file at a time."""

    root: Path

    def path_of(self, ref: ImageRef) -> Path:
        """The file of an image; a shard set may not point outside the folder."""
        relative = PurePosixPath(ref.path)
        if relative.is_absolute() or ".." in relative.parts:
            raise ConfigError(
                f"image {ref.image_id}: its path leaves the image folder: {ref.path!r}"
            )
        return self.root / relative

    def read(self, ref: ImageRef) -> Image.Image:
        """Upright RGB pixels; a ConfigError when the file is missing or has changed."""
        try:
            data = self.path_of(ref).read_bytes()
        except OSError as error:
            raise ConfigError(
                f"image {ref.image_id}: {self.root / ref.path}: {error.strerror}; "
                "name the image store that belongs to the shards with --images"
            ) from None
        if sha256_bytes(data) != ref.sha256:
            raise ConfigError(
                f"image {ref.image_id}: {self.root / ref.path} has changed since the shards were "
                "built (another SHA-256); restore it or build again"
            )
        return _decode(data, ref)

    def size_of(self, ref: ImageRef) -> int:
        """Bytes of the file."""
        return self.path_of(ref).stat().st_size

    def check_presence(self, images: Sequence[ImageRef]) -> None:
        """A ConfigError when files are missing, before any work is done."""
        missing = [ref for ref in images if not self.path_of(ref).is_file()]
        if missing:
            raise ConfigError(
                f"{len(missing)} of {len(images)} images are not in {self.root}, the first is "
                f"{missing[0].path} ({missing[0].image_id}); name their store with --images"
            )


def _decode(data: bytes, ref: ImageRef) -> Image.Image:
    try:
        return open_image(data).rgb
    except DataError as error:
        raise DataError(f"image {ref.image_id}: {error}") from None


def open_shards(folder: Path) -> ShardSet:
    """A shard set whose every checksum and count was verified, and that may be trained on."""
    shards = ShardSet.open(folder)
    problems = verify(folder)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ConfigError(f"{folder}: not what its manifest says: {problems[0]}{more}; build again")
    _check_terms(folder, shards.manifest)
    return shards


def _check_terms(folder: Path, manifest: Manifest) -> None:
    for source in manifest.sources:
        if not source.may_train:
            raise ConfigError(f"{folder}: source {source.name} may not be used for training")


def read_images(shards: ShardSet) -> list[LabelledImage]:
    """The labelled images of a set; a ConfigError for an unknown label or a withdrawn image."""
    withdrawn = set(shards.manifest.tombstones)
    images = []
    for record in shards.images().to_pylist():
        if record["image_id"] in withdrawn:
            raise ConfigError(f"image {record['image_id']} was withdrawn; build the shards again")
        if record["label"] is not None:
            images.append(_labelled(record))
    return images


def _labelled(record: Mapping[str, Any]) -> LabelledImage:
    if record["label"] not in set(Authenticity):
        raise ConfigError(
            f"image {record['image_id']}: unknown label {record['label']!r}; "
            f"known are {', '.join(Authenticity)}"
        )
    return LabelledImage(
        ref=ImageRef(record["image_id"], record["path"], record["sha256"]),
        is_fake=record["label"] == Authenticity.FAKE,
        generator=record["generator"],
        group=record["group"],
        split=Split(record["split"]),
        width=record["width"],
        height=record["height"],
        jpeg_quality=record["jpeg_quality"],
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Instructions of one split, in Arrow's memory; rows of one image are neighbours."""

    table: pa.Table

    @classmethod
    def read(cls, shards: ShardSet, split: Split) -> Rows:
        """The instructions of a split; a ConfigError when it has none."""
        tables = list(shards.rows(split=split, columns=list(ROW_COLUMNS)))
        if not tables:
            raise ConfigError(f"{shards.folder}: the {split} split has no instruction")
        return cls(pa.concat_tables(tables))

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> list[Row]:
        """The rows at some places."""
        return [
            Row(
                record["instruction_id"],
                ImageRef(record["image_id"], record["image_path"], record["image_sha256"]),
                record["messages"],
                record["target"],
            )
            for record in self.table.take(pa.array(places)).to_pylist()
        ]

    def sample(self, count: int, *, seed: int) -> list[Row]:
        """At most `count` rows, drawn without repetition, in file order."""
        rng = np.random.default_rng(seed_of("sample", seed))
        return self.take(np.sort(rng.permutation(len(self))[:count]))

    def images(self) -> list[ImageRef]:
        """The images of the rows, each once, in file order."""
        columns = self.table.select(["image_id", "image_path", "image_sha256"])
        return [ImageRef(*record.values()) for record in _first_of_each(columns).to_pylist()]

    def sample_images(self, count: int, *, seed: int) -> list[ImageRef]:
        """At most `count` images, each once."""
        images = self.images()
        rng = np.random.default_rng(seed_of("sample images", seed))
        return [images[place] for place in np.sort(rng.permutation(len(images))[:count])]

    def by_image(self, key: str) -> list[NDArray[np.int64]]:
        """Places of the rows of a family or form, image by image."""
        wanted = pc.or_(
            pc.equal(self.table["family"], key), pc.equal(self.table["form"], key)
        ).to_numpy()
        places = np.flatnonzero(wanted)
        codes = self.table["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        borders = np.flatnonzero(np.diff(codes[places])) + 1
        return np.split(places, borders) if len(places) else []


def _first_of_each(columns: pa.Table) -> pa.Table:
    codes = columns["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return columns.take(pa.array(np.sort(np.unique(codes, return_index=True)[1])))


@dataclass(frozen=True, slots=True)
class PlannedBatch:
    """Which rows make up one step."""

    key: str
    """family or form"""
    places: NDArray[np.int64]


def plan_batches(
    rows: Rows, mix: Mapping[str, float], *, batch_rows: int, seed: int
) -> Iterator[PlannedBatch]:
    """Batches without end, each of one family or form, each row about another image.

    The keys of `mix` take turns so that after any number of steps each has had its share. Each key
    goes through all its images in an order of its own before an image comes again.
    """
    queues = {
        key: _draw_rows(_images_of(rows, key), seed_of("batches", seed, key))
        for key, share in mix.items()
        if share > 0
    }
    for key in _take_turns({key: mix[key] for key in queues}):
        yield PlannedBatch(key, np.array([next(queues[key]) for _ in range(batch_rows)]))


def check_mix(rows: Rows, mix: Mapping[str, float]) -> None:
    """A ConfigError when a family or form of the mix has no row."""
    for key, share in mix.items():
        if share > 0:
            _images_of(rows, key)


def _images_of(rows: Rows, key: str) -> list[NDArray[np.int64]]:
    images = rows.by_image(key)
    if not images:
        known = sorted({*_distinct(rows, "family"), *_distinct(rows, "form")})
        raise ConfigError(f"data.mix: no training row of {key!r}; there are: {', '.join(known)}")
    return images


def _distinct(rows: Rows, column: str) -> list[str]:
    return [str(value) for value in rows.table[column].unique().to_pylist()]


def _draw_rows(images: Sequence[NDArray[np.int64]], seed: int) -> Iterator[int]:
    rng = np.random.default_rng(seed)
    while True:
        for image in rng.permutation(len(images)):
            yield int(rng.choice(images[image]))


def _take_turns(shares: Mapping[str, float]) -> Iterator[str]:
    """The key that is furthest behind its share is next."""
    whole = sum(shares.values())
    given = dict.fromkeys(shares, 0)
    for step in itertools.count(1):
        key = max(shares, key=lambda name: shares[name] / whole * step - given[name])
        given[key] += 1
        yield key
