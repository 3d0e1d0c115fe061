"""What every limiter must do (teacher.limits.Limiter), run against each that there is."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.errors import PermanentError
from core.limits import BURST, HEADROOM_S, HELD_S, Limits, forgetful, refund, reserve
from core.settings import Settings
from db.engine import open_database
from db.limits import DatabaseLimiter, database_clock
from teacher.limits import Limiter
from teacher.redis_limits import RedisLimiter
from tests.databases import (  # noqa: F401
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)
from tests.redis_servers import RedisServer

EXAMPLES = hypothesis_settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MODELS = count()


@dataclass
class HandClock:
    """A clock that a test sets."""

    now: float = 1_000.0

    def __call__(self) -> float:
        return self.now


class MemoryLimiter:
    """The rule by itself, in the memory of one process."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._lock = threading.Lock()
        self._window = forgetful(clock())

    def reserve(self, *, requests: int, tokens: int) -> float:
        with self._lock:
            self._window, wait = reserve(
                self._window, self._limits, self._clock(), requests=requests, tokens=tokens
            )
        return wait

    def refund(self, *, tokens: int) -> None:
        with self._lock:
            self._window = refund(self._window, self._limits, self._clock(), tokens=tokens)


Open = Callable[[Limits, HandClock | None, str], Limiter]
"""limits, clock (None: the limiter's own) and model to a limiter"""
Place = Settings | str
"""the database, or the address of the Redis server, that processes share"""


@dataclass(frozen=True)
class Bench:
    """Opens limiters of one kind; those of the same model share their memory."""

    open: Open
    place: Place | None = None

    def fresh(self, limits: Limits, clock: HandClock) -> Limiter:
        """A limiter of a teacher that nobody asked before."""
        return self.open(limits, clock, f"model-{next(MODELS)}")

    def awake(self, limits: Limits, clock: HandClock, model: str | None = None) -> Limiter:
        """A limiter that has waited for its first minute."""
        limiter = self.open(limits, clock, model) if model else self.fresh(limits, clock)
        limiter.refund(tokens=0)
        clock.now += HELD_S
        return limiter


@dataclass(frozen=True)
class Arrival:
    """One request in the log of a teacher."""

    at: float
    tokens: int


@dataclass(frozen=True)
class Step:
    """One call of a campaign: how long it comes after the last, and what becomes of it."""

    pause: float
    tokens: int
    under_way: float
    """seconds from the reservation to the teacher"""
    used: float
    """share of the reserved tokens"""


STEPS = st.lists(
    st.builds(
        Step,
        pause=st.sampled_from([0.0, 0.0, 0.001, 0.4, 1.0, 7.3, 29.5, 60.0]),
        tokens=st.integers(1, 400),
        under_way=st.floats(0, HEADROOM_S),
        used=st.floats(0, 1),
    ),
    min_size=5,
    max_size=60,
)


def patient(limiter: Limiter, clock: HandClock, *, tokens: int) -> None:
    """Reserve as drafting does: wait as long as told, and try again."""
    while wait := limiter.reserve(requests=1, tokens=tokens):
        clock.now += wait


def log_of(limiter: Limiter, clock: HandClock, steps: Sequence[Step]) -> list[Arrival]:
    """What a teacher sees of a campaign that refunds at once what it did not use."""
    arrivals = []
    for step in steps:
        clock.now += step.pause
        patient(limiter, clock, tokens=step.tokens)
        arrivals.append(Arrival(at=clock.now + step.under_way, tokens=step.tokens))
        limiter.refund(tokens=round(step.tokens * (1 - step.used)))
    return arrivals


def assert_lawful(arrivals: Sequence[Arrival], limits: Limits) -> None:
    for last in arrivals:
        minute = [a for a in arrivals if last.at - 60 <= a.at <= last.at]
        assert len(minute) <= (limits.requests_per_minute or len(minute))
        assert sum(a.tokens for a in minute) <= (limits.tokens_per_minute or float("inf"))


def grants(limiter: Limiter, tries: int) -> int:
    """How many of so many calls are let in at this moment."""
    return sum(limiter.reserve(requests=1, tokens=10) == 0 for _ in range(tries))


class LimiterContract:
    """The rules; `bench` is a fixture of each class below."""

    @EXAMPLES
    @given(steps=STEPS)
    def test_no_minute_holds_more_than_the_limits(self, bench: Bench, steps: list[Step]) -> None:
        limits = Limits(requests_per_minute=12, tokens_per_minute=1000)
        clock = HandClock()
        assert_lawful(log_of(bench.fresh(limits, clock), clock, steps), limits)

    @EXAMPLES
    @given(steps=STEPS, one=st.sampled_from(["requests_per_minute", "tokens_per_minute"]))
    def test_it_waits_exactly_as_the_rule_says(
        self, bench: Bench, steps: list[Step], one: str
    ) -> None:
        for limits in (
            Limits(requests_per_minute=12, tokens_per_minute=1000),
            Limits(**{one: 400}),
        ):
            clock = HandClock()
            limiter, rule = bench.fresh(limits, clock), MemoryLimiter(limits, clock=clock)
            limiter.refund(tokens=0)
            for step in steps:
                clock.now += step.pause
                wait = rule.reserve(requests=1, tokens=step.tokens)
                found = limiter.reserve(requests=1, tokens=step.tokens)
                assert found == pytest.approx(wait, abs=2e-6)
                unused = round(step.tokens * (1 - step.used))
                rule.refund(tokens=unused)
                limiter.refund(tokens=unused)
                clock.now += wait

    def test_a_limiter_without_memory_waits_for_a_full_minute(self, bench: Bench) -> None:
        clock = HandClock()
        limiter = bench.fresh(Limits(requests_per_minute=1000), clock)
        assert limiter.reserve(requests=1, tokens=1) == pytest.approx(HELD_S)
        clock.now += HELD_S - 0.5
        assert limiter.reserve(requests=1, tokens=1) == pytest.approx(0.5)
        clock.now += 0.5
        assert limiter.reserve(requests=1, tokens=1) == 0

    def test_a_clock_that_was_set_back_is_a_lost_memory(self, bench: Bench) -> None:
        clock = HandClock()
        limiter = bench.awake(Limits(requests_per_minute=1000), clock)
        assert limiter.reserve(requests=1, tokens=1) == 0
        clock.now -= 3600
        assert limiter.reserve(requests=1, tokens=1) == pytest.approx(HELD_S)

    def test_calls_leave_at_a_pace(self, bench: Bench) -> None:
        clock = HandClock()
        limiter = bench.awake(Limits(requests_per_minute=200), clock)
        assert grants(limiter, 200) == 200 * BURST
        assert 0 < limiter.reserve(requests=1, tokens=1) < 1

    def test_a_call_larger_than_the_burst_is_let_in(self, bench: Bench) -> None:
        clock = HandClock()
        limiter = bench.awake(Limits(tokens_per_minute=1000), clock)
        assert limiter.reserve(requests=1, tokens=1000) == 0
        assert limiter.reserve(requests=1, tokens=1) > 60

    def test_a_call_that_never_fits_is_refused(self, bench: Bench) -> None:
        limiter = bench.awake(Limits(tokens_per_minute=1000), HandClock())
        with pytest.raises(PermanentError, match=r"1,001 tokens.*tokens_per_minute: 1,000"):
            limiter.reserve(requests=1, tokens=1001)

    def test_a_limit_that_is_absent_does_not_bind(self, bench: Bench) -> None:
        limiter = bench.awake(Limits(requests_per_minute=100), HandClock())
        assert limiter.reserve(requests=1, tokens=10**9) == 0

    def test_a_refund_lets_later_calls_go_sooner(self, bench: Bench) -> None:
        clock = HandClock()
        limiter = bench.awake(Limits(tokens_per_minute=10_000), clock)
        assert limiter.reserve(requests=1, tokens=500) == 0
        before = limiter.reserve(requests=1, tokens=500)
        limiter.refund(tokens=400)
        assert limiter.reserve(requests=1, tokens=500) < before / 4
        limiter.refund(tokens=100)
        assert limiter.reserve(requests=1, tokens=500) == 0

    def test_refunds_never_open_the_window(self, bench: Bench) -> None:
        limiter = bench.awake(Limits(tokens_per_minute=1000), HandClock())
        for _ in range(10):
            assert limiter.reserve(requests=1, tokens=100) == 0
            limiter.refund(tokens=100)
        assert limiter.reserve(requests=1, tokens=100) > 60

    def test_limiters_of_one_model_share_their_memory(self, bench: Bench) -> None:
        clock, limits = HandClock(), Limits(requests_per_minute=200)
        model = f"model-{next(MODELS)}"
        one, other = (bench.awake(limits, clock, model) for _ in range(2))
        assert grants(one, 4) == 4
        assert grants(other, 200) == 6
        assert grants(bench.awake(limits, clock), 200) == 10

    def test_threads_together_get_no_more_than_one(self, bench: Bench) -> None:
        limiter = bench.awake(Limits(requests_per_minute=1000), HandClock())
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: grants(limiter, 20), range(8))) == 1000 * BURST


class SharedLimiterContract(LimiterContract):
    """Further rules for memory that processes share."""

    def test_processes_together_get_no_more_than_one(self, bench: Bench) -> None:
        clock, limits, model = (
            HandClock(),
            Limits(requests_per_minute=1000),
            f"model-{next(MODELS)}",
        )
        bench.awake(limits, clock, model)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(3, mp_context=spawn) as pool:
            jobs = [
                pool.submit(grants_elsewhere, bench.place, limits, clock, model) for _ in "1234"
            ]
            assert sum(job.result() for job in jobs) == 1000 * BURST

    def test_it_has_a_clock_of_its_own(self, bench: Bench) -> None:
        limiter = bench.open(Limits(requests_per_minute=1000), None, f"model-{next(MODELS)}")
        first = limiter.reserve(requests=1, tokens=1)
        assert limiter.reserve(requests=1, tokens=1) <= first <= HELD_S


@contextmanager
def opened(place: Place) -> Iterator[Open]:
    """What opens limiters in this process."""
    if isinstance(place, str):
        yield lambda limits, clock, model: RedisLimiter(
            place, limits, teacher="t", model=model, clock=clock
        )
        return
    database = open_database(place)
    yield lambda limits, clock, model: DatabaseLimiter(
        database,
        limits,
        teacher="t",
        model=model,
        clock=(lambda _: clock.now) if clock else database_clock,
    )
    database.dispose()


def grants_elsewhere(place: Place, limits: Limits, clock: HandClock, model: str) -> int:
    """What a worker process gets of a hundred calls."""
    with opened(place) as open_limiter:
        return grants(open_limiter(limits, clock, model), 100)


class TestMemory(LimiterContract):
    @pytest.fixture
    def bench(self) -> Bench:
        opened: dict[str, MemoryLimiter] = {}
        return Bench(
            lambda limits, clock, model: opened.setdefault(
                model, MemoryLimiter(limits, clock=clock or time.monotonic)
            )
        )


class TestDatabase(SharedLimiterContract):
    @pytest.fixture
    def bench(self, settings: Settings) -> Iterator[Bench]:  # noqa: F811
        with opened(settings) as open_limiter:
            yield Bench(open_limiter, settings)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class TestRedis(SharedLimiterContract):
    @pytest.fixture
    def bench(self, server: RedisServer) -> Iterator[Bench]:
        with opened(server.address) as open_limiter:
            yield Bench(open_limiter, server.address)
