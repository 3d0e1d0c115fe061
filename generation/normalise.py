"""The use case: images of some sources, cropped and encoded alike, as a source of their own.

The images that they are made of stay as they are. A normalised image is in the same group as its
parent, so no split parts them, and the name of its file says what it was made of and how.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from core.errors import ConfigError, DataError
from core.recipe import Normalise
from core.records import Authenticity, ImageRecord, Source
from core.topics import COLLECTION
from db.engine import Database
from db.images import imported_files, labelled_images, source_names
from db.images import sources as read_sources
from db.tombstones import tombstones
from db.topics import topics_among
from generation.ingest import EncodedImage, IngestSummary, ingest_encoded
from imaging.crew import usable_cores
from imaging.decode import open_image
from imaging.normalise import Treatment, apply_treatment, kept_share, plan_treatments
from imaging.store import ImageStore

AHEAD = 4
"""images per core that are being encoded at once"""

Progress = Callable[[int, int], None]
"""is told how many images are done, and how many there are"""


@dataclass(frozen=True, slots=True, kw_only=True)
class NormaliseSummary:
    """What was made, and what it cost in pixels."""

    into: str
    ingested: IngestSummary
    is_empty: bool
    """all crops were images of other sources already"""
    sizes: int
    """different sizes of the crops"""
    too_small: dict[Authenticity, int]
    """left out, by label"""
    unreadable: tuple[tuple[str, str], ...]
    """image id and reason, of images whose file is not there any more"""
    kept: dict[Authenticity, float]
    """share of the pixels that the crops keep, by label, 0..1"""

    def text(self) -> str:
        """The summary as lines to print."""
        kept = ", ".join(f"{share:.0%} ({label})" for label, share in self.kept.items())
        small = ", ".join(f"{number} {label}" for label, number in self.too_small.items())
        lost = [f"  left out {image_id}: {reason}" for image_id, reason in self.unreadable]
        return "\n".join(
            [
                self.ingested.text(),
                f"{self.into}: crops of {self.sizes} sizes, which keep {kept} of the pixels; too "
                f"small and left out: {small}",
                *lost,
                self._advice(),
            ]
        )

    def _advice(self) -> str:
        if self.is_empty:
            return f"all of them are images of other sources already: {self.into} holds none"
        return f"draft, audit and build it with `--source {self.into}`"


def normalised_name(sources: Sequence[str]) -> str:
    """The source that normalised images go into where none is named."""
    return f"{'+'.join(sources)}-normalised"


def normalise(
    database: Database,
    store: ImageStore,
    settings: Normalise,
    *,
    sources: Sequence[str],
    into: str | None = None,
    progress: Progress | None = None,
) -> NormaliseSummary:
    """Crop and encode the labelled images of `sources` alike, as images of the source `into`.

    Doing it again adds nothing. Raises ConfigError when a source is not there, when one of the
    labels is missing, or when `into` holds what other images or settings made.
    """
    target = into or normalised_name(sources)
    images, origin = _read(database, sources, target)
    treatments = plan_treatments(
        images, least_side=settings.least_side, jpeg_quality=settings.jpeg_quality
    )
    fitting = [image for image in images if image.image_id in treatments]
    _require_both_labels(fitting, sources, settings.least_side)
    _refuse_stale(database, target, {_name(image, treatments) for image in fitting})
    with database.read() as session:
        said = topics_among(session, [image.image_id for image in fitting])
    topics = {image_id: words.get(COLLECTION) for image_id, words in said.items()}
    bench = _Bench(store, treatments, topics)
    encoded = bench.encode(fitting, progress or _report_nothing)
    ingested = ingest_encoded(database, store, encoded, source=origin)
    with database.read() as session:
        is_empty = target not in source_names(session)
    return NormaliseSummary(
        into=target,
        ingested=ingested,
        is_empty=is_empty,
        sizes=len({(t.width, t.height) for t in treatments.values()}),
        too_small={label: _count(images, label) - _count(fitting, label) for label in Authenticity},
        unreadable=tuple(bench.unreadable),
        kept={label: kept_share(images, treatments, label) for label in Authenticity},
    )


def _report_nothing(done: int, total: int) -> None:
    """For callers that show no progress."""


def _read(database: Database, names: Sequence[str], into: str) -> tuple[list[ImageRecord], Source]:
    """The labelled images of some sources, and the terms of what is made of them."""
    with database.read() as session:
        known = read_sources(session)
        if missing := sorted({name for name in names if name not in known}):
            there = ", ".join(known) or "none"
            raise ConfigError(f"there is no source {missing[0]!r}; ingested so far: {there}")
        images = list(labelled_images(session, sources=names))
    if into in names:
        raise ConfigError(f"source {into!r} cannot be normalised into itself; name another")
    parents = [known[name] for name in names]
    licence = "; ".join(sorted({parent.licence for parent in parents}))
    terms = "; ".join(sorted({parent.terms for parent in parents if parent.terms}))
    may_train = all(parent.may_train for parent in parents)
    return images, Source(name=into, licence=licence, may_train=may_train, terms=terms)


def _require_both_labels(
    images: Sequence[ImageRecord], sources: Sequence[str], least_side: int
) -> None:
    for label in Authenticity:
        if not _count(images, label):
            raise ConfigError(
                f"{', '.join(sources)}: no {label} image of {least_side} pixels a side or more, so "
                "there is nothing to match sizes with; name the sources of both labels: "
                "`python -m generation normalise PHOTOGRAPHS FAKES`"
            )


def _refuse_stale(database: Database, into: str, names: set[str]) -> None:
    """A source is made of one plan: crops of two plans side by side would match no longer.

    What was made of an image that is withdrawn by now counts for nothing.
    """
    with database.read() as session:
        withdrawn = {tombstone.image_id for tombstone in tombstones(session)}
        files = (file.name for file in imported_files(session, into))
        if any(name not in names and _parent(name) not in withdrawn for name in files):
            raise ConfigError(
                f"source {into!r} holds images that these sources and this recipe do not make (any "
                "more); name another source with --into"
            )


def _count(images: Sequence[ImageRecord], label: Authenticity) -> int:
    return sum(image.label is label for image in images)


def _name(image: ImageRecord, treatments: Mapping[str, Treatment]) -> str:
    """What a normalised image was made of, and how."""
    made = treatments[image.image_id]
    return f"{image.image_id}-{made.width}x{made.height}-q{made.jpeg_quality}.jpg"


def _parent(name: str) -> str:
    """The id of the image that a normalised image was made of."""
    return name.rsplit("-", 2)[0]


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where images are cropped and encoded, on all cores, a few ahead of what is asked for."""

    store: ImageStore
    treatments: Mapping[str, Treatment]
    topics: Mapping[str, str | None]
    """what images show, as their collections say"""
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def encode(self, images: Sequence[ImageRecord], report: Progress) -> Iterator[EncodedImage]:
        cores = usable_cores()
        under_way: deque[tuple[ImageRecord, Future[bytes]]] = deque()
        with ThreadPoolExecutor(cores, thread_name_prefix="normalise") as threads:
            for done, image in enumerate(images):
                under_way.append((image, threads.submit(self._encode, image)))
                if len(under_way) == AHEAD * cores:
                    yield from self._finish(*under_way.popleft())
                report(done, len(images))
            while under_way:
                yield from self._finish(*under_way.popleft())
        report(len(images), len(images))

    def _encode(self, image: ImageRecord) -> bytes:
        picture = open_image(self.store.read(image.path)).rgb
        return apply_treatment(picture, self.treatments[image.image_id])

    def _finish(self, image: ImageRecord, data: Future[bytes]) -> Iterator[EncodedImage]:
        try:
            encoded = data.result()
        except DataError as error:
            self.unreadable.append((image.image_id, str(error)))
            return
        yield EncodedImage(
            name=_name(image, self.treatments),
            data=encoded,
            label=image.label,
            generator=image.generator,
            group=image.group,
            topic=self.topics.get(image.image_id),
        )
