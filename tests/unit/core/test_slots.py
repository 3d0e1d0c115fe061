"""Which images fill the slots of the exemplar set."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.records import Authenticity
from core.slots import SlotImage, fill_slots

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
NAMES = ["anatomy", "edge", "texture", "theme"]


def image(name: str, *categories: str, **changes: object) -> SlotImage:
    values = {
        "image_id": name,
        "draft_id": f"draft-{name}",
        "label": FAKE,
        "generator": "sim-nearest",
        "kin": frozenset({name}),
        "categories": frozenset(categories),
    }
    return SlotImage(**{**values, **changes})  # type: ignore[arg-type]


def names(images: list[SlotImage]) -> set[str]:
    return {each.image_id for each in images}


def test_rare_categories_come_first() -> None:
    pool = [image("a", "edge"), image("b", "edge"), image("c", "edge", "theme"), image("d", "edge")]
    chosen = fill_slots(pool, {FAKE: 1}, filled=[], seed=1)
    assert names(chosen) == {"c"}
    further = fill_slots([*pool, image("e", "anatomy")], {FAKE: 1}, filled=chosen, seed=1)
    assert names(further) == {"e"}


def test_equally_good_images_come_from_different_generators() -> None:
    pool = [image(str(n), "edge", generator="one") for n in range(9)]
    pool.append(image("other", "edge", generator="two"))
    chosen = fill_slots(pool, {FAKE: 2}, filled=[], seed=1)
    assert {each.generator for each in chosen} == {"one", "two"}


def test_an_image_without_a_trace_describes_nothing() -> None:
    assert fill_slots([image("a")], {FAKE: 1}, filled=[], seed=1) == []


images = st.lists(
    st.builds(
        SlotImage,
        image_id=st.uuids().map(str),
        draft_id=st.just("draft"),
        label=st.sampled_from(Authenticity),
        generator=st.sampled_from(["one", "two", None]),
        kin=st.sets(st.integers(0, 8).map(str), min_size=1, max_size=2).map(frozenset),
        categories=st.sets(st.sampled_from(NAMES)).map(frozenset),
    ),
    max_size=12,
    unique_by=lambda each: each.image_id,
)


@given(images, st.integers(0, 5), st.integers(0, 5), st.integers(0, 3))
def test_slots_are_filled_once_and_never_by_kin(
    pool: list[SlotImage], fake: int, real: int, num_filled: int
) -> None:
    filled, candidates = pool[:num_filled], pool[num_filled:]
    free = {FAKE: fake, REAL: real}
    chosen = fill_slots(candidates, free, filled=filled, seed=1)
    assert fill_slots(reversed(candidates), free, filled=filled, seed=1) == chosen
    counts = Counter(each.label for each in chosen)
    assert all(counts[label] <= free[label] for label in Authenticity)
    kin = [name for each in chosen for name in each.kin]
    assert len(kin) == len(set(kin))
    assert not set(kin) & {name for each in filled for name in each.kin}
    left = [each for each in candidates if each not in chosen and each.categories]
    others = (*filled, *chosen)
    for each in left:  # it stays out because the slots are full, or because of its kin
        assert counts[each.label] == free[each.label] or any(each.kin & one.kin for one in others)
