"""Near-duplicates: clusters of pictures whose perceptual hashes differ in few bits.

Complete for its distance without comparing all pairs, in two ways:

* A few new hashes are looked up in an index. Of two hashes at most 7 bits apart, one of their four
  16-bit bands differs in at most one bit, so each band is looked up as it is and with each of its
  bits flipped (multi-index hashing: M. Norouzi, A. Punjani, D. J. Fleet, "Fast Search in Hamming
  Space with Multi-Index Hashing", CVPR 2012, section 3).
* Many hashes are compared with each other at once. Of nine blocks, at most six hold a bit in which
  two such hashes differ, so they agree in three whole blocks: sorted by each three of the nine
  blocks, both stand in one run of equal keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from imaging.hashes import FLAT

Hashes = NDArray[np.uint64]
Indices = NDArray[np.integer[Any]]
Pairs = tuple[Indices, Indices]
"""first and second member of each pair"""
Known = tuple[str, str, str]
"""image id, hash and cluster of an image"""

NEAR: Final = 6
"""bits in which two versions of one picture may differ: half size, JPEG down to quality 30, 1 %
cropped off. Crops of different photographs of the demo differ in 8 or more."""
BANDS: Final = 4
BAND_BITS: Final = 16
AGREEING: Final = 3
BLOCKS: Final = (*((7 * number, 7) for number in range(NEAR + AGREEING - 1)), (56, 8))
"""first bit and number of bits: one block for each bit that may differ, and those that agree"""
PLACE_BITS: Final = 32
"""of a sorted word, below the key"""
MANY: Final = 20_000
"""so many new hashes are compared all at once rather than looked up"""
FEW: Final = 4096
"""so many hashes are compared one by one before they are sorted into bands"""
AT_ONCE: Final = 512
"""queries in one step, which bounds the memory that it takes"""
ID_BYTES: Final = 24
ALONE: Final = np.uint64(int(FLAT, 16))


@dataclass(frozen=True, slots=True)
class Joined:
    """What new images did to the clusters."""

    cluster_of: dict[str, str]
    """of the new images"""
    renamed: dict[str, str]
    """new name of each cluster that was there and has another name now"""


class Clusters:
    """Clusters of near-duplicates that grow: images are added, none is taken out.

    Images within `NEAR` bits of each other share a cluster, and so do those connected through
    others. A cluster is named by the smallest image id in it, so the order in which images are
    added does not matter. Flat pictures stay alone. Some 60 bytes are held for each image.
    """

    def __init__(self, known: Iterable[Sequence[Known]] = ()) -> None:
        """`known`: images that were added and named before, in portions, ordered by image id."""
        portions = [_pack(portion) for portion in known] or [_pack([])]
        self._ids = np.concatenate([ids for ids, _, _ in portions])
        names = np.concatenate([names for _, _, names in portions])
        _, first, inverse = np.unique(names, return_index=True, return_inverse=True)
        self._root = first[inverse].astype(np.int32)
        """place of the image that names the cluster of each image"""
        hashes = np.concatenate([hashes for _, hashes, _ in portions])
        values, places, (one, other) = _distinct(hashes, first_place=0)
        self._index = _Index(values, places)
        is_apart = self._root[one] != self._root[other]
        self._twins = one[is_apart], other[is_apart]
        """pairs of equal hashes that are not in one cluster yet"""

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, images: Mapping[str, str]) -> Joined:
        """Add hashes by image id; none of the images may be there already."""
        before = len(self)
        named = np.flatnonzero(self._root == np.arange(before))
        ids, hashes, _ = _pack([(image_id, phash, "") for image_id, phash in images.items()])
        self._ids = np.concatenate([self._ids, ids])
        self._root = np.concatenate([self._root, np.arange(before, len(self), dtype=np.int32)])
        values, places, twins = _distinct(hashes, first_place=before)
        for pairs in chain([twins], self._index.add(values, places)):
            self._join(pairs)
        names = self._decode(self._root[before:])
        return Joined(dict(zip(images, names, strict=True)), self._renamed(named))

    def search_all(self) -> dict[str, str]:
        """Search among the images that are there; the new names of clusters that were joined."""
        named = np.flatnonzero(self._root == np.arange(len(self)))
        for pairs in chain([self._twins], self._index.near()):
            self._join(pairs)
        return self._renamed(named)

    def _join(self, pairs: Pairs) -> None:
        """Make one cluster of each two."""
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        roots, ends = np.unique(self._root[np.stack(pairs)], return_inverse=True)
        one, other = ends.reshape(2, -1)
        graph = coo_array((np.ones(len(one), bool), (one, other)), (len(roots), len(roots)))
        _, part = connected_components(graph, directed=False)
        by_name = np.argsort(self._ids[roots])
        _, least = np.unique(part[by_name], return_index=True)
        new_root = np.arange(len(self), dtype=np.int32)
        new_root[roots] = roots[by_name[least]][part]
        self._root = new_root[self._root]

    def _renamed(self, named: Indices) -> dict[str, str]:
        """New names of the clusters that were named by the images at these places."""
        gone = named[self._root[named] != named]
        return dict(zip(self._decode(gone), self._decode(self._root[gone]), strict=True))

    def _decode(self, places: Indices) -> list[str]:
        return [image_id.decode() for image_id in self._ids[places].tolist()]


class _Index:
    """Different hashes, each with the place of one image that has it."""

    def __init__(self, values: Hashes, places: Indices) -> None:
        self._values = values
        self._places = places.astype(np.int32)
        self._sort()

    def _sort(self) -> None:
        self._bands = [_Band(self._values, BAND_BITS * number) for number in range(BANDS)]
        self._sorted = len(self._values)
        """so many of the values are in the bands; those after them are compared one by one"""

    def add(self, values: Hashes, places: Indices) -> Iterator[Pairs]:
        """Take in different values; the places of enough pairs to connect all that are near."""
        return (self._add_many if len(values) > MANY else self._add_few)(values, places)

    def _add_few(self, values: Hashes, places: Indices) -> Iterator[Pairs]:
        query, known = _concatenate(list(self._look_up(values)))
        one, other = _compare(values, values)
        is_there = np.zeros(len(values), bool)
        is_there[query[self._values[known] == values[query]]] = True
        yield places[query], self._places[known]
        yield places[one], places[other]
        self._values = np.concatenate([self._values, values[~is_there]])
        self._places = np.concatenate([self._places, places[~is_there].astype(np.int32)])
        if len(self._values) - self._sorted > FEW:
            self._sort()

    def _look_up(self, values: Hashes) -> Iterator[Pairs]:
        """Which of `values` is near which of those that are there."""
        query, other = _compare(values, self._values[self._sorted :])
        yield query, other + self._sorted
        for band in self._bands:
            for query, other in band.candidates(values):
                is_near = np.bitwise_count(values[query] ^ self._values[other]) <= NEAR
                yield query[is_near], other[is_near]

    def _add_many(self, values: Hashes, places: Indices) -> Iterator[Pairs]:
        where = np.concatenate([self._places, places])
        merged = np.concatenate([self._values, values])
        self._values, first, inverse = np.unique(merged, return_index=True, return_inverse=True)
        self._places = where[first].astype(np.int32)
        self._sort()
        yield where, self._places[inverse]
        yield from self.near()

    def near(self) -> Iterator[Pairs]:
        """The places of all pairs that are near."""
        for one, other in near_pairs(self._values):
            yield self._places[one], self._places[other]


class _Band:
    """Values sorted by 16 of their bits."""

    def __init__(self, values: Hashes, first_bit: int) -> None:
        self._first_bit = np.uint64(first_bit)
        keys = self._keys(values)
        self._order = np.argsort(keys, kind="stable").astype(np.int32)
        counts = np.bincount(keys, minlength=2**BAND_BITS)
        self._starts = np.concatenate([[0], np.cumsum(counts)])

    def _keys(self, values: Hashes) -> NDArray[np.uint16]:
        return (values >> self._first_bit).astype(np.uint16)

    def candidates(self, values: Hashes) -> Iterator[Pairs]:
        """Each of `values` beside the sorted values whose key differs in at most one bit."""
        probes = [np.uint16(0), *(np.uint16(1 << bit) for bit in range(BAND_BITS))]
        for start in range(0, len(values), AT_ONCE):
            keys = self._keys(values[start : start + AT_ONCE])
            for probe in probes:
                query, other = self._look_up(keys ^ probe)
                yield query + start, other

    def _look_up(self, keys: NDArray[np.uint16]) -> Pairs:
        first = self._starts[keys]
        count = self._starts[keys.astype(np.intp) + 1] - first
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        query = np.repeat(np.arange(len(keys)), count)
        return query, self._order[np.repeat(first, count) + within]


def near_pairs(values: Hashes) -> Iterator[Pairs]:
    """All pairs of indices of `values`, which are all different, within `NEAR` bits.

    A pair may come more than once.
    """
    places = np.arange(len(values), dtype=np.uint64)
    for blocks in combinations(BLOCKS, AGREEING):
        words = _key(values, blocks) << np.uint64(PLACE_BITS) | places
        words.sort()
        keys = (words >> np.uint64(PLACE_BITS)).astype(np.uint32)
        order = words.astype(np.uint32).astype(np.intp)
        yield _concatenate(list(_near_in_runs(values, keys, order)))


def _near_in_runs(values: Hashes, keys: NDArray[np.uint32], order: Indices) -> Iterator[Pairs]:
    """The near ones among the pairs with equal keys; `values[order]` belong to the sorted keys."""
    step = 1
    run = np.flatnonzero(keys[step:] == keys[:-step])
    while len(run):
        one, other = order[run], order[run + step]
        is_near = np.bitwise_count(values[one] ^ values[other]) <= NEAR
        yield one[is_near], other[is_near]
        step += 1
        run = run[run + step < len(keys)]
        run = run[keys[run] == keys[run + step]]


def _key(values: Hashes, blocks: Sequence[tuple[int, int]]) -> Hashes:
    """The bits of some blocks side by side."""
    key = np.zeros_like(values)
    for first_bit, bits in blocks:
        block = values >> np.uint64(first_bit) & np.uint64((1 << bits) - 1)
        key = key << np.uint64(bits) | block
    return key


def _compare(values: Hashes, others: Hashes) -> Pairs:
    """Pairs of indices of all that are near, found by comparing each with each."""
    found = []
    for start in range(0, len(values), AT_ONCE):
        differing = np.bitwise_count(values[start : start + AT_ONCE, None] ^ others)
        one, other = np.nonzero(differing <= NEAR)
        found.append((one + start, other))
    return _concatenate(found)


def _distinct(hashes: Hashes, *, first_place: int) -> tuple[Hashes, Indices, Pairs]:
    """Each hash once, the place of the first image that has it, and the pairs of equal ones.

    Flat pictures are left out.
    """
    usable = np.flatnonzero(hashes != ALONE)
    values, first, inverse = np.unique(hashes[usable], return_index=True, return_inverse=True)
    places = usable + first_place
    return values, places[first], (places, places[first[inverse]])


def _concatenate(pairs: Sequence[Pairs]) -> Pairs:
    empty = np.empty(0, np.intp)
    ones, others = zip(*pairs, strict=True) if pairs else ((empty,), (empty,))
    return np.concatenate(ones), np.concatenate(others)


def _pack(portion: Sequence[Known]) -> tuple[NDArray[np.bytes_], Hashes, NDArray[np.bytes_]]:
    """Ids, hashes and clusters as arrays."""
    ids, hashes, names = zip(*portion, strict=True) if portion else ((), (), ())
    kind = f"S{ID_BYTES}"
    return np.array(ids, dtype=kind), to_integers(hashes), np.array(names, dtype=kind)


def to_integers(hashes: Sequence[str]) -> Hashes:
    """16 hexadecimal digits each, as unsigned 64-bit integers."""
    return np.array([int(phash, 16) for phash in hashes], dtype=np.uint64)
