"""Overlaps: images to be trained on that a benchmark holds too, as they are or nearly so."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeVar

import numpy as np

from core.records import BenchmarkImage, ImageRecord
from imaging.hashes import FLAT
from imaging.neighbours import near_pairs, to_integers

Key = TypeVar("Key")


class Kinship(StrEnum):
    """How an image is related to one of a benchmark; the closest first."""

    EXACT = "exact"
    """the published files are the same, byte for byte"""
    NEAR = "near"
    """the perceptual hashes differ in as few bits as within a near-duplicate cluster"""
    GROUP = "by group"
    """another image of its group is one of the two above: of the same photograph or person"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """An image and the closest image of a benchmark to it."""

    image_id: str
    source: str
    benchmark: str
    kinship: Kinship
    other: str
    """the benchmark's image: its id, or its hash as listed"""
    distance: int | None
    """bits by which the perceptual hashes differ, 0..64; None where that is not known"""

    @property
    def rank(self) -> tuple[int, int, str]:
        """Orders overlaps of one image, the closest first."""
        return list(Kinship).index(self.kinship), self.distance or 0, self.other


def find_overlaps(
    images: Iterable[ImageRecord],
    benchmarks: Iterable[BenchmarkImage],
    *,
    relatives: Iterable[ImageRecord] = (),
) -> list[Overlap]:
    """One overlap for each image and benchmark that have any, by benchmark and closeness.

    `relatives` are images that are not trained on themselves: an image overlaps when one of its
    group does. So do crops of an image whose perceptual hash no longer tells where they are from.
    """
    own = {image.image_id: image for image in images}
    everyone = {image.image_id: image for image in relatives} | own
    listing = _Listing.of(benchmarks, {image.phash for image in everyone.values()})
    closest: dict[tuple[str, str], Overlap] = {}
    in_group: dict[str, dict[str, Overlap]] = defaultdict(dict)
    for image in everyone.values():
        for overlap in listing.overlaps_of(image):
            _keep_closest(closest, (image.image_id, overlap.benchmark), overlap)
            _keep_closest(in_group[image.group], overlap.benchmark, overlap)
    for image in own.values():
        for benchmark, overlap in in_group.get(image.group, {}).items():
            closest.setdefault((image.image_id, benchmark), _of_group(image, overlap))
    found = (overlap for overlap in closest.values() if overlap.image_id in own)
    return sorted(found, key=lambda overlap: (overlap.benchmark, overlap.rank, overlap.image_id))


def _keep_closest(kept: dict[Key, Overlap], key: Key, overlap: Overlap) -> None:
    kept[key] = min(kept.get(key, overlap), overlap, key=lambda each: (each.rank, each.image_id))


def _of_group(image: ImageRecord, overlap: Overlap) -> Overlap:
    return replace(
        overlap,
        image_id=image.image_id,
        source=image.source,
        kinship=Kinship.GROUP,
        distance=None,
    )


@dataclass(frozen=True, slots=True)
class _Listing:
    """Images of benchmarks by their hashes, and which listed hashes are near to one of ours."""

    by_sha256: Mapping[str, list[BenchmarkImage]]
    by_phash: Mapping[str, list[BenchmarkImage]]
    near: Mapping[str, list[tuple[str, int]]]

    @classmethod
    def of(cls, benchmarks: Iterable[BenchmarkImage], ours: Collection[str]) -> _Listing:
        by_sha256, by_phash = defaultdict(list), defaultdict(list)
        for image in benchmarks:
            if image.sha256 is not None:
                by_sha256[image.sha256].append(image)
            if image.phash is not None:
                by_phash[image.phash].append(image)
        return cls(by_sha256, by_phash, near_hashes(ours, by_phash))

    def overlaps_of(self, image: ImageRecord) -> Iterator[Overlap]:
        """All of one image, several of one benchmark among them."""
        for other in self.by_sha256.get(image.original_sha256, ()):
            distance = _distance(image.phash, other.phash) if other.phash else None
            yield _overlap(image, other, Kinship.EXACT, distance)
        for phash, distance in self.near.get(image.phash, ()):
            for other in self.by_phash[phash]:
                yield _overlap(image, other, Kinship.NEAR, distance)


def _overlap(
    image: ImageRecord, other: BenchmarkImage, kinship: Kinship, distance: int | None
) -> Overlap:
    return Overlap(
        image_id=image.image_id,
        source=image.source,
        benchmark=other.benchmark,
        kinship=kinship,
        other=other.name,
        distance=distance,
    )


def _distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def near_hashes(ours: Collection[str], listed: Collection[str]) -> dict[str, list[tuple[str, int]]]:
    """For each of our hashes the listed ones within `NEAR` bits, with the distance.

    Hashes of flat pictures are near to none.
    """
    mine, others = set(ours) - {FLAT}, set(listed) - {FLAT}
    found = {phash: {phash: 0} for phash in mine & others}
    names = sorted(mine | others) if mine and others else []
    is_mine = np.array([name in mine for name in names], dtype=bool)
    is_other = np.array([name in others for name in names], dtype=bool)
    for pairs in near_pairs(to_integers(names)):
        for one, other in (pairs, pairs[::-1]):
            wanted = is_mine[one] & is_other[other]
            for row, column in zip(one[wanted].tolist(), other[wanted].tolist(), strict=True):
                near = found.setdefault(names[row], {})
                near[names[column]] = _distance(names[row], names[column])
    return {phash: sorted(near.items()) for phash, near in found.items()}


def count_by_benchmark(overlaps: Sequence[Overlap]) -> dict[str, Counter[Kinship]]:
    """How many images overlap with each benchmark, and how."""
    counts: dict[str, Counter[Kinship]] = defaultdict(Counter)
    for overlap in overlaps:
        counts[overlap.benchmark][overlap.kinship] += 1
    return dict(sorted(counts.items()))


def overlap_warning(overlaps: Sequence[Overlap]) -> str:
    """One sentence without its full stop, for overlaps in the order of `find_overlaps`."""
    counts = count_by_benchmark(overlaps)
    each = "; ".join(
        f"{name}: " + ", ".join(f"{number:,} {kinship}" for kinship, number in own.items())
        for name, own in counts.items()
    )
    images = len({overlap.image_id for overlap in overlaps})
    return (
        f"{images:,} of the images are in registered benchmarks too ({each}); a model trained on "
        "them scores too well there"
    )
