"""64-bit hashes in columns: every choice of a build, and the ids of its rows, come from them.

`scramble` is the finaliser of SplitMix64 (G. L. Steele, D. Lea, C. H. Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014): a bijection on 64 bits whose output bits all depend
on all input bits. Only additions, multiplications and shifts of integers decide, so that every
machine makes the same choices.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from core.ids import DIGEST_CHARACTERS, sha256_text

Numbers = npt.NDArray[np.uint64]
Shorts = npt.NDArray[np.uint16]
Positions = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

AT_ONCE = 32_768
"""numbers that are scrambled together"""
_64_BITS = 2**64 - 1
_ODD = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: steps between counted values"""
_HEX = np.frombuffer(b"".join(b"%02x" % byte for byte in range(256)), dtype="S2")


def scramble(value: Any) -> Any:
    """The finaliser of SplitMix64, on one 64-bit number or on an array of them."""
    if isinstance(value, np.ndarray):
        return _scramble_all(value)
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _64_BITS
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _64_BITS
    return value ^ (value >> 31)


def _scramble_all(values: Numbers) -> Numbers:
    """The same, some at a time: those stay near the processor, so that it takes a third as long."""
    given, scrambled = values.reshape(-1), np.empty(values.shape, dtype=np.uint64)
    all_mixed, scratch = scrambled.reshape(-1), np.empty(min(AT_ONCE, values.size), dtype=np.uint64)
    for first in range(0, len(given), AT_ONCE):
        some, mixed = given[first : first + AT_ONCE], all_mixed[first : first + AT_ONCE]
        shifted = scratch[: len(some)]
        np.right_shift(some, np.uint64(30), out=shifted)
        np.bitwise_xor(some, shifted, out=mixed)
        mixed *= np.uint64(0xBF58476D1CE4E5B9)
        np.right_shift(mixed, np.uint64(27), out=shifted)
        mixed ^= shifted
        mixed *= np.uint64(0x94D049BB133111EB)
        np.right_shift(mixed, np.uint64(31), out=shifted)
        mixed ^= shifted
    return scrambled


def counted(values: Any) -> Numbers:
    """Small numbers, -1 among them, spread over 64 bits."""
    spread: Numbers = (np.asarray(values).astype(np.int64) + 2).astype(np.uint64) * np.uint64(_ODD)
    return spread


def digits_of(name: str) -> int:
    """The 80 bits of an id of content; of any other text the 80 bits that its id would have."""
    try:
        return int(name[-DIGEST_CHARACTERS:], 16)
    except ValueError:
        return int(sha256_text(name)[:DIGEST_CHARACTERS], 16)


def split_digits(names: Iterable[str]) -> tuple[Numbers, Shorts]:
    """The upper 64 and the lower 16 bits of each id."""
    digits = [digits_of(name) for name in names]
    upper = np.array([number >> 16 for number in digits], dtype=np.uint64)
    return upper, np.array([number & 0xFFFF for number in digits], dtype=np.uint16)


def spell_ids(prefix: str, upper: Numbers, lower: Shorts) -> pa.Array:
    """`prefix-` and 20 hexadecimal digits for each pair of upper 64 and lower 16 bits."""
    number, start = len(upper), len(prefix) + 1
    spelt = np.empty((number, start + DIGEST_CHARACTERS), dtype=np.uint8)
    spelt[:, :start] = np.frombuffer(f"{prefix}-".encode(), dtype=np.uint8)
    octets = np.empty((number, 10), dtype=np.uint8)
    octets[:, :8] = upper.astype(">u8").view(np.uint8).reshape(-1, 8)
    octets[:, 8:] = lower.astype(">u2").view(np.uint8).reshape(-1, 2)
    spelt[:, start:] = _HEX[octets].view(np.uint8).reshape(number, DIGEST_CHARACTERS)
    width = spelt.shape[1]
    ends = np.arange(0, (number + 1) * width, width, dtype=np.int32)
    return pa.StringArray.from_buffers(number, pa.py_buffer(ends), pa.py_buffer(spelt))


def fractions(keys: Numbers) -> npt.NDArray[np.float64]:
    """Numbers in (0, 1), the same order as the keys'; exact on every machine."""
    return ((keys >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def by_key(keys: Numbers) -> Positions:
    """Places in ascending order of their keys, equal ones as they are; the same on every machine.

    Numpy sorts numbers several times as fast as it finds their order, so each place is written
    into the low bits of its key; the few keys that agree in all others are put right afterwards.
    """
    low = np.uint64((1 << len(keys).bit_length()) - 1)
    packed = keys & ~low
    packed |= np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & low).astype(np.int64)
    alike = np.flatnonzero((packed[1:] ^ packed[:-1]) <= low)
    if len(alike):
        at = np.union1d(alike, alike + 1)
        order[at] = order[at][np.lexsort((order[at], keys[order[at]]))]
    return order


def ordered(groups: npt.NDArray[np.integer[Any]], keys: Numbers | None = None) -> Positions:
    """Places in the order of their groups (none below 0), then of their keys, then as they are.

    What `numpy.lexsort((keys, groups))` gives, in less than half the time.
    """
    return grouped(np.arange(len(groups)) if keys is None else by_key(keys), groups)


def grouped(order: Positions, groups: npt.NDArray[np.integer[Any]]) -> Positions:
    """Places in some order, those of one group (none below 0) now one after the other.

    Numpy sorts 16 bits by counting.
    """
    for shift in range(0, int(groups.max(initial=0)).bit_length(), 16):
        digits = (groups >> shift if shift else groups).astype(np.uint16)
        order = order[np.argsort(digits[order], kind="stable")]
    return order


def ranks(keys: Numbers) -> Positions:
    """The place of each key in ascending order, from 0."""
    places = np.empty(len(keys), dtype=np.int64)
    places[by_key(keys)] = np.arange(len(keys))
    return places


def lowest(
    keys: npt.NDArray[Any], fit: Mask, number: int, room: npt.NDArray[Any] | None = None
) -> tuple[Positions, Positions]:
    """The lowest keys that fit, at most `number` (and `room`) in each row: rows and columns.

    Keys and `fit` have shape (rows, columns); the answers are ordered by row, then by key.
    """
    if not fit.size:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    top = np.inf if keys.dtype.kind == "f" else np.iinfo(keys.dtype).max
    masked = np.where(fit, keys, top)
    order = np.argsort(masked, axis=1)[:, :number] if number > 1 else masked.argmin(1)[:, None]
    good = np.take_along_axis(fit, order, axis=1)
    if room is not None:
        good &= np.arange(order.shape[1]) < room[:, None]
    rows, places = np.nonzero(good)
    return rows, order[rows, places]
