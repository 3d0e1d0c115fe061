"""Options come in blocks: whoever sees them alone knows nothing of which are right."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instruct_builder.hashing import Mask
from instruct_builder.options import OPTIONS, SETS, Drawn, OptionBlocks
from instruct_builder.patterns import LETTERS

IS_RIGHT = np.array([[letter in letters for letter in LETTERS] for letters in SETS])
KINDS = [(False, False), (False, True), (True, False)]


def drawn_of(found: Mask, *, several: bool, absent: bool, seed: int = 1) -> Drawn:
    key = np.random.default_rng(seed).integers(0, 2**63, len(found)).astype(np.uint64)
    able = np.ones(len(found), dtype=bool)
    return OptionBlocks(found, several=several, absent=absent).draw(able, key)


def clustered(number: int, *, seed: int = 2) -> Mask:
    """Findings that hang together: of two groups of categories mostly one, and a frequent one."""
    draw = np.random.default_rng(seed)
    first = draw.random(number)[:, None] < 0.5
    chances = np.where(first, [0.7] * 4 + [0.05] * 4, [0.05] * 4 + [0.7] * 4)
    often, never = np.full((number, 1), 0.8), np.zeros((number, 2))
    return draw.random((number, 11)) < np.hstack([chances, often, never])


masks = st.integers(0, 2**32).flatmap(
    lambda seed: st.tuples(st.integers(0, 60), st.integers(1, 12)).map(
        lambda shape: np.random.default_rng(seed).random(shape) < 0.4
    )
)


@given(masks, st.sampled_from(KINDS))
@settings(deadline=None)
def test_what_is_right_was_found_and_what_is_wrong_was_not(
    found: Mask, kind: tuple[bool, bool]
) -> None:
    several, absent = kind
    drawn = drawn_of(found, several=several, absent=absent)
    shown = found[drawn.chain[:, None], drawn.shown]
    assert ((shown != absent) == IS_RIGHT[drawn.right]).all()
    assert all(len(set(options)) == OPTIONS for options in drawn.shown.tolist())
    assert len(set(drawn.chain.tolist())) == len(drawn.chain)


@pytest.mark.parametrize(("several", "absent"), KINDS)
def test_in_a_block_every_answer_is_right_as_often(several: bool, absent: bool) -> None:
    drawn = drawn_of(clustered(4000), several=several, absent=absent)
    assert len(drawn.chain) > 400
    answers: Counter[tuple[tuple[int, ...], tuple[int, ...]]] = Counter()
    for shown, right in zip(drawn.shown, IS_RIGHT[drawn.right], strict=True):
        answers[tuple(sorted(shown.tolist())), tuple(sorted(shown[right].tolist()))] += 1
    by_size: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for (four, right_ones), number in answers.items():
        by_size.setdefault((four, len(right_ones)), []).append(number)
    for (_, size), numbers in by_size.items():
        assert len(numbers) == {1: 4, 2: 6, 3: 4}[size]
        assert len(set(numbers)) == 1


@pytest.mark.parametrize(("several", "absent"), KINDS)
def test_letters_take_turns_whatever_the_options_are(several: bool, absent: bool) -> None:
    drawn = drawn_of(clustered(4000), several=several, absent=absent)
    counts = Counter(len(SETS[right]) for right in drawn.right)
    letters = Counter(drawn.right.tolist())
    for size in counts:
        numbers = [letters[place] for place, own in enumerate(SETS) if len(own) == size]
        assert max(numbers) - min(numbers) <= 1
    at = Counter(zip(drawn.shown[:, 0].tolist(), IS_RIGHT[drawn.right][:, 0].tolist(), strict=True))
    for category in {category for category, _ in at}:
        right, wrong = at[category, True], at[category, False]
        expected = IS_RIGHT[drawn.right][:, 0].mean()
        assert abs(right / (right + wrong) - expected) < 4 * (0.25 / (right + wrong)) ** 0.5


def test_what_is_never_found_is_never_an_option() -> None:
    drawn = drawn_of(clustered(2000), several=False, absent=False)
    assert not {9, 10} & set(drawn.shown.ravel().tolist())


def test_three_are_right_less_often_than_two() -> None:
    drawn = drawn_of(clustered(4000), several=True, absent=False)
    sizes = Counter(len(SETS[right]) for right in drawn.right)
    assert 0 < sizes[3] <= sizes[2] / 3


def test_only_chains_that_are_able_are_asked() -> None:
    found = clustered(1000)
    able = np.arange(1000) % 3 == 0
    key = np.arange(1000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    drawn = OptionBlocks(found, several=False, absent=False).draw(able, key)
    assert able[drawn.chain].all()


def test_the_keys_alone_decide_and_each_draw_is_another() -> None:
    found = clustered(1000)
    key = np.random.default_rng(1).integers(0, 2**63, 1000).astype(np.uint64)
    everyone = np.ones(1000, dtype=bool)
    first, second = (OptionBlocks(found, several=False, absent=False) for _ in range(2))
    one, same = first.draw(everyone, key), second.draw(everyone, key)
    assert (one.chain == same.chain).all() and (one.shown == same.shown).all()
    other = first.draw(everyone, key ^ np.uint64(99))
    assert one.shown.tolist() != other.shown.tolist()


@pytest.mark.parametrize("found", [np.zeros((5, 3), bool), np.ones((40, 15), bool)])
def test_where_no_block_is_possible_nothing_is_asked(found: Mask) -> None:
    for several, absent in KINDS:
        assert len(drawn_of(found, several=several, absent=absent).chain) == 0
