"""Shards and images as the training reads them: text stays in Arrow, pixels on the disk."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Container, Iterator, Mapping, Sequence
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

    from training.config import DataSettings

ROW_COLUMNS = (
    "instruction_id", "image_id", "image_path", "image_sha256", "family", "form", "messages",
    "target",
)  # fmt: skip
IMAGE_COLUMNS = ["image_id", "image_path", "image_sha256"]
"""the parts of an ImageRef"""


PIECE = 10_000
"""rows that are copied at a time"""


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
    _check_sources(folder, shards)
    return shards


def _check_terms(folder: Path, manifest: Manifest) -> None:
    for kind, parts in (("source", manifest.sources), ("teacher", manifest.teachers)):
        for part in parts:
            if not part.may_train:
                raise ConfigError(f"{folder}: {kind} {part.name} may not be used for training")


def _check_sources(folder: Path, shards: ShardSet) -> None:
    """Terms hold for what the manifest lists: an image from elsewhere has none."""
    listed = {source.name for source in shards.manifest.sources}
    others = set(shards.images(["source"])["source"].unique().to_pylist()) - listed
    if others:
        raise ConfigError(
            f"{folder}: it holds images of {', '.join(map(str, sorted(others, key=str)))}, whose "
            "terms its manifest does not list; build the shards again"
        )


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
    """Instructions of one split; rows of one image are neighbours.

    Their texts lie in a file that is mapped, so that only what a step needs is in memory.
    """

    table: pa.Table

    @classmethod
    def read(cls, shards: ShardSet, split: Split) -> Rows:
        """The instructions of a split, one row group after the other; a ConfigError when it has
        none, or when the disk does not take them."""
        table = _map(shards.rows(split=split, columns=list(ROW_COLUMNS)))
        if table is None:
            raise ConfigError(f"{shards.folder}: the {split} split has no instruction")
        return cls(table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def select(self, settings: DataSettings, *, seed: int) -> Rows:
        """The rows that a run may learn from; a ConfigError for an unknown family or form."""
        shares = (settings.images_share, settings.rows_share)
        if not settings.leave_out and shares == (1, 1):
            return self
        kept = self._without(settings.leave_out)
        codes = self.image_codes()
        names = self.table["image_id"].unique().to_pylist()
        images = np.unique(codes[kept]).tolist()
        images.sort(key=lambda code: seed_of("share of images", seed, names[code]))
        kept &= np.isin(codes, images[: math.ceil(settings.images_share * len(images))])
        rng = np.random.default_rng(seed_of("share of rows", seed))
        places = rng.permutation(np.flatnonzero(kept))
        return self._keep(np.sort(places[: math.ceil(settings.rows_share * len(places))]))

    def _without(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which rows are of none of some families and forms."""
        known = {*_distinct(self, "family"), *_distinct(self, "form")}
        for name in names:
            if name not in known:
                raise ConfigError(
                    f"data.leave_out: no training row of {name!r}; "
                    f"there are: {', '.join(sorted(known))}"
                )
        left_out = pa.array(names, pa.string())
        is_out = pc.or_(
            pc.is_in(self.table["family"], left_out), pc.is_in(self.table["form"], left_out)
        )
        return ~np.asarray(is_out.to_numpy(), bool)

    def _keep(self, places: NDArray[np.int64]) -> Rows:
        """The rows at sorted places, some thousands at a time."""
        starts = range(0, len(places), PIECE)
        table = _map(self._gather(places[start : start + PIECE]) for start in starts)
        return Rows(self.table.slice(0, 0) if table is None else table)

    def _gather(self, places: Sequence[int] | NDArray[np.int64]) -> pa.Table:
        """One by one: `take` of a table in pieces would first bring all of it into memory."""
        parts = [self.table.slice(int(place), 1) for place in places]
        return pa.concat_tables(parts) if parts else self.table.slice(0, 0)

    def take(self, places: Sequence[int] | NDArray[np.int64]) -> list[Row]:
        """The rows at some places."""
        return [
            Row(
                record["instruction_id"],
                ImageRef(record["image_id"], record["image_path"], record["image_sha256"]),
                record["messages"],
                record["target"],
            )
            for record in self._gather(places).to_pylist()
        ]

    def image_at(self, place: int) -> ImageRef:
        """The image of one row."""
        record = self.table.select(IMAGE_COLUMNS).slice(place, 1).to_pylist()[0]
        return ImageRef(*record.values())

    def sample(self, count: int, *, seed: int) -> list[Row]:
        """At most `count` rows, drawn without repetition, in file order."""
        rng = np.random.default_rng(seed_of("sample", seed))
        return self.take(np.sort(rng.permutation(len(self))[:count]))

    def images(self) -> list[ImageRef]:
        """The images of the rows, each once, in file order."""
        columns = self.table.select(IMAGE_COLUMNS)
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
        borders = np.flatnonzero(np.diff(self.image_codes()[places])) + 1
        return np.split(places, borders) if len(places) else []

    def image_codes(self) -> NDArray[np.int64]:
        """A number for the image of each row, counted in file order."""
        codes = self.table["image_id"].combine_chunks().dictionary_encode().indices
        return np.asarray(codes.to_numpy(), np.int64)


def _map(tables: Iterator[pa.Table]) -> pa.Table | None:
    """The same rows in a temporary file without a name, mapped; None where there is none."""
    first = next(tables, None)
    if first is None:
        return None
    try:
        with tempfile.NamedTemporaryFile(prefix="fakescope-rows-", suffix=".arrow") as file:
            with pa.ipc.new_file(file.name, first.schema) as writer:
                for table in itertools.chain([first], tables):
                    writer.write_table(table)
            return pa.ipc.open_file(pa.memory_map(file.name)).read_all()
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(
            f"{tempfile.gettempdir()}: cannot hold the rows: {reason}; free some space or name "
            "another folder with TMPDIR"
        ) from None


def _first_of_each(columns: pa.Table) -> pa.Table:
    codes = columns["image_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    return columns.take(pa.array(np.sort(np.unique(codes, return_index=True)[1])))


@dataclass(frozen=True, slots=True)
class Visit:
    """Which instructions about one image make up a part of a step."""

    keys: tuple[str, ...]
    """family or form of each"""
    places: tuple[int, ...]
    """of the rows"""


def plan_visits(
    rows: Rows, mix: Mapping[str, float], *, branches: int, seed: int
) -> Iterator[Visit]:
    """Visits without end: each goes to one image with at most `branches` of its instructions.

    Every image is visited once before any is visited again, in an order of its own each time.
    Among the families and forms of which an image has rows left, the one that is furthest behind
    its share of the mix is next. The rows of an image and a key all come before one comes again.
    """
    decks = _deal(rows, mix, seed)
    shares = {key: share / sum(mix.values()) for key, share in mix.items() if share > 0}
    given = dict.fromkeys(shares, 0)
    for turn in itertools.count():
        order = np.random.default_rng(seed_of("images", seed, turn)).permutation(len(decks))
        for image in order:
            yield _visit(decks[image], shares, given, branches)


def _visit(
    decks: Mapping[str, Deck], shares: Mapping[str, float], given: dict[str, int], branches: int
) -> Visit:
    keys: list[str] = []
    places: list[int] = []
    while len(places) < branches:
        left = {key: deck for key, deck in decks.items() if deck.has_other_than(places)}
        if not left:
            break
        dealt = sum(given.values()) + 1
        key = max(left, key=lambda name: shares[name] * dealt - given[name])
        given[key] += 1
        keys.append(key)
        places.append(left[key].draw(places))
    return Visit(tuple(keys), tuple(places))


class Deck:
    """The rows of one image and one key, dealt in a new order each time they have all come."""

    __slots__ = ("_left", "_places", "_rounds", "_seed")

    def __init__(self, places: NDArray[np.int64], seed: tuple[int, str, int]) -> None:
        self._places = places
        self._seed = seed
        self._rounds = 0
        self._left: list[int] = []

    def has_other_than(self, drawn: Container[int]) -> bool:
        """Whether there is a row that this visit has not drawn."""
        return any(place not in drawn for place in self._places)

    def draw(self, drawn: Container[int]) -> int:
        """The next row that is not among `drawn`."""
        if all(place in drawn for place in self._left):
            rng = np.random.default_rng(seed_of("deck", *self._seed, self._rounds))
            self._left += rng.permutation(self._places).tolist()
            self._rounds += 1
        place = next(place for place in self._left if place not in drawn)
        self._left.remove(place)
        return place


def _deal(rows: Rows, mix: Mapping[str, float], seed: int) -> list[dict[str, Deck]]:
    """The decks of each image by family or form, images in file order."""
    images: dict[int, dict[str, Deck]] = {}
    codes = rows.image_codes()
    for key, share in mix.items():
        if share > 0:
            for places in _images_of(rows, key):
                image = int(codes[places[0]])
                images.setdefault(image, {})[key] = Deck(places, (seed, key, image))
    return [images[image] for image in sorted(images)]


def check_mix(rows: Rows, mix: Mapping[str, float]) -> None:
    """A ConfigError when a family or form of the mix has no row."""
    for key, share in mix.items():
        if share > 0:
            _images_of(rows, key)


def count_visits(rows: Rows, mix: Mapping[str, float], *, branches: int) -> int:
    """Visits that take as many instructions about each image as the mix has of it."""
    keys = [key for key, share in mix.items() if share > 0]
    places = np.unique(np.concatenate([np.concatenate(_images_of(rows, key)) for key in keys]))
    counts = np.bincount(rows.image_codes()[places])
    return int(np.ceil(counts / branches).sum())


def _images_of(rows: Rows, key: str) -> list[NDArray[np.int64]]:
    images = rows.by_image(key)
    if not images:
        known = sorted({*_distinct(rows, "family"), *_distinct(rows, "form")})
        raise ConfigError(f"data.mix: no training row of {key!r}; there are: {', '.join(known)}")
    return images


def _distinct(rows: Rows, column: str) -> list[str]:
    return [str(value) for value in rows.table[column].unique().to_pylist()]
