"""Masks in the run-length format of Label Studio's brush, both ways.

The format is rle-pack (github.com/thi-ng/umbrella) over the pixels as red, green, blue and alpha,
row by row. Bits: 32 number of values, 5 size of a value - 1, 4 x 4 sizes of a length - 1; then
blocks of 1 whether a value is repeated, 2 which size of a length, length - 1, value or values.
Label Studio's own reader comes with pins that exclude ours (docs/adr/0004-one-environment.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from core.records import Mask

CHANNELS: Final = 4
"""red, green, blue, alpha; the last one says what is marked"""
HALF: Final = 128
"""a pixel that a round brush covers to the half or more is marked"""
VALUE_BITS: Final = 8
LENGTH_BITS: Final = (3, 4, 8, 16)
LONGEST: Final = 1 << LENGTH_BITS[-1]
HEADER_BITS: Final = 32 + 5 + 4 * len(LENGTH_BITS)


def encode(mask: Mask) -> list[int]:
    """The bytes that Label Studio shows as this mask."""
    pixels = pixels_of(mask).reshape(-1)
    starts = np.flatnonzero(np.diff(pixels, prepend=~pixels[:1]))
    bits = [f"{CHANNELS * pixels.size:032b}", f"{VALUE_BITS - 1:05b}"]
    bits += [f"{size - 1:04b}" for size in LENGTH_BITS]
    for start, end in pairwise([*starts.tolist(), pixels.size]):
        bits += _blocks(CHANNELS * (end - start), 255 if pixels[start] else 0)
    packed = "".join(bits)
    padded = packed.ljust(-(-len(packed) // 8) * 8, "0")
    return list(int(padded, 2).to_bytes(len(padded) // 8, "big"))


def decode(rle: Sequence[int], width: int, height: int) -> npt.NDArray[np.bool_]:
    """The marked pixels, (height, width); ValueError for what is no mask of this size."""
    data = bytes(rle)
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    total = CHANNELS * width * height
    header = (f"{total:032b}", f"{VALUE_BITS - 1:05b}")
    if len(bits) < HEADER_BITS or not bits.startswith("".join(header)):
        raise ValueError(f"no mask of {width} x {height} pixels")
    sizes = [int(bits[at : at + 4], 2) + 1 for at in range(37, HEADER_BITS, 4)]
    values, done, at = np.zeros(total, np.uint8), 0, HEADER_BITS
    while done < total:
        is_run, size = bits[at : at + 1] == "1", sizes[int(bits[at + 1 : at + 3], 2)]
        at += 3
        length = int(bits[at : at + size], 2) + 1
        at += size
        end = at + VALUE_BITS * (1 if is_run else length)
        if end > len(bits) or done + length > total:
            raise ValueError("the runs of a mask do not add up")
        read = [int(bits[i : i + VALUE_BITS], 2) for i in range(at, end, VALUE_BITS)]
        values[done : done + length] = read  # one value, repeated, or one for each place
        done, at = done + length, end
    return values.reshape(height, width, CHANNELS)[:, :, -1] >= HALF


def mask_of(pixels: npt.NDArray[np.bool_]) -> Mask | None:
    """The mask of marked pixels, (height, width); None where nothing is marked."""
    if not pixels.any():
        return None
    height, width = pixels.shape
    down = pixels.T.reshape(-1)
    changes = np.flatnonzero(down[1:] != down[:-1]) + 1
    counts = np.diff([0, *([0] if down[0] else []), *changes.tolist(), down.size])
    return Mask(width=width, height=height, counts=tuple(counts.tolist()))


def pixels_of(mask: Mask) -> npt.NDArray[np.bool_]:
    """The marked pixels of a mask, (height, width)."""
    marked = np.arange(len(mask.counts)) % 2 == 1
    return np.repeat(marked, mask.counts).reshape(mask.width, mask.height).T


def _blocks(length: int, value: int) -> Iterator[str]:
    """So many equal values, in as many blocks as the longest length asks for."""
    while length > 0:
        part = min(length, LONGEST)
        size = next(n for n, bits in enumerate(LENGTH_BITS) if part <= 1 << bits)
        yield f"1{size:02b}{part - 1:0{LENGTH_BITS[size]}b}{value:0{VALUE_BITS}b}"
        length -= part
