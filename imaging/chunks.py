"""The chunks of PNG and WebP files, walked without decoding anything."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from core.errors import DataError

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
PNG_END: Final = b"IEND"
RIFF_HEADER: Final = 12


@dataclass(frozen=True, slots=True)
class Chunk:
    """A named chunk; `data[start:end]` is all of it, `data[payload:payload_end]` what it holds."""

    name: bytes
    start: int
    payload: int
    payload_end: int
    end: int


def read_png_chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG up to IEND, checksums not looked at; DataError where it is cut short."""
    if not data.startswith(PNG_SIGNATURE):
        raise DataError("no PNG: it does not begin with the PNG signature")
    place, name = len(PNG_SIGNATURE), b""
    while name != PNG_END:
        length = int.from_bytes(data[place : place + 4])
        name = data[place + 4 : place + 8]
        chunk = Chunk(name, place, place + 8, place + 8 + length, place + 12 + length)
        if chunk.end > len(data):
            raise DataError(f"broken or cut short: the PNG chunk at byte {place} does not fit")
        yield chunk
        place = chunk.end


def check_png_chunk(data: bytes, chunk: Chunk) -> None:
    """DataError when the checksum of a PNG chunk is wrong."""
    stored = int.from_bytes(data[chunk.payload_end : chunk.end])
    if zlib.crc32(data[chunk.start + 4 : chunk.payload_end]) != stored:
        name = chunk.name.decode("ascii", "replace")
        raise DataError(f"damaged: the checksum of the PNG chunk {name} is wrong")


def make_png_chunk(name: bytes, payload: bytes) -> bytes:
    """A PNG chunk with its length and checksum."""
    checksum = zlib.crc32(name + payload)
    return len(payload).to_bytes(4) + name + payload + checksum.to_bytes(4)


def read_png_size(data: bytes) -> tuple[int, int]:
    """Width and height from IHDR."""
    header = _png_header(data)
    return int.from_bytes(header[:4]), int.from_bytes(header[4:8])


def read_png_depth(data: bytes) -> int:
    """Bits per channel from IHDR."""
    return _png_header(data)[8]


def _png_header(data: bytes) -> bytes:
    first = next(read_png_chunks(data))
    if first.name != b"IHDR" or first.payload_end - first.payload != 13:
        raise DataError("broken: the PNG does not begin with its header")
    return data[first.payload : first.payload_end]


def read_webp_chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a WebP up to where its header ends it; DataError where it is cut short."""
    end = webp_end(data)
    place = RIFF_HEADER
    while place + 8 <= end:
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        payload_end = place + 8 + length
        if payload_end > end:
            raise DataError(f"broken or cut short: the WebP chunk at byte {place} does not fit")
        yield Chunk(
            data[place : place + 4], place, place + 8, payload_end, payload_end + length % 2
        )
        place = payload_end + length % 2


def webp_end(data: bytes) -> int:
    """Where a WebP file ends by its own header."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise DataError(f"cut short: {len(data)} bytes of the {end} that the WebP header names")
    return end


def make_webp_chunk(name: bytes, payload: bytes) -> bytes:
    """A RIFF chunk, padded to an even length."""
    return name + len(payload).to_bytes(4, "little") + payload + b"\0" * (len(payload) % 2)


def read_webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas from the first chunk."""
    for chunk in read_webp_chunks(data):
        payload = data[chunk.payload : chunk.payload_end]
        if chunk.name == b"VP8X" and len(payload) >= 10:
            return _little(payload[4:7]) + 1, _little(payload[7:10]) + 1
        if chunk.name == b"VP8 " and payload[3:6] == b"\x9d\x01\x2a" and len(payload) >= 10:
            return _low14(_little(payload[6:8])), _low14(_little(payload[8:10]))
        if chunk.name == b"VP8L" and payload[:1] == b"\x2f" and len(payload) >= 5:
            bits = _little(payload[1:5])
            return _low14(bits) + 1, _low14(bits >> 14) + 1
        break
    raise DataError("broken: the WebP header cannot be read")


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _low14(bits: int) -> int:
    return bits & 0x3FFF
