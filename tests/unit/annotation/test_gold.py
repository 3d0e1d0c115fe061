"""How many gold items there are, which, and what experts score on them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.gold import gold_due, in_turn, mix
from core.gold import GoldAnswer, RightAnswer, score_gold
from core.records import Authenticity
from db.studio import Subject

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL
RIGHT = {
    "one": RightAnswer(verdict=FAKE, categories=frozenset({"texture", "edge"})),
    "two": RightAnswer(verdict=REAL, categories=frozenset({"tone"})),
    "three": RightAnswer(verdict=FAKE, categories=frozenset()),
}


def answer(
    image_id: str, verdict: Authenticity | None, *categories: str, expert: str = "a"
) -> GoldAnswer:
    return GoldAnswer(
        image_id=image_id, expert=expert, verdict=verdict, categories=frozenset(categories)
    )


def test_scores_by_hand() -> None:
    scores = score_gold(
        [
            answer("one", FAKE, "texture", "shape"),
            answer("two", FAKE, "texture", "tone"),  # a wrong verdict: its categories do not count
            answer("three", FAKE),
            answer("one", None, "texture", "edge", expert="b"),
            answer("gone", REAL, expert="c"),
        ],
        RIGHT,
    )
    assert list(scores) == ["a", "b"]
    first, second = scores["a"], scores["b"]
    assert (first.items, first.verdicts, first.right_verdicts) == (3, 3, 2)
    assert first.right_verdict_share == pytest.approx(2 / 3)
    assert (first.precision, first.recall) == (1 / 2, 1 / 2)
    assert (second.verdicts, second.right_verdict_share) == (0, None)
    assert (second.precision, second.recall) == (1, 1)


def test_who_names_nothing_has_no_precision() -> None:
    score = score_gold([answer("three", FAKE)], RIGHT)["a"]
    assert (score.precision, score.recall) == (None, None)


@given(st.lists(st.integers(0, 40), max_size=20), st.floats(0, 0.5))
def test_the_share_is_kept_over_many_pushes(pushes: list[int], share: float) -> None:
    regular = gold = 0
    for pushed in pushes:
        regular += pushed
        gold += gold_due(regular, gold, share)
        assert gold <= share * (regular + gold) + 1e-6
        assert gold > share * (regular + gold) - 1


def test_a_tenth_of_ninety_and_ten() -> None:
    assert gold_due(90, 0, 0.1) == 10
    assert gold_due(90, 10, 0.1) == 0
    assert gold_due(90, 12, 0.1) == 0
    assert gold_due(1000, 0, 0.0) == 0


names = st.sets(st.text(max_size=5), max_size=20)


@given(names, st.integers(0, 5))
def test_whose_turn_it_is_decides_the_seed(pool: set[str], seed: int) -> None:
    order = in_turn(pool, seed=seed)
    assert set(order) == pool
    assert len(order) == len(pool)
    assert order == in_turn(sorted(pool), seed=seed)


@given(names, names, st.integers(0, 5))
def test_gold_is_mixed_into_the_order_of_the_others(
    regular: set[str], gold: set[str], seed: int
) -> None:
    others = [subject(name) for name in sorted(regular)]
    mixed = mix(others, [subject(f"gold {name}") for name in gold], seed=seed)
    assert [item for item in mixed if item in others] == others
    assert len(mixed) == len(regular) + len(gold)


def test_gold_stands_everywhere_among_the_others() -> None:
    others = [subject(str(number)) for number in range(100)]
    mixed = mix(others, [subject(f"gold {number}") for number in range(100)], seed=1)
    places = [place for place, item in enumerate(mixed) if item.subject_id.startswith("gold")]
    assert 80 < sum(places) / len(places) < 120
    assert min(places) < 20
    assert max(places) > 180


def subject(name: str) -> Subject:
    return Subject(subject_id=name, image_id=name)
