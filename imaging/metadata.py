"""Cut metadata out of JPEG, PNG and WebP files without touching a pixel.

What stays is what decides the picture: image data, palette, transparency, colour description and,
in JPEG, the orientation tag alone. A readable ICC profile stays, because without it a browser would
show other colours; the stored numbers are never converted. All else goes: EXIF with its GPS
position and thumbnail, XMP, IPTC, C2PA, comments, PNG text, and whatever follows the image.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from core.errors import DataError
from imaging import jpeg
from imaging.chunks import (
    PNG_SIGNATURE,
    Chunk,
    check_png_chunk,
    make_png_chunk,
    make_webp_chunk,
    read_png_chunks,
    read_webp_chunks,
    webp_end,
)

UPRIGHT: Final = 1
ORIENTATION_TAG: Final = 0x0112
GPS_TAG: Final = 0x8825
SHORT: Final = 3
MAX_PROFILE_BYTES: Final = 2**20
UNREADABLE_PROFILE: Final = "ICC profile unreadable, left out"

APP0, APP1, APP2, APP13, APP14, APP15 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF
JFIF: Final = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
"""version 1.1, no resolution, no thumbnail"""
ICC_SIGNATURE: Final = b"ICC_PROFILE\0"
EXIF_SIGNATURE: Final = b"Exif\0\0"

PNG_PICTURE: Final = frozenset(
    (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"sBIT", b"cICP")
)
PNG_KINDS: Mapping[bytes, str] = MappingProxyType(
    {b"eXIf": "EXIF", b"caBX": "C2PA", b"tIME": "time", b"pHYs": "resolution"}
)
PNG_TEXT: Final = frozenset((b"tEXt", b"zTXt", b"iTXt"))
GENERATOR_KEYS: Final = frozenset(
    (
        b"parameters", b"prompt", b"workflow", b"generation_data", b"sd-metadata", b"Dream",
        b"invokeai_metadata",
    )
)  # fmt: skip
WEBP_PICTURE: Final = frozenset((b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"))
WEBP_KINDS: Mapping[bytes, str] = MappingProxyType({b"XMP ": "XMP", b"C2PA": "C2PA"})
WEBP_ICC, WEBP_EXIF, WEBP_XMP = 0x20, 0x08, 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A picture without its metadata, and what was cut."""

    data: bytes
    orientation: int
    """EXIF orientation 1..8 of the file; 1: as it is"""
    removed: tuple[str, ...]
    """kinds of metadata cut out: `EXIF`, `GPS position`, `comment`; never their text"""
    notes: tuple[str, ...]
    """what else was odd"""


@dataclass(slots=True)
class _Findings:
    """What a walk through one file has met."""

    orientation: int = UPRIGHT
    removed: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def cut(self, parts: Iterable[bytes]) -> Cut:
        return Cut(
            data=b"".join(parts),
            orientation=self.orientation,
            removed=tuple(dict.fromkeys(self.removed)),
            notes=tuple(dict.fromkeys(self.notes)),
        )

    def note_tail(self, data: bytes, end: int) -> None:
        if end < len(data):
            self.notes.append(f"{len(data) - end} bytes after the image, cut off")

    def note_exif(self, tiff: bytes) -> None:
        if tiff == _orientation_tiff(self.orientation):
            return
        self.removed.append("EXIF")
        tags = _read_tags(tiff)
        if tags is None:
            self.notes.append("EXIF unreadable")
        elif GPS_TAG in tags:
            self.removed.append("GPS position")

    def has_profile(self, profile: bytes) -> bool:
        """Whether a profile that was met can stay; an unreadable one is noted."""
        if profile and not _is_profile(profile):
            self.notes.append(UNREADABLE_PROFILE)
        return _is_profile(profile)


def cut_metadata(data: bytes, format: str) -> Cut:
    """Cut the metadata of a JPEG, PNG or WEBP; the pixels stay bit for bit the same.

    DataError when the file's structure is broken.
    """
    return CUTTERS[format](data)


def _cut_jpeg(data: bytes) -> Cut:
    found = _Findings()
    segments = list(jpeg.read_segments(data))
    payloads = [(s, data[s.payload : s.end]) for s in segments]
    found.orientation = _first_orientation(
        payload.removeprefix(EXIF_SIGNATURE)
        for s, payload in payloads
        if s.marker == APP1 and payload.startswith(EXIF_SIGNATURE)
    )
    keep_icc = found.has_profile(_join_profile(payloads))
    body = [_keep_segment(data, s, payload, found, keep_icc) for s, payload in payloads[1:]]
    has_jfif = JFIF in body
    found.note_tail(data, segments[-1].end)
    head = [b"\xff\xd8", JFIF if has_jfif else b"", _orientation_segment(found.orientation)]
    return found.cut([*head, *(part for part in body if part != JFIF)])


def _keep_segment(
    data: bytes, segment: jpeg.Segment, payload: bytes, found: _Findings, keep_icc: bool
) -> bytes:
    """The bytes that stay of one segment: all, some (JFIF, Adobe) or none."""
    marker = segment.marker
    if marker == APP0 and payload.startswith(b"JFIF\0"):
        return JFIF
    if marker == APP14 and payload.startswith(b"Adobe") and len(payload) >= 12:
        return b"\xff\xee\x00\x0e" + payload[:12]
    if marker == APP2 and payload.startswith(ICC_SIGNATURE):
        return data[segment.start : segment.end] if keep_icc else b""
    if marker in jpeg.PICTURE:
        return data[segment.start : segment.end]
    if marker == APP1 and payload.startswith(EXIF_SIGNATURE):
        found.note_exif(payload.removeprefix(EXIF_SIGNATURE))
    else:
        found.removed.append(_jpeg_kind(marker, payload))
    return b""


def _jpeg_kind(marker: int, payload: bytes) -> str:
    if marker == jpeg.COM:
        return "comment"
    if marker == APP1 and payload.startswith(b"http://ns.adobe.com/xa"):
        return "XMP"
    if marker == APP2 and payload.startswith(b"MPF\0"):
        return "index of further pictures"
    if marker == APP13:
        return "IPTC"
    if b"c2pa" in payload[:64]:
        return "C2PA"
    return f"APP{marker - APP0}" if APP0 <= marker <= APP15 else f"marker {marker:02X}"


def _join_profile(payloads: Iterable[tuple[jpeg.Segment, bytes]]) -> bytes:
    """The ICC profile of a JPEG from its numbered parts; no profile when one of them is missing."""
    parts = {
        payload[12]: payload
        for segment, payload in payloads
        if segment.marker == APP2 and payload.startswith(ICC_SIGNATURE) and len(payload) > 14
    }
    if not parts:
        return b""
    complete = sorted(parts) == list(range(1, parts[min(parts)][13] + 1))
    return b"".join(parts[i][14:] for i in sorted(parts)) if complete else b"incomplete"


def _cut_png(data: bytes) -> Cut:
    found = _Findings()
    parts, end = [PNG_SIGNATURE], 0
    for chunk in read_png_chunks(data):
        parts.append(_keep_png_chunk(data, chunk, found))
        end = chunk.end
    found.note_tail(data, end)
    return found.cut(parts)


def _keep_png_chunk(data: bytes, chunk: Chunk, found: _Findings) -> bytes:
    payload = data[chunk.payload : chunk.payload_end]
    if chunk.name in PNG_PICTURE:
        check_png_chunk(data, chunk)
        return data[chunk.start : chunk.end]
    if chunk.name == b"iCCP":
        return _keep_png_profile(payload, found)
    if chunk.name == b"acTL":
        found.notes.append(f"first of {int.from_bytes(payload[:4])} frames")
    elif chunk.name == b"eXIf":
        tiff = payload.removeprefix(EXIF_SIGNATURE)
        found.orientation = _first_orientation([tiff])
        found.note_exif(tiff)
    elif chunk.name not in (b"fcTL", b"fdAT"):
        found.removed.append(_png_kind(chunk.name, payload))
    return b""


def _keep_png_profile(payload: bytes, found: _Findings) -> bytes:
    """The profile under a neutral name, without what may stand behind it."""
    packed = payload.partition(b"\0")[2][1:]
    try:
        unpacker = zlib.decompressobj()
        profile = unpacker.decompress(packed, MAX_PROFILE_BYTES)
    except zlib.error:
        profile = b"damaged"
    else:
        packed = packed[: len(packed) - len(unpacker.unused_data)]
        profile = profile if unpacker.eof else b"too large or cut short"
    return make_png_chunk(b"iCCP", b"icc\0\0" + packed) if found.has_profile(profile) else b""


def _png_kind(name: bytes, payload: bytes) -> str:
    if name[:1].isupper():
        raise DataError(f"broken: unknown critical PNG chunk {name.decode('ascii', 'replace')!r}")
    if name not in PNG_TEXT:
        return PNG_KINDS.get(name, "further chunks")
    key = payload[:80].partition(b"\0")[0]
    if key == b"XML:com.adobe.xmp":
        return "XMP"
    return "generator parameters" if key in GENERATOR_KEYS else "text"


def _cut_webp(data: bytes) -> Cut:
    found = _Findings()
    flags = 0
    header: Chunk | None = None
    parts: list[bytes] = []
    for chunk in read_webp_chunks(data):
        payload = data[chunk.payload : chunk.payload_end]
        if chunk.name == b"VP8X":
            header = chunk
        elif chunk.name == b"ICCP":
            if found.has_profile(payload):
                flags = WEBP_ICC
                parts.append(make_webp_chunk(b"ICCP", payload))
        elif chunk.name in WEBP_PICTURE:
            parts.append(make_webp_chunk(chunk.name, payload))
        elif chunk.name == b"EXIF":
            tiff = payload.removeprefix(EXIF_SIGNATURE)
            found.orientation = _first_orientation([tiff])
            found.note_exif(tiff)
        else:
            found.removed.append(WEBP_KINDS.get(chunk.name, "further chunks"))
    found.note_tail(data, webp_end(data))
    if header is not None:
        parts.insert(0, _webp_header(data[header.payload : header.payload_end], flags))
    body = b"WEBP" + b"".join(parts)
    return found.cut([b"RIFF", len(body).to_bytes(4, "little"), body])


def _webp_header(payload: bytes, profile_flag: int) -> bytes:
    """VP8X with the flags of what is left."""
    flags = payload[0] & ~(WEBP_ICC | WEBP_EXIF | WEBP_XMP) | profile_flag
    return make_webp_chunk(b"VP8X", bytes([flags]) + payload[1:])


CUTTERS: Mapping[str, Callable[[bytes], Cut]] = MappingProxyType(
    {"JPEG": _cut_jpeg, "PNG": _cut_png, "WEBP": _cut_webp}
)


def _is_profile(profile: bytes) -> bool:
    """Whether an ICC profile's header is one (ICC.1:2022, 7.2); its tags are not interpreted."""
    return (
        128 < len(profile) <= MAX_PROFILE_BYTES
        and profile[36:40] == b"acsp"
        and int.from_bytes(profile[:4]) <= len(profile)
    )


def _first_orientation(tiffs: Iterable[bytes]) -> int:
    for tiff in tiffs:
        kind, count, value = (_read_tags(tiff) or {}).get(ORIENTATION_TAG, (0, 0, 0))
        if kind == SHORT and count == 1 and 1 <= value <= 8:
            return value
    return UPRIGHT


def _read_tags(tiff: bytes) -> dict[int, tuple[int, int, int]] | None:
    """Type, count and first 16-bit value of each tag in the first directory; None if unreadable."""
    order = {b"II*\0": "little", b"MM\0*": "big"}.get(tiff[:4])
    if order is None:
        return None

    def number(place: int, size: int) -> int:
        return int.from_bytes(tiff[place : place + size], order)  # type: ignore[arg-type]

    start = number(4, 4)
    count = number(start, 2)
    if start < 8 or start + 2 + 12 * count > len(tiff):
        return None
    places = range(start + 2, start + 2 + 12 * count, 12)
    return {number(p, 2): (number(p + 2, 2), number(p + 4, 4), number(p + 8, 2)) for p in places}


def _orientation_tiff(orientation: int) -> bytes:
    """A TIFF directory with the orientation tag and nothing else."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2) + b"\0\0"
    return b"MM\0*\x00\x00\x00\x08\x00\x01" + entry + b"\0\0\0\0"


def _orientation_segment(orientation: int) -> bytes:
    if orientation == UPRIGHT:
        return b""
    payload = EXIF_SIGNATURE + _orientation_tiff(orientation)
    return b"\xff\xe1" + (len(payload) + 2).to_bytes(2) + payload
