"""Images to be scored, as published benchmarks and people's folders lie on disk.

Read by the same layouts and within the same bounds as an import; nothing is copied or kept.
"""

from __future__ import annotations

from collections.abc import Collection as Container
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.errors import DataError
from core.ids import sha256_bytes
from core.records import Authenticity
from imaging.decode import Limits, open_image
from imaging.files import read_file
from imaging.hashes import perceptual_hash
from imaging.jpeg import estimate_quality, subsampling
from imaging.layouts import AUTO, Collection, FoundFile, open_collection
from training.answers import Question, questions_of
from training.own_sets import OWN_SET, is_own_set, open_own_set

if TYPE_CHECKING:
    from PIL import Image

LIMITS: Final = Limits()
AHEAD: Final = 8
"""images that are decoded before they are asked for"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What is known of an image apart from its pixels. Width and height in pixels, upright."""

    name: str
    """relative to the collection"""
    sha256: str
    """of the file"""
    phash: str
    label: Authenticity | None
    generator: str | None
    """of a fake, where the collection names it"""
    group: str
    """what its errors may have in common with; the image itself where nothing is known"""
    width: int
    height: int
    format: str
    size_bytes: int
    jpeg_quality: int | None
    subsampling: str | None


Examined = tuple[ImageFacts, "Image.Image"]
"""an image that was read, with its upright RGB pixels"""


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that cannot be scored."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Benchmark:
    """A collection whose layout is settled."""

    path: Path
    collection: Collection

    @classmethod
    def open(cls, path: Path, *, layout: str = AUTO, images: Path | None = None) -> Benchmark:
        """ConfigError when there is nothing at `path`, or no layout of that name.

        `images` is the image store of a FakeInstruct set, which is a benchmark too.
        """
        if layout == OWN_SET or (layout == AUTO and is_own_set(path)):
            return cls(path, open_own_set(path, images))
        return cls(path, open_collection(path, layout=layout))

    def files(self) -> Iterator[FoundFile]:
        """What is to be read, in an order that never changes."""
        return (found for found in self.collection.files() if not found.is_hidden)

    def questions(self, *, limit: int | None = None) -> list[Question]:
        """What it asks about the first `limit` files."""
        return list(questions_of(islice(self.files(), limit)))

    def read(
        self, *, without: Container[str] = (), limit: int | None = None
    ) -> Iterator[Examined | Refused]:
        """Facts and upright RGB pixels of the first `limit` files, those in `without` left out."""
        files = islice(self.files(), limit)
        yield from _ahead(found for found in files if found.name not in without)


def _ahead(files: Iterator[FoundFile]) -> Iterator[Examined | Refused]:
    """Decode a few files in threads while others are scored."""
    with ThreadPoolExecutor(2, thread_name_prefix="decode") as threads:
        waiting = [threads.submit(_read, found) for found in islice(files, AHEAD)]
        while waiting:
            yield waiting.pop(0).result()
            waiting += [threads.submit(_read, found) for found in islice(files, 1)]


def _read(found: FoundFile) -> Examined | Refused:
    if found.refusal is not None:
        return Refused(found.name, found.refusal)
    try:
        data = _bytes_of(found)
        return _examine(found, data)
    except DataError as error:
        return Refused(found.name, str(error))


def _bytes_of(found: FoundFile) -> bytes:
    if isinstance(found.content, bytes):
        return found.content
    if isinstance(found.content, str):
        return read_file(found.content, max_bytes=LIMITS.max_bytes)
    return found.content.read(LIMITS.max_bytes)


def _examine(found: FoundFile, data: bytes) -> Examined:
    decoded = open_image(data, LIMITS, name=found.name)
    digest = sha256_bytes(data)
    is_jpeg = decoded.format == "JPEG"
    facts = ImageFacts(
        name=found.name,
        sha256=digest,
        phash=perceptual_hash(decoded.rgb),
        label=found.label,
        generator=found.generator,
        group=found.group or digest,
        width=decoded.width,
        height=decoded.height,
        format=decoded.format,
        size_bytes=len(data),
        jpeg_quality=estimate_quality(data) if is_jpeg else None,
        subsampling=subsampling(data) if is_jpeg else None,
    )
    return facts, decoded.rgb
