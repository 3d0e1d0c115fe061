"""Clusters of near-duplicates: complete, in any order, and never across photographs of the demo."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imaging import neighbours
from imaging.decode import open_image
from imaging.hashes import FLAT, perceptual_hash
from imaging.neighbours import NEAR, Clusters, near_pairs
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


def compare_all(images: dict[str, str]) -> dict[str, str]:
    """Clusters by comparing every pair, and again until nothing changes."""
    cluster = {image_id: image_id for image_id in images}
    for _ in images:
        for a, hash_a in images.items():
            for b, hash_b in images.items():
                near = (int(hash_a, 16) ^ int(hash_b, 16)).bit_count() <= NEAR
                if near and FLAT not in (hash_a, hash_b):
                    cluster[a] = cluster[b] = min(cluster[a], cluster[b])
    return cluster


def grow(portions: Iterable[dict[str, str]]) -> dict[str, str]:
    """The clusters after these images were added one portion after the other."""
    clusters, names = Clusters(), {}
    for portion in portions:
        joined = clusters.add(portion)
        names = {image: joined.renamed.get(name, name) for image, name in names.items()}
        names |= joined.cluster_of
    return names


@pytest.fixture(params=["looked up", "sorted into bands", "compared all at once"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few images are enough to go each of the ways that many take."""
    if request.param == "sorted into bands":
        monkeypatch.setattr(neighbours, "FEW", 0)
    if request.param == "compared all at once":
        monkeypatch.setattr(neighbours, "MANY", 0)


@pytest.mark.usefixtures("way")
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(libraries, st.lists(st.integers(0, 25), max_size=4), st.randoms())
def test_any_portions_in_any_order_end_as_comparing_all_pairs_does(
    images: dict[str, str], cuts: list[int], rng: random.Random
) -> None:
    names = list(images)
    rng.shuffle(names)
    bounds = zip([0, *sorted(cuts)], [*sorted(cuts), len(names)], strict=True)
    portions = [{name: images[name] for name in names[start:end]} for start, end in bounds]
    assert grow(portions) == compare_all(images)


@pytest.mark.usefixtures("way")
@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(libraries, libraries, st.integers(1, 30))
def test_known_clusters_can_be_picked_up_again(
    old: dict[str, str], new: dict[str, str], size: int
) -> None:
    before = grow([old])
    known = [(name, old[name], before[name]) for name in sorted(old)]
    resumed = Clusters(known[start : start + size] for start in range(0, len(known), size))
    assert len(resumed) == len(old)
    joined = resumed.add({name: new[name] for name in new if name not in old})
    names = {image: joined.renamed.get(name, name) for image, name in before.items()}
    assert names | joined.cluster_of == compare_all(new | old)


@settings(deadline=None, max_examples=30)
@given(libraries, libraries)
def test_what_was_clustered_apart_is_joined_by_a_search_among_all(
    here: dict[str, str], there: dict[str, str]
) -> None:
    there = {image: phash for image, phash in there.items() if image not in here}
    names, images = grow([here]) | grow([there]), here | there
    known = [(image, images[image], names[image]) for image in sorted(images)]
    renamed = Clusters([known]).search_all()
    assert {i: renamed.get(name, name) for i, name in names.items()} == compare_all(images)


@settings(deadline=None, max_examples=30)
@given(st.sets(st.integers(0, 2**64 - 1), max_size=60), st.randoms())
def test_every_near_pair_is_found(distinct: set[int], rng: random.Random) -> None:
    flipped = {value ^ sum(1 << bit for bit in rng.sample(range(64), 6)) for value in distinct}
    values = sorted(distinct | flipped)
    near = {
        (a, b)
        for b, y in enumerate(values)
        for a, x in enumerate(values[:b])
        if (x ^ y).bit_count() <= NEAR
    }
    pairs = near_pairs(np.array(values, dtype=np.uint64))
    found = {tuple(sorted(p)) for one, other in pairs for p in zip(one, other, strict=True)}
    assert found == near


def test_flat_pictures_stay_alone() -> None:
    assert grow([{"a": FLAT, "b": FLAT}]) == {"a": "a", "b": "b"}


def test_nearly_flat_hashes_are_not_drawn_to_flat_ones() -> None:
    assert grow([{"a": FLAT}, {"b": "0000000000000001"}]) == {"a": "a", "b": "b"}


def test_a_smaller_id_renames_its_cluster() -> None:
    clusters = Clusters([[("m", "00000000000000ff", "m"), ("n", "00000000000000ff", "m")]])
    joined = clusters.add({"a": "00000000000000fe"})
    assert (joined.cluster_of, joined.renamed) == ({"a": "a"}, {"m": "a"})


def test_many_equal_hashes_do_not_cost_all_pairs() -> None:
    equal = [(f"{number:06}", "00000000000000ff", "000000") for number in range(300_000)]
    joined = Clusters([equal]).add({f"new {number}": "00000000000000ff" for number in range(9)})
    assert set(joined.cluster_of.values()) == {"000000"}
    assert joined.renamed == {}


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
    for name, cluster in grow([images]).items():
        photographs[cluster].add(groups[name])
    assert len(images) >= 480
    assert all(len(found) == 1 for found in photographs.values())
