"""Clusters of near-duplicates: complete, in any order, and never across photographs of the demo."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imaging.decode import open_image
from imaging.hashes import FLAT, perceptual_hash
from imaging.neighbours import NEAR, Clusters, near_pairs, to_integers
from imaging.simulate import GENERATORS, demo_images

CENTRES = (0x0123456789ABCDEF, 0xFFFF0000FFFF0000, 0x8000000000000001)


@st.composite
def hashes(draw: st.DrawFn) -> str:
    """A hash near one of a few centres, so that neighbours are frequent."""
    value = draw(st.sampled_from(CENTRES))
    for bit in draw(st.lists(st.integers(0, 63), max_size=9)):
        value ^= 1 << bit
    return f"{value:016x}"


libraries = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), hashes(), max_size=25)


def compare_all(images: dict[str, str], distance: int) -> dict[str, str]:
    """Clusters by comparing every pair, and again until nothing changes."""
    cluster = {image_id: image_id for image_id in images}
    for _ in images:
        for a, hash_a in images.items():
            for b, hash_b in images.items():
                near = (int(hash_a, 16) ^ int(hash_b, 16)).bit_count() <= distance
                if near and FLAT not in (hash_a, hash_b):
                    cluster[a] = cluster[b] = min(cluster[a], cluster[b])
    return cluster


@settings(deadline=None)
@given(libraries, st.integers(0, 7))
def test_the_search_finds_what_comparing_all_pairs_finds(
    images: dict[str, str], distance: int
) -> None:
    assert Clusters(distance=distance).add(images) == compare_all(images, distance)


@settings(deadline=None)
@given(libraries, st.lists(st.integers(0, 25), max_size=4), st.randoms())
def test_neither_order_nor_portions_matter(images: dict[str, str], cuts: list[int], rng) -> None:  # type: ignore[no-untyped-def]
    names = list(images)
    rng.shuffle(names)
    growing, told = Clusters(), {}
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(names)], strict=True):
        told.update(growing.add({name: images[name] for name in names[start:end]}))
    assert told == growing.cluster_of == Clusters().add(images)


@settings(deadline=None)
@given(libraries, libraries)
def test_known_clusters_can_be_picked_up_again(old: dict[str, str], new: dict[str, str]) -> None:
    before = Clusters().add(old)
    resumed = Clusters([(name, old[name], before[name]) for name in sorted(old)])
    changed = resumed.add({name: new[name] for name in new if name not in old})
    assert before | changed == Clusters().add(new | old)


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.integers(0, 7))
def test_every_near_pair_is_connected(values: list[int], distance: int) -> None:
    near = {
        (a, b)
        for a, x in enumerate(values)
        for b, y in enumerate(values)
        if a < b and (x ^ y).bit_count() <= distance and x and y and x != y
    }
    found = near_pairs(np.array(values, dtype=np.uint64), distance=distance)
    first = {x: values.index(x) for x in values}
    wanted = {tuple(sorted((first[values[a]], first[values[b]]))) for a, b in near}
    assert wanted <= {tuple(sorted(pair)) for pair in found.tolist()}


def test_flat_pictures_stay_alone() -> None:
    assert Clusters().add({"a": FLAT, "b": FLAT}) == {"a": "a", "b": "b"}


def test_nearly_flat_hashes_are_not_drawn_to_flat_ones() -> None:
    assert Clusters().add({"a": FLAT, "b": "0000000000000001"}) == {"a": "a", "b": "b"}


def test_adding_an_image_again_changes_nothing() -> None:
    clusters = Clusters()
    clusters.add({"b": "00000000000000ff"})
    assert clusters.add({"b": "00000000000000ff"}) == {}
    assert len(clusters) == 1


def test_a_smaller_id_renames_its_cluster() -> None:
    clusters = Clusters([("m", "00000000000000ff", "m"), ("n", "00000000000000ff", "m")])
    assert clusters.add({"a": "00000000000000fe"}) == dict.fromkeys("amn", "a")


def test_many_equal_hashes_do_not_cost_all_pairs() -> None:
    equal = to_integers(["00000000000000ff"] * 20_000)
    assert len(near_pairs(equal)) == 19_999


def test_a_distance_beyond_the_search_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.\.7"):
        Clusters(distance=8)


def test_crops_of_different_photographs_of_the_demo_never_share_a_cluster() -> None:
    groups: dict[str, str] = {}
    images: dict[str, str] = {}
    for image in demo_images(
        seed=1,
        crops=480,
        crop_size=128,
        generators=tuple(GENERATORS),
        jpeg_quality=(85, 96),
        holdout=(),
        test_photographs=frozenset(),
    ):
        images[image.name] = perceptual_hash(open_image(image.data).rgb)
        groups[image.name] = image.group
    photographs = defaultdict(set)
    for name, cluster in Clusters(distance=NEAR).add(images).items():
        photographs[cluster].add(groups[name])
    assert len(images) >= 480
    assert all(len(found) == 1 for found in photographs.values())
