"""The figures of the ablation, on scores whose table is counted by hand."""

from __future__ import annotations

import pytest

from benchmarks.fakeclue_ablation import (
    FIGURES,
    LEARNT,
    accuracy,
    f1_of_fakes,
    f1_of_photographs,
    load_contender,
    render,
)
from training.metrics import Scored

# two fakes, one of them found; three photographs, two of them believed
SCORED = Scored.of([True, True, False, False, False], [1, -1, -2, -3, 2], list("aabbc"))


def test_both_classes_have_an_f1_of_their_own() -> None:
    assert accuracy(SCORED) == pytest.approx(3 / 5)
    assert f1_of_fakes(SCORED) == pytest.approx(2 * 1 / (2 * 1 + 1 + 1))
    assert f1_of_photographs(SCORED) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_a_table_has_a_line_for_each_contender() -> None:
    _, head, _, line = render("seen generators", {"probe": [SCORED, SCORED]}, resamples=20)
    assert head == f"| seen generators | {' | '.join(FIGURES)} |"
    assert line.startswith("| probe | 0.600 [")


def test_the_contenders_differ_in_the_instructions_alone() -> None:
    alone, explained = (load_contender(name, seed=2, steps=5) for name in LEARNT)
    assert set(alone.data.shares) == {"verdict"}
    assert set(explained.data.shares) == {"verdict", "explanation"}
    same = alone.model_copy(update={"data": explained.data})
    assert same == explained
