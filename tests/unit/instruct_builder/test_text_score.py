"""Words that tell an answer are found, words that do not are not."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from instruct_builder.text_score import (
    LEAST_COMPONENTS,
    MOST_ROWS,
    NoScore,
    TextScore,
    score_texts,
)


def score(
    texts: Sequence[str], truths: Sequence[bool], components: Sequence[int]
) -> TextScore | NoScore:
    return score_texts(pa.array(texts), np.array(truths), np.array(components))


def drawn(number: int, share: float, *, seed: int = 1) -> tuple[list[str], list[bool], list[int]]:
    """Rows whose second word is the one of the true answer in `share` of the cases."""
    draw = random.Random(seed)
    truths = [draw.random() < 0.5 for _ in range(number)]
    words = [("warm", "cold")[truth is (draw.random() < share)] for truth in truths]
    return [f"a {word} picture" for word in words], truths, [n // 2 for n in range(number)]


def test_words_that_tell_the_answer_have_an_interval_above_chance() -> None:
    found = score(*drawn(1000, 0.8))
    assert isinstance(found, TextScore)
    low, high = found.interval(among=1)
    assert 0.7 < low < found.auc < high < 0.9


def test_words_that_tell_nothing_do_not() -> None:
    found = score(*drawn(1000, 0.5))
    assert isinstance(found, TextScore)
    low, high = found.interval(among=1)
    assert low < 0.5 < high


def test_of_sets_in_which_words_tell_nothing_few_lie_above_chance() -> None:
    """Eighteen questions, 512 rows, 16 photographs; 2.5 % of the intervals lie above chance."""
    draw = random.Random(3)
    above = 0
    for _ in range(80):
        found = score(
            [f"w{draw.randrange(18)}" for _ in range(512)],
            [n % 2 == 0 for n in range(512)],
            [n // 32 for n in range(512)],
        )
        assert isinstance(found, TextScore)
        above += found.interval(among=1)[0] > 0.5
    assert above <= 5


def test_an_interval_among_many_is_wider() -> None:
    found = TextScore(rows=1000, auc=0.6, error=0.02)
    assert found.interval(among=1) == pytest.approx((0.6 - 0.0392, 0.6 + 0.0392), abs=1e-4)
    assert found.interval(among=25) == pytest.approx((0.6 - 0.0618, 0.6 + 0.0618), abs=1e-4)


def test_an_interval_stays_within_what_an_area_can_be() -> None:
    assert TextScore(rows=300, auc=0.99, error=0.02).interval(among=1)[1] == 1


def test_the_interval_widens_where_rows_hang_together() -> None:
    texts, truths, _ = drawn(1000, 0.7)
    alone = score(texts, truths, list(range(1000)))
    order = sorted(range(1000), key=lambda place: (texts[place], truths[place]))
    component_of = {place: rank // 20 for rank, place in enumerate(order)}
    together = score(texts, truths, [component_of[place] for place in range(1000)])
    assert isinstance(alone, TextScore) and isinstance(together, TextScore)
    assert together.error > 2 * alone.error


def test_what_is_learnt_of_one_component_is_not_asked_of_it() -> None:
    """Each component has a word and an answer of its own: within it, words tell everything."""
    components = [n // 10 for n in range(1000)]
    draw = random.Random(2)
    answers = [draw.random() < 0.5 for _ in range(100)]
    found = score([f"w{c}" for c in components], [answers[c] for c in components], components)
    assert isinstance(found, TextScore)
    assert found.interval(among=1)[0] <= 0.5


@pytest.mark.parametrize(
    ("rows", "groups", "truth", "reason"),
    [
        (199, 199, None, "too few: 199 rows"),
        (400, LEAST_COMPONENTS - 1, None, "too few: 9 independent groups"),
        (400, 400, True, "one answer only"),
        (0, 1, None, "too few: 0 rows"),
    ],
)
def test_where_nothing_can_be_said_the_reason_is(
    rows: int, groups: int, truth: bool | None, reason: str
) -> None:
    truths = [n % 2 == 0 if truth is None else truth for n in range(rows)]
    found = score_texts(
        pa.array(["Why?"] * rows, pa.string()),
        np.array(truths, dtype=bool),
        np.array([n % groups for n in range(rows)], dtype=np.int64),
    )
    assert isinstance(found, NoScore)
    assert found.reason.startswith(reason)


def test_of_very_many_rows_whole_components_are_drawn() -> None:
    number = MOST_ROWS + 5_000
    found = score(
        [("yes", "no")[n % 2] for n in range(number)],
        [n % 4 < 2 for n in range(number)],
        [n // 10 for n in range(number)],
    )
    assert isinstance(found, TextScore)
    assert MOST_ROWS <= found.rows < MOST_ROWS + 10


def test_the_same_rows_give_the_same_figures() -> None:
    assert score(*drawn(600, 0.6)) == score(*drawn(600, 0.6))
