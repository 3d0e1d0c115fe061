"""What a JPEG file says about itself: segments, size, quality and chroma subsampling."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import DataError

Table = NDArray[np.int64]
"""64 quantisation steps in zigzag order"""

SOI, EOI, SOS, DQT, DHT, DAC, COM = 0xD8, 0xD9, 0xDA, 0xDB, 0xC4, 0xCC, 0xFE
JPG_RESERVED = 0xC8
FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {DHT, JPG_RESERVED, DAC}
TABLES_AND_SCANS: Final = frozenset((SOS, DQT, DHT, DAC, EOI, *range(0xDC, 0xE0)))
PICTURE: Final = FRAMES | TABLES_AND_SCANS
"""markers of the segments that decide the pixels"""
WITHOUT_LENGTH: Final = frozenset((0x01, *range(0xD0, 0xD8), SOI, EOI))
END_OF_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")

# ITU-T T.81, tables K.1 and K.2, in zigzag order as they stand in a file
LUMINANCE: Final = (
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37,
    29, 40, 58, 51, 61, 60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81,
    87, 95, 98, 103, 104, 103, 62, 77, 113, 121, 112, 100, 120, 92, 101, 103, 99,
)  # fmt: skip
CHROMINANCE: Final = (
    17, 18, 18, 24, 21, 24, 47, 26, 26, 47, 99, 66, 56, 66, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
    99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99, 99,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Segment:
    """One marker: `data[start:end]` holds it, its length, its payload and, after SOS, the scan."""

    marker: int
    start: int
    payload: int
    """where the payload begins"""
    end: int


@dataclass(frozen=True, slots=True)
class Frame:
    """The frame header: size as stored; sampling factors (horizontal, vertical) by component."""

    width: int
    height: int
    sampling: tuple[tuple[int, int], ...]


def read_segments(data: bytes) -> Iterator[Segment]:
    """The segments from SOI to EOI (both included); bytes between and after them are no segment.

    A file that ends without EOI ends without it here too; whether pixels are missing is for the
    decoder to say. DataError when a segment runs past the end of the file.
    """
    if not data.startswith(b"\xff\xd8"):
        raise DataError("no JPEG: it does not begin with the start marker")
    yield Segment(SOI, 0, 2, 2)
    place = 2
    while (segment := _next_segment(data, place)) is not None:
        yield segment
        if segment.marker == EOI:
            return
        place = segment.end


def _next_segment(data: bytes, place: int) -> Segment | None:
    """The first segment at or after `place`; stray and fill bytes are passed over."""
    found = END_OF_SCAN.search(data, place)
    if found is None:
        return None
    start, marker = found.start(), data[found.start() + 1]
    if marker in WITHOUT_LENGTH:
        return Segment(marker, start, start + 2, start + 2)
    length = int.from_bytes(data[start + 2 : start + 4])
    end = start + 2 + length
    if length < 2 or end > len(data):
        raise DataError(f"broken or cut short: the JPEG segment at byte {start} does not fit")
    return Segment(marker, start, start + 4, _end_of_scan(data, end) if marker == SOS else end)


def _end_of_scan(data: bytes, place: int) -> int:
    found = END_OF_SCAN.search(data, place)
    return found.start() if found else len(data)


def read_frame(data: bytes) -> Frame:
    """The frame header of a JPEG; DataError where there is none."""
    for segment in read_segments(data):
        if segment.marker in FRAMES:
            return _parse_frame(data[segment.payload : segment.end])
    raise DataError("broken or cut short: the JPEG has no frame header")


def _parse_frame(payload: bytes) -> Frame:
    if len(payload) < 6 or len(payload) < 6 + 3 * payload[5]:
        raise DataError("broken: the JPEG frame header is too short")
    factors = [payload[7 + 3 * i] for i in range(payload[5])]
    return Frame(
        width=int.from_bytes(payload[3:5]),
        height=int.from_bytes(payload[1:3]),
        sampling=tuple((factor >> 4, factor & 15) for factor in factors),
    )


def subsampling(data: bytes) -> str:
    """`4:4:4`, `4:2:2`, `4:2:0`, `4:4:0`, `4:1:1`, `grey`, or the sampling factors themselves."""
    sampling = read_frame(data).sampling
    if len(sampling) == 1:
        return "grey"
    luma, *chroma = sampling
    names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
    if luma in names and len(chroma) == 2 and set(chroma) == {(1, 1)}:
        return names[luma]
    return " ".join(f"{horizontal}x{vertical}" for horizontal, vertical in sampling)


def read_tables(data: bytes) -> dict[int, Table]:
    """The quantisation tables by their number, in zigzag order; a later definition wins."""
    tables: dict[int, Table] = {}
    for segment in read_segments(data):
        if segment.marker == DQT:
            tables.update(_parse_tables(data[segment.payload : segment.end]))
    return tables


def _parse_tables(payload: bytes) -> Iterator[tuple[int, Table]]:
    while payload:
        size = 128 if payload[0] >> 4 else 64
        if len(payload) < 1 + size:
            raise DataError("broken: a JPEG quantisation table is too short")
        dtype = ">u2" if size == 128 else "u1"
        values = np.frombuffer(payload, dtype, 64, offset=1).astype(np.int64)
        yield payload[0] & 15, values
        payload = payload[1 + size :]


def estimate_quality(data: bytes) -> int | None:
    """The libjpeg quality 1..100 whose tables are nearest; exact for libjpeg's own tables.

    Table 0 counts as luminance and table 1 as chrominance, as all common encoders have them.
    None where the file has no table 0.
    """
    tables = read_tables(data)
    if 0 not in tables:
        return None
    return _nearest_quality(
        tuple(tables[number].tobytes() for number in (0, 1) if number in tables)
    )


@lru_cache(maxsize=1024)
def _nearest_quality(tables: tuple[bytes, ...]) -> int:
    """Of luminance and, where there is one, chrominance; most files have one of a few tables."""
    bases = (LUMINANCE, CHROMINANCE)
    distances = [
        _distances(np.frombuffer(table, np.int64), _scaled_tables(base))
        for table, base in zip(tables, bases, strict=False)
    ]
    return int(sum(distances[1:], start=distances[0]).argmin()) + 1


def _distances(table: Table, standard: NDArray[np.int64]) -> NDArray[np.int64]:
    distances: NDArray[np.int64] = np.abs(standard - table).sum(axis=1, dtype=np.int64)
    return distances


@cache
def _scaled_tables(base: Sequence[int]) -> NDArray[np.int64]:
    """libjpeg's `jpeg_set_quality` (baseline tables) for qualities 1..100, shape (100, 64)."""
    quality = np.arange(1, 101)
    scale = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    scaled = (np.asarray(base)[None, :] * scale[:, None] + 50) // 100
    return scaled.clip(1, 255).astype(np.int64)
