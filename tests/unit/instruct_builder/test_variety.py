"""Lengths and the use of patterns are counted; a pattern that is used too much stops a build."""

from __future__ import annotations

import pytest

from core.errors import PermanentError
from instruct_builder.variety import Variety
from tests.unit.instruct_builder.samples import Row, facts_of, sampled


def row(number: int, pattern: int) -> Row:
    return Row(
        image_id=f"img-{number}",
        turns=("Is it real or fake?", "Fake." if number % 2 else "It is fake, all of it."),
        template=f"verdict_what/q{pattern:02d}/a{1 + number % 5:02d}",
    )


def test_words_and_patterns_are_counted() -> None:
    figures = facts_of(Variety(most_share=1.0), sampled([row(n, 1 + n % 10) for n in range(400)]))
    assert figures["question_words_5"] == figures["question_words_most"] == 5
    assert (figures["answer_words_5"], figures["answer_words_95"]) == (1, 6)
    assert figures["question_patterns"] == 10
    assert figures["share_of_most_used"] == figures["share_of_least_used"] == 0.1


def test_a_pattern_that_takes_too_many_rows_is_named() -> None:
    rows = [row(n, 7 if n % 3 else n % 6) for n in range(300)]
    with pytest.raises(
        PermanentError,
        match=r"verdict_what/q07 takes 0\.667 of the rows, threshold 0\.5; write more",
    ):
        facts_of(Variety(most_share=0.5), sampled(rows))


def test_of_few_rows_a_share_says_nothing() -> None:
    figures = facts_of(Variety(most_share=0.0), sampled([row(n, 1) for n in range(199)]))
    assert figures["share_of_most_used"] == 1.0


def test_nothing_seen_is_no_failure() -> None:
    assert facts_of(Variety(most_share=0.1))["question_patterns"] == 0


def test_a_dialogue_counts_by_its_first_question() -> None:
    talk = Row(
        image_id="img-1",
        turns=("Real or fake?", "Fake.", "Why?", "It shows."),
        form="dialogue_short",
        template="dialogue_short/verdict_what/q03/a01/discuss_because/q01/a02",
    )
    figures = facts_of(Variety(most_share=1.0), sampled([talk]))
    assert figures["most_used"] == "dialogue_short/verdict_what/q03"
