"""The estimate of truth and errors: the published worked example, and its laws.

The example was checked with other people's programs: the table equals the one in Dallas Card's
`dawid_skene`, and `crowd-kit` 1.4.2 makes the same estimates of it, to the two digits printed.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.dawid_skene import Vote, dawid_skene

ANAESTHETISTS = """
    111-1-1-1-1 333-4-3-3-4 112-2-1-2-2 222-3-1-2-1 222-3-2-2-2 222-3-3-2-2 122-2-1-1-1 333-3-4-3-3
    222-2-2-2-3 232-2-2-2-3 444-4-4-4-4 222-3-3-4-3 111-1-1-1-1 222-3-2-1-2 121-1-1-1-1 111-2-1-1-1
    111-1-1-1-1 111-1-1-1-1 222-2-2-2-1 222-1-3-2-2 222-2-2-2-2 222-2-2-2-1 222-3-2-2-2 221-2-2-2-2
    111-1-1-1-1 111-1-1-1-1 232-2-2-2-2 111-1-1-1-1 111-1-1-1-1 112-1-1-2-1 111-1-1-1-1 333-3-2-3-3
    111-1-1-1-1 222-2-2-2-2 222-3-2-3-2 433-4-3-4-3 221-2-2-3-2 232-3-2-3-3 333-3-4-3-2 111-1-1-1-1
    111-1-1-1-1 121-2-1-1-1 232-2-2-2-2 121-1-1-1-1 222-2-2-2-2
"""
"""table 1 of Dawid and Skene (1979): 45 patients; the first of five observers saw each thrice"""

votes = st.lists(
    st.builds(
        Vote,
        item=st.sampled_from("abcdefgh"),
        rater=st.sampled_from("123"),
        choice=st.sampled_from("xyz"),
    ),
    min_size=1,
    max_size=60,
)


def votes_of_the_anaesthetists() -> list[Vote]:
    return [
        Vote(item=str(patient), rater=str(observer), choice=choice)
        for patient, row in enumerate(ANAESTHETISTS.split(), start=1)
        for observer, choices in enumerate(row.split("-"), start=1)
        for choice in choices
    ]


def test_the_example_of_dawid_and_skene_1979() -> None:
    found = dawid_skene(votes_of_the_anaesthetists())
    assert list(found.prevalence.values()) == pytest.approx([0.40, 0.42, 0.11, 0.07], abs=5e-3)
    first = [list(row.values()) for row in found.confusion["1"].values()]
    published = [[0.89, 0.11, 0, 0], [0.07, 0.88, 0.05, 0], [0, 0.34, 0.66, 0], [0, 0, 0.56, 0.44]]
    for row, expected in zip(first, published, strict=True):
        assert row == pytest.approx(expected, abs=5e-3)
    assert found.posterior["7"]["1"] == pytest.approx(0.98, abs=5e-3)
    assert found.posterior["38"]["3"] == pytest.approx(0.98, abs=5e-3)
    assert [found.truth(item) for item in ("1", "2", "3", "36")] == ["1", "4", "2", "4"]


@given(votes)
def test_no_step_lowers_the_likelihood(given_votes: list[Vote]) -> None:
    steps = dawid_skene(given_votes).log_likelihoods
    assert all(after >= before - 1e-9 for before, after in pairwise(steps))


@given(votes)
def test_probabilities_add_up_to_one(given_votes: list[Vote]) -> None:
    found = dawid_skene(given_votes)
    rows = [found.prevalence, *found.posterior.values()]
    rows += [row for rates in found.confusion.values() for row in rates.values()]
    for row in rows:
        assert sum(row.values()) == pytest.approx(1)
    assert set(found.accuracy) == {vote.rater for vote in given_votes}
    assert all(0 <= share <= 1 + 1e-9 for share in found.accuracy.values())


@given(votes, st.randoms())
def test_the_order_of_votes_decides_nothing(
    given_votes: list[Vote], shuffler: random.Random
) -> None:
    shuffled = shuffler.sample(given_votes, len(given_votes))
    assert dawid_skene(shuffled) == dawid_skene(given_votes)


@given(st.lists(st.sampled_from("xyz"), min_size=1, max_size=20))
def test_whom_nobody_contradicts_is_right(truth: list[str]) -> None:
    said = [
        Vote(item=str(number), rater=rater, choice=choice)
        for number, choice in enumerate(truth)
        for rater in "123"
    ]
    found = dawid_skene(said)
    assert [found.truth(str(number)) for number in range(len(truth))] == truth
    assert found.accuracy == pytest.approx(dict.fromkeys("123", 1.0))


def test_a_careless_rater_is_told_from_careful_ones() -> None:
    draw = random.Random(4)
    right = {"careful": 0.95, "good": 0.9, "careless": 0.6}
    truth = {str(number): draw.choice("ab") for number in range(1000)}
    said = [
        Vote(item=item, rater=rater, choice=choice if draw.random() < share else other(choice))
        for item, choice in truth.items()
        for rater, share in right.items()
    ]
    found = dawid_skene(said)
    assert found.accuracy == pytest.approx(right, abs=0.03)
    ballots = {item: Counter(vote.choice for vote in said if vote.item == item) for item in truth}
    majority = sum(ballots[item][choice] >= 2 for item, choice in truth.items())
    assert sum(found.truth(item) == choice for item, choice in truth.items()) > majority


def other(choice: str) -> str:
    return "b" if choice == "a" else "a"
