"""Which images each arm gets: all, a share, a sample, or photographs alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.recipe import Arm, Drafting, parse_model
from core.records import Authenticity, ImageRecord
from generation.arms import images_for
from tests.unit.records import make_image

IMAGES = [
    make_image(f"image {number}", label=list(Authenticity)[number % 2]) for number in range(1000)
]


def drafting(*arms: dict[str, object], seed: int = 1) -> Drafting:
    given_to_all = {"teacher": "rehearsal", "model": "rehearsal", "mode": "acoti"}
    values = [{"name": f"arm {place}", **given_to_all, **arm} for place, arm in enumerate(arms)]
    values_of_all = {"arms": values, "chain_arms": ["arm 0"], "seed": seed}
    return parse_model(values_of_all, Drafting, where="test")


def given_to(
    plan: Drafting,
    arm: Arm,
    images: list[ImageRecord] = IMAGES,
    given: frozenset[str] = frozenset(),
) -> list[str]:
    return [image.image_id for image in images_for(arm, images, plan, given=given)]


def test_an_arm_without_share_gets_all_images() -> None:
    plan = drafting({}, {"share": 1}, {"share": 1})
    assert given_to(plan, plan.arms[0]) == [image.image_id for image in IMAGES]


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=4), st.integers(0, 99))
def test_each_image_goes_to_exactly_one_of_the_arms_that_share(
    shares: list[float], seed: int
) -> None:
    plan = drafting(*({"share": share} for share in shares), seed=seed)
    counts = Counter(name for arm in plan.arms for name in given_to(plan, arm, IMAGES[:50]))
    assert counts == {image.image_id: 1 for image in IMAGES[:50]}


def test_shares_are_about_as_large_as_asked() -> None:
    plan = drafting({"share": 3}, {"share": 1})
    assert 700 < len(given_to(plan, plan.arms[0])) < 800


def test_further_images_move_none() -> None:
    plan = drafting({"share": 1}, {"share": 1})
    for arm in plan.arms:
        before = given_to(plan, arm, IMAGES[::3])
        assert set(before) <= set(given_to(plan, arm))


def test_another_seed_shares_otherwise() -> None:
    plans = [drafting({"share": 1}, {"share": 1}, seed=seed) for seed in (1, 2)]
    assert given_to(plans[0], plans[0].arms[0]) != given_to(plans[1], plans[1].arms[0])


def test_a_sample_holds_so_many_and_keeps_what_was_given_before() -> None:
    plan = drafting({"sample": 20})
    first = given_to(plan, plan.arms[0], IMAGES[:100])
    assert len(first) == 20
    assert first == given_to(plan, plan.arms[0], IMAGES[:100], frozenset(first))
    assert set(given_to(plan, plan.arms[0], IMAGES, frozenset(first))) == set(first)
    elsewhere = given_to(plan, plan.arms[0], IMAGES[100:], frozenset(first[:15]))
    assert len(elsewhere) == 5


def test_a_sample_larger_than_the_collection_is_the_collection() -> None:
    plan = drafting({"sample": 5000})
    assert len(given_to(plan, plan.arms[0])) == len(IMAGES)


def test_a_control_gets_photographs_alone() -> None:
    plan = drafting({}, {"control": True, "sample": 30})
    chosen = images_for(plan.arms[1], IMAGES, plan, given=())
    assert len(chosen) == 30
    assert {image.label for image in chosen} == {Authenticity.REAL}


def test_a_control_takes_no_share() -> None:
    with pytest.raises(ConfigError, match="is a control: it takes no share"):
        drafting({}, {"control": True, "share": 1})


def test_names_of_arms_differ() -> None:
    with pytest.raises(ConfigError, match="names of arms must differ: main"):
        drafting({"name": "main"}, {"name": "main"})
