"""Near-duplicates: clusters of pictures whose perceptual hashes differ in few bits.

Complete for its distance without comparing all pairs: of two hashes at most 7 bits apart, one of
their four 16-bit bands differs in at most one bit, so each band is looked up as it is and with each
of its bits flipped (multi-index hashing: M. Norouzi, A. Punjani, D. J. Fleet, "Fast Search in
Hamming Space with Multi-Index Hashing", CVPR 2012, section 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from imaging.hashes import FLAT

Hashes = NDArray[np.uint64]
Indices = NDArray[np.intp]

BANDS: Final = 4
BAND_BITS: Final = 16
MAX_DISTANCE: Final = 2 * BANDS - 1
"""the search is complete up to here"""
NEAR: Final = 6
"""bits in which two versions of one picture may differ: half size, JPEG down to quality 30, 1 %
cropped off. Crops of different photographs of the demo differ in 8 or more."""
QUERIES_AT_ONCE: Final = 1024


class Clusters:
    """Clusters of near-duplicates that grow: images are added, none is taken out.

    Images within `distance` bits of each other share a cluster, and so do those connected through
    others. A cluster is named by the smallest image id in it, so the order in which images are
    added does not matter. Flat pictures stay alone.
    """

    def __init__(self, known: Sequence[tuple[str, str, str]] = (), *, distance: int = NEAR) -> None:
        """`known`: image id, hash and cluster of images that were added and named before."""
        if not 0 <= distance <= MAX_DISTANCE:
            raise ValueError(f"distance must be 0..{MAX_DISTANCE}, not {distance}")
        self.distance = distance
        self.cluster_of: dict[str, str] = {}
        self._ids: list[str] = []
        self._hashes = to_integers([])
        self._members: dict[str, list[str]] = {}
        self._append({image_id: phash for image_id, phash, _ in known})
        for image_id, _, cluster in known:
            self._join(image_id, cluster if cluster in self.cluster_of else image_id)

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, images: Mapping[str, str]) -> dict[str, str]:
        """Add hashes by image id; the clusters of the new images and of those that got another."""
        new = {i: phash for i, phash in images.items() if i not in self.cluster_of}
        first_new = len(self._ids)
        self._append(new)
        moved = set(new)
        for query, other in near_pairs(
            self._hashes, first_new=first_new, distance=self.distance
        ).tolist():
            moved.update(self._join(self._ids[query], self._ids[other]))
        return {image_id: self.cluster_of[image_id] for image_id in sorted(moved)}

    def _append(self, images: Mapping[str, str]) -> None:
        self._ids.extend(images)
        self._hashes = np.concatenate([self._hashes, to_integers(list(images.values()))])
        for image_id in images:
            self.cluster_of[image_id] = image_id
            self._members[image_id] = [image_id]

    def _join(self, first: str, second: str) -> list[str]:
        """Make one cluster of two; returns the images whose cluster has another name now."""
        kept, gone = sorted((self.cluster_of[first], self.cluster_of[second]))
        if kept == gone:
            return []
        moved = self._members.pop(gone)
        self._members[kept].extend(moved)
        self.cluster_of.update(dict.fromkeys(moved, kept))
        return moved


def to_integers(hashes: Sequence[str]) -> Hashes:
    """16 hexadecimal digits each, as unsigned 64-bit integers."""
    return np.array([int(phash, 16) for phash in hashes], dtype=np.uint64)


def near_pairs(hashes: Hashes, *, first_new: int = 0, distance: int = NEAR) -> Indices:
    """Pairs of indices within `distance` bits, shape (pairs, 2), enough of them to connect all.

    Pairs among the hashes before `first_new` are not looked for. Equal hashes are chained rather
    than paired all with all. Hashes of flat pictures are passed over.
    """
    usable = np.flatnonzero(hashes != np.uint64(int(FLAT, 16)))
    values, first, inverse = np.unique(hashes[usable], return_index=True, return_inverse=True)
    twins = np.column_stack([usable, usable[first[inverse]]])
    fresh = np.unique(inverse[usable >= first_new])
    near = [usable[first[pairs]] for pairs in _search(values, fresh, distance)]
    return np.concatenate([twins[twins[:, 0] != twins[:, 1]], *near])


def _search(values: Hashes, queries: Indices, distance: int) -> Iterator[Indices]:
    """Pairs of each of `queries` with other `values` (all different) within `distance`."""
    probes = [np.uint16(0), *(np.uint16(1 << bit) for bit in range(BAND_BITS))]
    for band in range(BANDS):
        keys = (values >> np.uint64(BAND_BITS * band)).astype(np.uint16)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for start in range(0, len(queries), QUERIES_AT_ONCE):
            portion = queries[start : start + QUERIES_AT_ONCE]
            for probe in probes:
                query, other = _look_up(portion, keys[portion] ^ probe, order, ordered)
                near = np.bitwise_count(values[query] ^ values[other]) <= distance
                chosen = near & (query != other)
                yield np.column_stack([query[chosen], other[chosen]])


def _look_up(
    queries: Indices, wanted: NDArray[np.uint16], order: Indices, ordered: NDArray[np.uint16]
) -> tuple[Indices, Indices]:
    """Each query beside every index whose key is the wanted one; `ordered` are the keys sorted."""
    start = np.searchsorted(ordered, wanted, "left")
    count = np.searchsorted(ordered, wanted, "right") - start
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    return np.repeat(queries, count), order[np.repeat(start, count) + within]
