"""Splits never part what belongs together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.records import ImageRecord, Split
from core.split import FEW_COMPONENTS, SplitPlan, assign_splits, split_components
from tests.unit.records import make_image

PLAN = SplitPlan(train=0.6, val=0.15, test=0.25, seed=1)

places = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=120)


def images_at(pairs: list[tuple[int, int]]) -> list[ImageRecord]:
    return [
        make_image(str(number), group=f"g{group}", cluster=f"c{cluster}")
        for number, (group, cluster) in enumerate(pairs)
    ]


@given(places)
def test_images_that_share_a_group_or_a_cluster_share_a_split(pairs: list[tuple[int, int]]) -> None:
    images = images_at(pairs)
    split_of = assign_splits(images, PLAN)
    for first in images:
        for second in images:
            if first.group == second.group or first.cluster == second.cluster:
                assert split_of[first.image_id] is split_of[second.image_id]


@given(places, st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(pairs, random) -> None:  # type: ignore[no-untyped-def]
    images = images_at(pairs)
    shuffled = random.sample(images, len(images))
    assert assign_splits(images, PLAN) == assign_splits(shuffled, PLAN)


def test_with_few_components_the_shares_are_met_exactly() -> None:
    split_of = split_components([f"photo-{n}" for n in range(20)], PLAN)
    counts = {split: list(split_of.values()).count(split) for split in Split}
    assert counts == {Split.TEST: 5, Split.VAL: 3, Split.TRAIN: 12}


def test_with_many_components_a_split_survives_new_ones() -> None:
    few = [f"photo-{n}" for n in range(FEW_COMPONENTS)]
    before = split_components(few, PLAN)
    after = split_components([*few, *(f"new-{n}" for n in range(500))], PLAN)
    assert {name: after[name] for name in few} == before


def test_another_seed_gives_another_split() -> None:
    names = [f"photo-{n}" for n in range(200)]
    other = SplitPlan(train=0.6, val=0.15, test=0.25, seed=2)
    assert split_components(names, PLAN) != split_components(names, other)


@pytest.mark.parametrize("generator", ["held-out", "seen", None])
def test_held_out_generators_appear_in_the_test_split_only(generator: str | None) -> None:
    plan = SplitPlan(train=0.5, val=0.2, test=0.3, seed=3, holdout_generators=("held-out",))
    images = [make_image(str(n), group=f"g{n}", generator=generator) for n in range(300)]
    splits = set(assign_splits(images, plan).values())
    assert splits == ({Split.TEST} if generator == "held-out" else set(Split))
