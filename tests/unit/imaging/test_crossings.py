"""What splits part: nothing by the recipe's, what belongs together by those that know less."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from core.records import Split
from core.split import SplitPlan
from imaging.crossings import MOST_CROSSINGS, check_splits
from tests.unit.records import make_image

PLAN = SplitPlan(train=0.6, val=0.15, test=0.25, seed=1)


def test_pairs_of_one_group_are_parted_image_by_image_alone() -> None:
    images = [make_image(f"{n}", group=f"photograph {n // 2}") for n in range(400)]
    ours, by_group, by_image = check_splits(images, PLAN)
    assert (ours.groups, ours.exposed, ours.examples) == (0, 0, ())
    assert by_group.groups == 0
    assert 50 < by_image.groups < 200
    assert 0 < by_image.exposed <= by_image.groups
    assert by_image.clusters == 0


def test_near_duplicates_of_two_groups_are_parted_by_group() -> None:
    images = [make_image(f"{n}", cluster=f"cluster {n // 2}") for n in range(400)]
    ours, by_group, by_image = check_splits(images, PLAN)
    assert (ours.groups, ours.clusters, ours.exposed) == (0, 0, 0)
    assert by_group.clusters > 50
    assert by_image.clusters > 50


def test_a_crossing_names_the_images_on_both_sides() -> None:
    images = [make_image(f"{n}", group="one") for n in range(200)]
    crossing = check_splits(images, PLAN)[-1].examples[0]
    assert (crossing.kind, crossing.name) == ("group", "one")
    assert set(crossing.image_ids) == set(Split)
    assert sum(map(len, crossing.image_ids.values())) == 200


def test_examples_are_not_without_end() -> None:
    images = [make_image(f"{n}", group=f"photograph {n // 2}") for n in range(800)]
    by_image = check_splits(images, PLAN)[-1]
    assert by_image.groups > len(by_image.examples) == MOST_CROSSINGS


def test_held_out_generators_outside_the_test_split_are_counted_in_none() -> None:
    plan = replace(PLAN, holdout_generators=("new",))
    images = [
        make_image(f"{n}", generator="new" if n % 2 else "old", group=f"{n}") for n in range(300)
    ]
    ours = check_splits(images, plan)[0]
    assert sum(ours.images.values()) < 300
    assert (ours.groups, ours.clusters) == (0, 0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=40))
def test_the_recipes_split_parts_nothing(drawn: list[tuple[int, int]]) -> None:
    images = [
        make_image(f"{n}", group=f"group {group}", cluster=f"cluster {cluster}")
        for n, (group, cluster) in enumerate(drawn)
    ]
    ours = check_splits(images, PLAN)[0]
    assert (ours.groups, ours.clusters, ours.exposed) == (0, 0, 0)
    assert sum(ours.images.values()) == len(images)
