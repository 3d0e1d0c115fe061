from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from core.guidance import Open, Unlabelled, assign, settle
from core.records import Authenticity, BlindLabel, Confidence, Guidance

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
NAMES = ["clarity", "edge", "texture"]


def label(expert: int, verdict: Authenticity, *categories: str) -> BlindLabel:
    return BlindLabel(
        label_id=f"label-{expert}",
        image_id="img-1",
        expert=f"expert-{expert}",
        version=1,
        verdict=verdict,
        confidence=Confidence.HIGH,
        categories=categories,
    )


def settled(*labels: BlindLabel) -> Guidance | Open:
    return settle("img-1", labels, FAKE, misses=3)


def test_guidance_is_what_two_right_experts_both_chose() -> None:
    found = settled(label(1, FAKE, "texture", "edge"), label(2, FAKE, "edge", "clarity"))
    assert found == Guidance(
        image_id="img-1", categories=("edge",), experts=("expert-1", "expert-2")
    )


def test_two_experts_are_asked_and_one_more_for_each_who_was_wrong() -> None:
    assert settled() == Open(needed=2)
    assert settled(label(1, FAKE, "edge")) == Open(needed=1)
    assert settled(label(1, REAL, "edge"), label(2, FAKE, "edge")) == Open(needed=1)
    assert settled(label(1, REAL), label(2, REAL)) == Open(needed=2)


def test_categories_of_who_was_wrong_do_not_count() -> None:
    found = settled(
        label(1, REAL, "texture"), label(2, FAKE, "texture", "edge"), label(3, FAKE, "edge")
    )
    assert isinstance(found, Guidance)
    assert (found.categories, found.experts) == (("edge",), ("expert-2", "expert-3"))


def test_where_two_have_nothing_in_common_a_third_decides_by_majority() -> None:
    two = (label(1, FAKE, "texture"), label(2, FAKE, "edge", "clarity"))
    assert settled(*two) == Open(needed=1)
    found = settled(*two, label(3, FAKE, "clarity", "texture"))
    assert isinstance(found, Guidance)
    assert found.categories == ("clarity", "texture")


def test_three_who_have_nothing_in_common_settle_for_nothing() -> None:
    found = settled(label(1, FAKE, "texture"), label(2, FAKE, "edge"), label(3, FAKE))
    assert isinstance(found, Guidance)
    assert (found.categories, found.hard) == ((), None)


def test_three_misses_make_an_image_hard() -> None:
    found = settled(label(1, REAL), label(2, FAKE, "edge"), label(3, REAL), label(4, REAL))
    assert isinstance(found, Guidance)
    assert found.hard == "3 experts took it for real, which it is not"


labels = st.lists(
    st.tuples(st.sampled_from(Authenticity), st.sets(st.sampled_from(NAMES))), max_size=8
)


@given(labels)
def test_every_image_is_settled_by_five_experts_at_most(
    said: list[tuple[Authenticity, set[str]]],
) -> None:
    given_labels = [label(n, verdict, *sorted(chosen)) for n, (verdict, chosen) in enumerate(said)]
    found = settled(*given_labels)
    if isinstance(found, Open):
        assert len(given_labels) < 5
        assert found.needed > 0
    else:
        right = {each.expert: set(each.categories) for each in given_labels if each.verdict is FAKE}
        for category in found.categories:
            assert sum(category in right[expert] for expert in found.experts) >= 2


@given(labels)
def test_a_later_label_changes_nothing_that_was_settled(
    said: list[tuple[Authenticity, set[str]]],
) -> None:
    given_labels = [label(n, verdict, *sorted(chosen)) for n, (verdict, chosen) in enumerate(said)]
    first = next(
        (found for end in range(len(said) + 1)
         if isinstance(found := settled(*given_labels[:end]), Guidance)),
        None,
    )  # fmt: skip
    if first is not None and not first.hard:
        last = settled(*given_labels)
        assert isinstance(last, Guidance)
        assert last.hard or last == first


images = st.lists(
    st.builds(
        Unlabelled,
        image_id=st.uuids().map(str),
        needed=st.integers(1, 3),
        taken_by=st.frozensets(st.sampled_from(["a", "b", "c", "d"]), max_size=2),
    ),
    max_size=30,
    unique_by=lambda image: image.image_id,
)


@given(images, st.sets(st.sampled_from(["a", "b", "c", "d", "e"]), min_size=1))
def test_nobody_labels_an_image_twice_and_nobody_has_much_more_than_others(
    unlabelled: list[Unlabelled], experts: set[str]
) -> None:
    found = assign(unlabelled, experts, load={}, seed=1)
    assert assign(reversed(unlabelled), experts, load={}, seed=1) == found
    counts = Counter(image_id for own in found.values() for image_id in own)
    for image in unlabelled:
        free = experts - image.taken_by
        assert counts[image.image_id] == min(image.needed, len(free))
        assert all(image.image_id not in found.get(e, []) for e in image.taken_by)
    if all(not image.taken_by for image in unlabelled):
        sizes = [len(found.get(expert, [])) for expert in experts]
        assert max(sizes) - min(sizes) <= 1


def test_who_has_much_before_them_gets_less() -> None:
    images = [Unlabelled(image_id=str(n), needed=1, taken_by=frozenset()) for n in range(4)]
    found = assign(images, ["new", "old"], load={"old": 4}, seed=1)
    assert {expert: len(own) for expert, own in found.items()} == {"new": 4}
