"""Take one file in: decode, cut metadata, hash, and put into the image store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from core.errors import DataError
from core.ids import sha256_bytes
from imaging.decode import Limits, open_image
from imaging.files import Packed, read_file
from imaging.hashes import REDUCED_SIDE, perceptual_hash
from imaging.jpeg import estimate_quality, subsampling
from imaging.provenance import read_provenance
from imaging.store import ImageStore

STORED_SUFFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What is known of a file that was taken in."""

    sha256: str
    """of the bytes in the image store"""
    original_sha256: str
    path: str
    """relative to the image store"""
    width: int
    height: int
    format: str
    """of the bytes in the image store"""
    size_bytes: int
    """of the bytes in the image store"""
    jpeg_quality: int | None
    subsampling: str | None
    phash: str
    provenance: Mapping[str, str]
    """what the metadata said of the origin, untrusted; it is not in the bytes in the image store"""
    notes: tuple[str, ...]
    is_redrawn: bool
    """stored as PNG of the pixels, because readers would not agree on what the bytes show"""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file was not taken in."""

    reason: str
    is_lasting: bool = True
    """the bytes are to blame; what stood in the way of reading them may pass"""


@dataclass(frozen=True, slots=True)
class Job:
    """One file to take in."""

    content: str | bytes | Packed
    """a path whose last part is no link, the bytes themselves, or where they lie in another file"""
    name: str
    """file name; only compared with what the bytes are"""


def take_in(job: Job, store: ImageStore, limits: Limits) -> Intake | Refusal:
    """Take one file in; the file itself is never changed."""
    try:
        data = _read(job.content, limits)
    except DataError as error:
        return Refusal(str(error), is_lasting=False)
    try:
        return _take_in(data, job.name, store, limits)
    except DataError as error:
        return Refusal(str(error))


def _take_in(data: bytes, name: str, store: ImageStore, limits: Limits) -> Intake:
    decoded = open_image(data, limits, name=name, least_side=REDUCED_SIDE)
    stored, kind = decoded.encode()
    digest = sha256_bytes(stored)
    return Intake(
        sha256=digest,
        original_sha256=digest if stored == data else sha256_bytes(data),
        path=store.add(stored, STORED_SUFFIXES[kind], digest=digest),
        width=decoded.width,
        height=decoded.height,
        format=kind,
        size_bytes=len(stored),
        jpeg_quality=estimate_quality(stored) if kind == "JPEG" else None,
        subsampling=subsampling(stored) if kind == "JPEG" else None,
        phash=perceptual_hash(decoded.rgb),
        provenance=read_provenance(data, decoded.format),
        notes=decoded.notes,
        is_redrawn=decoded.kept is None,
    )


def _read(content: str | bytes | Packed, limits: Limits) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return read_file(content, max_bytes=limits.max_bytes)
    return content.read(limits.max_bytes)
