"""Nobody goes through a gate before the teacher's pause is over and the limiter has agreed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.errors import PermanentError, StateError, TransientError
from core.limits import HEADROOM_S
from core.records import AttemptOutcome, TeacherReply, TeacherRequest
from teacher.failures import RateLimited
from teacher.gate import Gate
from teacher.ledger import MemoryLedger
from teacher.policy import ask
from teacher.prices import ImageTokens, Price
from teacher.request import request_hash, worst_case_tokens
from tests.campaigns import make_reply
from tests.unit.teacher.scripted import make_request

PRICE = Price(input=1, cached_input=0.5, output=2, image=ImageTokens(base=85))


class Clock:
    """Time that passes only when somebody waits."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Patience(threading.Event):
    """A stop that nobody sets; waiting on it moves the clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self._clock.now += timeout
        return self.is_set()


@dataclass
class FakeLimiter:
    """Says what a test tells it to, and remembers what it was asked."""

    answers: Iterator[float | Exception]
    reserved: list[int] = field(default_factory=list)
    refunded: list[int] = field(default_factory=list)

    def reserve(self, *, requests: int, tokens: int) -> float:
        answer = next(self.answers, 0.0)
        if isinstance(answer, Exception):
            raise answer
        if not answer:
            self.reserved.append(tokens)
        return answer

    def refund(self, *, tokens: int) -> None:
        self.refunded.append(tokens)


class Replying:
    """A teacher that replies at once, or after `clock` has moved on."""

    def __init__(self) -> None:
        self.asked = 0

    def send(self, request: TeacherRequest) -> TeacherReply:
        self.asked += 1
        return make_reply(request_hash(request))


def terms(gate: Gate, ledger: MemoryLedger, stop: threading.Event) -> Any:
    return {
        "ledger": ledger,
        "image_id": "img-1",
        "arm": "main",
        "price": PRICE,
        "max_tries": 2,
        "stop": stop,
        "gate": gate,
    }


def test_a_gate_without_limiter_or_pause_is_open() -> None:
    gate = Gate(clock=Clock())
    assert gate.enter(tokens=10, stop=threading.Event()) == 100.0


def test_a_pause_holds_everybody_until_it_is_over() -> None:
    clock = Clock()
    gate, stop = Gate(clock=clock), Patience(clock)
    gate.close(7)
    gate.close(3)  # a shorter pause does not end a longer one
    assert gate.enter(tokens=10, stop=stop) == 107.0
    assert stop.waits == [7]


def test_a_long_pause_is_not_waited_out() -> None:
    clock = Clock()
    gate = Gate(clock=clock)
    gate.close(600)
    with pytest.raises(RateLimited) as caught:
        gate.enter(tokens=10, stop=Patience(clock))
    assert caught.value.retry_after == 600


def test_the_limiter_is_asked_until_it_agrees() -> None:
    clock = Clock()
    limiter = FakeLimiter(iter([71.0, 2.5, 0.0]))
    stop = Patience(clock)
    Gate(limiter, clock=clock).enter(tokens=10, stop=stop)
    assert stop.waits == [71.0, 2.5]
    assert limiter.reserved == [10]


def test_a_limiter_out_of_reach_is_waited_for() -> None:
    clock = Clock()
    limiter = FakeLimiter(iter([TransientError("no Redis"), TransientError("no Redis"), 0.0]))
    stop = Patience(clock)
    Gate(limiter, clock=clock).enter(tokens=10, stop=stop)
    assert len(stop.waits) == 2
    assert limiter.reserved == [10]


def test_a_stop_ends_the_wait_for_a_limiter() -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(StateError):
        Gate(FakeLimiter(iter([50.0]))).enter(tokens=10, stop=stop)


def test_real_usage_frees_what_was_reserved_in_excess() -> None:
    limiter, ledger = FakeLimiter(iter([])), MemoryLedger()
    request = make_request()
    ask(Replying(), request, **terms(Gate(limiter), ledger, threading.Event()))
    worst = worst_case_tokens(request, PRICE.image)
    assert limiter.reserved == [worst.prompt_tokens + worst.completion_tokens]
    assert limiter.refunded == [limiter.reserved[0] - 120]


def test_a_call_above_the_ceiling_frees_its_tokens() -> None:
    limiter, ledger = FakeLimiter(iter([])), MemoryLedger(ceiling_usd=0.0)
    teacher = Replying()
    with pytest.raises(PermanentError, match="ceiling"):
        ask(teacher, make_request(), **terms(Gate(limiter), ledger, threading.Event()))
    assert limiter.refunded == limiter.reserved
    assert teacher.asked == 0


def test_a_stored_reply_needs_no_reservation() -> None:
    limiter, ledger = FakeLimiter(iter([])), MemoryLedger()
    for _ in range(2):
        ask(Replying(), make_request(), **terms(Gate(limiter), ledger, threading.Event()))
    assert len(limiter.reserved) == 1


class SlowLedger(MemoryLedger):
    """Takes its time over the first attempt."""

    clock: Clock

    def open_attempt(self, **values: Any) -> str:
        self.clock.now += HEADROOM_S if not self.attempts else 0
        return super().open_attempt(**values)


def test_a_reservation_that_grew_old_before_the_call_is_made_anew() -> None:
    clock = Clock()
    limiter, ledger, teacher = FakeLimiter(iter([])), SlowLedger(), Replying()
    ledger.clock = clock
    ask(teacher, make_request(), **terms(Gate(limiter, clock=clock), ledger, threading.Event()))
    assert [a.outcome for a in ledger.attempts.values()] == [
        AttemptOutcome.UNREACHABLE,
        AttemptOutcome.REPLIED,
    ]
    assert len(limiter.reserved) == 2
    assert teacher.asked == 1
