"""The rule of a minute's limits: what arrives at a teacher, however a campaign behaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import PermanentError
from core.limits import BURST, HEADROOM_S, HELD_S, Limits, Window, forgetful, refund, reserve

PAUSES = st.sampled_from([0.0, 0.0, 0.001, 0.9, 1.0, 13.7, 59.99, 60.0, 70.99])


class Step(NamedTuple):
    """One call of a campaign."""

    pause: float
    """seconds since the last call"""
    tokens: int
    under_way: float
    """seconds from the reservation to the teacher"""
    unused: float
    """share of the tokens that is refunded"""
    is_forgotten: bool
    """whether the limiter loses its memory before it"""


STEPS = st.builds(
    Step,
    pause=PAUSES,
    tokens=st.integers(1, 1000),
    under_way=st.floats(0, HEADROOM_S),
    unused=st.floats(0, 1),
    is_forgotten=st.sampled_from([True] + 20 * [False]),
)


def arrivals_of(limits: Limits, steps: Sequence[Step]) -> list[tuple[float, int]]:
    """Second and tokens of each call, as the teacher sees them."""
    now, arrivals = 12.34, []
    window = forgetful(now)
    for step in steps:
        now += step.pause
        window = forgetful(now) if step.is_forgotten else window
        window, wait = reserve(window, limits, now, requests=1, tokens=step.tokens)
        while wait:
            now += wait
            window, wait = reserve(window, limits, now, requests=1, tokens=step.tokens)
        arrivals.append((now + step.under_way, step.tokens))
        window = refund(window, limits, now, tokens=int(step.tokens * step.unused))
    return arrivals


@hypothesis_settings(deadline=None, max_examples=200)
@given(st.lists(STEPS, max_size=80), st.integers(1, 40), st.integers(1000, 4000))
def test_no_minute_at_the_teacher_holds_more_than_the_limits(
    steps: list[Step], requests: int, tokens: int
) -> None:
    limits = Limits(requests_per_minute=requests, tokens_per_minute=tokens)
    arrivals = arrivals_of(limits, steps)
    for end, _ in arrivals:
        minute = [size for at, size in arrivals if end - 60 <= at <= end]
        assert len(minute) <= requests
        assert sum(minute) <= tokens


@hypothesis_settings(deadline=None)
@given(st.integers(1, 100_000), st.floats(0.001, 1), st.floats(0, 1e9))
def test_who_waits_as_told_gets_through_at_the_second_try(
    limit: int, share: float, start: float
) -> None:
    limits = Limits(tokens_per_minute=limit)
    tokens = max(1, int(limit * share))
    now, window = start, forgetful(start)
    for _ in range(20):
        tries = 0
        wait = 1.0
        while wait:
            window, wait = reserve(window, limits, now, requests=1, tokens=tokens)
            now += wait
            tries += 1
        assert tries <= 3


@pytest.mark.parametrize(("refunded", "share"), [(0.0, 0.79), (1.0, 0.83)])
def test_steady_calls_get_most_of_the_limit_and_more_with_refunds(
    refunded: float, share: float
) -> None:
    limits = Limits(tokens_per_minute=60_000)
    window = Window(opens_at=0, seen_at=0)
    now, granted = 0.0, 0
    while now < 3600:
        window, wait = reserve(window, limits, now, requests=1, tokens=500)
        now += wait
        if not wait:
            granted += 500
            window = refund(window, limits, now, tokens=int(500 * refunded))
    assert granted / (60 * 60_000) > share


def test_a_minute_begins_with_a_small_burst() -> None:
    limits = Limits(requests_per_minute=400)
    window = forgetful(0)
    waits = []
    for _ in range(400):
        window, wait = reserve(window, limits, HELD_S, requests=1, tokens=1)
        waits.append(wait)
    assert waits.count(0) == 400 * BURST


def test_the_burst_and_what_flows_in_make_up_the_limit() -> None:
    limits = Limits(requests_per_minute=1000)
    window, now, granted = Window(opens_at=0, seen_at=0), 1000.0, 0
    while now < 1000 + HELD_S:
        window, wait = reserve(window, limits, now, requests=1, tokens=0)
        now += wait
        granted += not wait
    assert granted == pytest.approx(1000, abs=1)


def test_a_window_keeps_no_more_than_its_seconds() -> None:
    limits = Limits(requests_per_minute=10**6)
    window = Window(opens_at=0, seen_at=0)
    for tenth in range(10_000):
        window, _ = reserve(window, limits, tenth / 10, requests=1, tokens=1)
    assert len(window.slots) <= HELD_S + 1


@pytest.mark.parametrize("name", ["requests", "tokens"])
def test_a_call_that_never_fits_names_the_limit_and_the_remedies(name: str) -> None:
    limits = Limits(**{f"{name}_per_minute": 5})
    with pytest.raises(PermanentError) as caught:
        limits.check(requests=6, tokens=6)
    for told in (f"{name}_per_minute: 5", "recipe.yaml", f"OPENAI_{name.upper()}_PER_MINUTE"):
        assert told in str(caught.value)


def test_limits_that_name_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="requests_per_minute, tokens_per_minute or both"):
        Limits()
