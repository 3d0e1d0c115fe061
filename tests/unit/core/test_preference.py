"""Preference studies: intervals, images, and who sees which text first."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binomtest

from core.preference import (
    Sides,
    Vote,
    clustered_share,
    evaluate_votes,
    exact_share,
    study_images,
)
from core.records import Authenticity

FAKE, REAL = Authenticity.FAKE, Authenticity.REAL


def vote(image: int, expert: int, is_win: bool, *, is_first: bool = True) -> Vote:
    return Vote(
        image_id=f"img-{image}", expert=f"expert-{expert}", is_win=is_win, is_first=is_first
    )


@given(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_exact_interval_is_clopper_and_pearsons(counts: tuple[int, int]) -> None:
    successes, votes = counts
    found = exact_share(successes, votes)
    expected = binomtest(successes, votes).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_the_papers_figure_has_this_interval() -> None:
    """FakeScope: 595 of 600 votes for ACoTI."""
    found = exact_share(595, 600)
    assert found.share == pytest.approx(0.9917, abs=1e-4)
    assert (found.low, found.high) == pytest.approx((0.9807, 0.9973), abs=1e-4)


def test_korn_and_graubards_interval_by_hand() -> None:
    """Four clusters of two votes.

    Share 5/8. Residuals of the clusters: (2 - 2 * 0.625) / 8 = 0.09375 twice, (1 - 1.25) / 8 =
    -0.03125, -1.25 / 8 = -0.15625. Variance 4/3 * (2 * 0.0087890625 + 0.0009765625 +
    0.0244140625) = 0.0572916667. Independent votes: 0.234375 / 0.0572916667 = 4.0909; times
    (2.364624 / 3.182446)^2 = 0.552080 gives 2.258509.
    """
    votes = [(0, True), (0, True), (1, True), (1, True), (2, True), (2, False)]
    found = clustered_share([*votes, (3, False), (3, False)])
    worth = 2.258509
    low = beta.ppf(0.025, 0.625 * worth, 0.375 * worth + 1)
    high = beta.ppf(0.975, 0.625 * worth + 1, 0.375 * worth)
    assert (found.share, found.votes) == (0.625, 8)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


votes_strategy = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=40)


@given(votes_strategy)
def test_clusters_never_make_an_interval_narrower(votes: list[tuple[int, bool]]) -> None:
    clustered = clustered_share(votes)
    plain = exact_share(sum(won for _, won in votes), len(votes))
    assert clustered.low <= plain.low + 1e-9
    assert clustered.high >= plain.high - 1e-9
    assert clustered.low <= clustered.share <= clustered.high


def test_votes_that_are_all_alike_within_clusters_count_about_once() -> None:
    alike = clustered_share([(n, n % 2 == 0) for n in range(20) for _ in range(10)])
    assert exact_share(8, 16).low < alike.low < exact_share(10, 20).low
    assert exact_share(10, 20).high < alike.high < exact_share(8, 16).high


def test_six_experts_who_all_agree_are_six_votes() -> None:
    found = clustered_share([(expert, True) for expert in range(6) for _ in range(100)])
    assert found.low == pytest.approx(exact_share(6, 6).low)


def test_order_effects_are_counted() -> None:
    """Whoever always takes the left text prefers neither arm."""
    votes = [vote(n, n % 3, n % 2 == 0, is_first=n % 2 == 0) for n in range(30)]
    found = evaluate_votes(votes)
    assert found is not None
    assert (found.wins.share, found.left.share) == (0.5, 1.0)
    assert (found.when_first, found.when_second) == (1.0, 0.0)
    assert found.experts == {"expert-0": 0.5, "expert-1": 0.5, "expert-2": 0.5}
    assert (found.images, found.wins.votes) == (30, 30)


def test_no_votes_come_to_nothing() -> None:
    assert evaluate_votes([]) is None


labels = st.dictionaries(st.uuids().map(str), st.sampled_from(Authenticity), max_size=20)


@given(labels, st.integers(1, 12), st.integers(0, 12))
def test_a_study_has_both_labels_and_keeps_what_it_began_with(
    labelled: dict[str, Authenticity], count: int, begun: int
) -> None:
    before = sorted(labelled)[:begun]
    found = study_images(labelled, count, chosen=before, seed=1)
    assert len(found) == len(set(found)) == min(count, len(labelled))
    assert set(before[:count]) <= set(found)
    numbers = Counter(labelled[name] for name in study_images(labelled, count, chosen=[], seed=1))
    total = Counter(labelled.values())
    for label in Authenticity:
        assert numbers[label] >= min(total[label], count // 2)


def test_each_arm_stands_left_half_of_the_time_for_each_expert_and_image() -> None:
    sides = Sides(seed=1)
    images, experts = [f"img-{n}" for n in range(40)], [f"expert-{n}" for n in range(6)]
    left = {(image, expert): sides.place(image, expert) for image in images for expert in experts}
    for expert in experts:
        assert sum(left[image, expert] for image in images) == 20
    assert 0.4 < sum(left.values()) / len(left) < 0.6


def test_places_do_not_depend_on_when_they_were_given() -> None:
    at_once, later = Sides(seed=1), Sides(seed=1)
    pairs = [(f"img-{n}", f"expert-{n % 3}") for n in range(12)]
    given_at_once = [at_once.place(*pair) for pair in pairs]
    for pair, first_is_left in zip(pairs[:6], given_at_once[:6], strict=True):
        later.note(*pair, first_is_left=first_is_left)
    assert [later.place(*pair) for pair in pairs[6:]] == given_at_once[6:]
