"""Overlaps with benchmarks: exact, near, through a group; nothing else, however large the list."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.records import BenchmarkImage, ImageRecord
from imaging.hashes import FLAT
from imaging.neighbours import NEAR
from imaging.overlaps import (
    Kinship,
    Overlap,
    count_by_benchmark,
    find_overlaps,
    near_hashes,
    overlap_warning,
)
from tests.unit.records import make_image


def entry(image: ImageRecord, *, benchmark: str = "bench", flips: int = 0) -> BenchmarkImage:
    """The image as a benchmark lists it; with `flips`, saved again so that so many bits differ."""
    phash = f"{int(image.phash, 16) ^ ((1 << flips) - 1):016x}"
    other = make_image(f"{image.image_id} again")
    return BenchmarkImage(
        benchmark=benchmark,
        name=other.image_id,
        sha256=other.original_sha256 if flips else image.original_sha256,
        phash=phash,
    )


def kinships(found: list[Overlap]) -> list[tuple[str, Kinship, int | None]]:
    return [(overlap.image_id, overlap.kinship, overlap.distance) for overlap in found]


IMAGES = [make_image(f"image {n}") for n in range(20)]


def test_an_exact_copy_is_found_by_the_hash_of_the_file_alone() -> None:
    listed = replace(entry(IMAGES[3]), phash=None)
    assert kinships(find_overlaps(IMAGES, [listed])) == [(IMAGES[3].image_id, Kinship.EXACT, None)]


@pytest.mark.parametrize("flips", range(1, NEAR + 1))
def test_a_near_duplicate_is_found_by_the_perceptual_hash_alone(flips: int) -> None:
    listed = replace(entry(IMAGES[3], flips=flips), sha256=None)
    expected = [(IMAGES[3].image_id, Kinship.NEAR, flips)]
    assert kinships(find_overlaps(IMAGES, [listed])) == expected


def test_beyond_the_distance_nothing_is_found() -> None:
    assert find_overlaps(IMAGES, [entry(IMAGES[3], flips=NEAR + 1)]) == []


def test_the_closest_of_a_benchmark_is_named_once() -> None:
    listed = [entry(IMAGES[3], flips=n) for n in (4, 2, 0)]
    assert kinships(find_overlaps(IMAGES, listed)) == [(IMAGES[3].image_id, Kinship.EXACT, 0)]


def test_each_benchmark_is_told_apart() -> None:
    listed = [entry(IMAGES[3], benchmark="b"), entry(IMAGES[3], benchmark="a", flips=2)]
    found = find_overlaps(IMAGES, listed)
    assert [(each.benchmark, each.kinship) for each in found] == [
        ("a", Kinship.NEAR),
        ("b", Kinship.EXACT),
    ]


def test_images_of_one_group_overlap_together() -> None:
    images = [replace(image, group=f"photograph {n // 2}") for n, image in enumerate(IMAGES)]
    found = find_overlaps(images, [entry(images[4], flips=1)])
    assert kinships(found) == [
        (images[4].image_id, Kinship.NEAR, 1),
        (images[5].image_id, Kinship.GROUP, None),
    ]


def test_an_image_overlaps_through_a_relative_that_is_not_trained_on() -> None:
    parent = replace(make_image("parent"), group=IMAGES[7].group)
    found = find_overlaps(IMAGES, [entry(parent)], relatives=[parent])
    assert kinships(found) == [(IMAGES[7].image_id, Kinship.GROUP, None)]


def test_flat_pictures_are_near_to_nothing() -> None:
    flat = replace(IMAGES[0], phash=FLAT)
    listed = BenchmarkImage(benchmark="b", name="x", sha256=None, phash=FLAT)
    assert find_overlaps([flat], [listed]) == []


def test_without_benchmarks_nothing_is_found() -> None:
    assert find_overlaps(IMAGES, []) == []
    assert find_overlaps([], [entry(IMAGES[0])]) == []


def test_neither_order_decides_anything() -> None:
    listed = [entry(image, flips=n % 9) for n, image in enumerate(IMAGES)]
    found = find_overlaps(IMAGES, listed)
    assert len(found) > 10
    assert found == find_overlaps(IMAGES[::-1], listed[::-1])


HASHES = st.integers(1, 2**64 - 1).map(lambda value: f"{value:016x}")


@given(st.lists(HASHES, max_size=8), st.lists(HASHES, max_size=8), st.randoms())
def test_near_hashes_are_those_that_comparing_all_pairs_finds(
    ours: list[str], listed: list[str], chance: random.Random
) -> None:
    for value in ours:
        flips = chance.sample(range(64), chance.randint(0, 8))
        listed.append(f"{int(value, 16) ^ sum(1 << bit for bit in flips):016x}")
    listed = [value for value in listed if value != FLAT]
    found = near_hashes(ours, listed)
    assert {mine: sorted(others) for mine, others in found.items()} == {
        mine: sorted((other, distance(mine, other)) for other in near)
        for mine in set(ours)
        if (near := {other for other in listed if distance(mine, other) <= NEAR})
    }


def distance(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_the_warning_counts_images_and_names_benchmarks() -> None:
    listed = [
        entry(IMAGES[0], benchmark="one"),
        entry(IMAGES[1], benchmark="one", flips=1),
        entry(IMAGES[1], benchmark="two"),
    ]
    found = find_overlaps(IMAGES, listed)
    assert count_by_benchmark(found)["one"] == {Kinship.EXACT: 1, Kinship.NEAR: 1}
    warning = overlap_warning(found)
    assert warning.startswith("2 of the images are in registered benchmarks too")
    assert "one: 1 exact, 1 near; two: 1 exact" in warning
