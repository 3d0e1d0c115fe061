from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError, PermanentError, StateError, TransientError
from core.records import AttemptOutcome, TeacherReply
from teacher.client import Teacher
from teacher.gate import Gate
from teacher.ledger import MemoryLedger
from teacher.policy import ask, ask_until_usable, reask_of, wait_after
from teacher.prices import ImageTokens, Price
from teacher.request import request_hash
from tests.unit.teacher.scripted import (
    Answer,
    ScriptedServer,
    completion,
    failure,
    make_request,
)

PRICE = Price(input=1, cached_input=0.5, output=2, image=ImageTokens(base=85))


def make_terms(ledger: MemoryLedger, **changes: Any) -> Any:
    waits: list[float] = changes.pop("waits", [])
    terms: dict[str, Any] = {
        "ledger": ledger,
        "image_id": "img-1",
        "arm": "main",
        "price": PRICE,
        "max_tries": 3,
        "stop": threading.Event(),
        "gate": Gate(),
        "sleep": waits.append,
    }
    return {**terms, **changes}


def outcomes(ledger: MemoryLedger) -> list[AttemptOutcome]:
    return [attempt.outcome for attempt in ledger.attempts.values()]


def accept(reply: TeacherReply) -> str:
    if reply.content != "good":
        raise DataError(f"it said {reply.content}")
    return reply.content


def test_a_stored_reply_is_never_asked_for_again(server: ScriptedServer) -> None:
    server.answers = [completion("once"), completion("twice")]
    ledger = MemoryLedger()
    with Teacher(server.base_url) as teacher:
        first = ask(teacher, make_request(), **make_terms(ledger))
        second = ask(teacher, make_request(), **make_terms(ledger))
    assert first == second
    assert first.attempt_id in ledger.attempts
    assert len(server.heard) == 1


def test_the_same_request_at_the_same_moment_is_sent_once(server: ScriptedServer) -> None:
    server.answers = [replace(completion("good"), delay_s=0.2)]
    ledger, terms = MemoryLedger(), {"gate": Gate(), "slot": threading.Semaphore(8)}

    def ask_for(number: int) -> TeacherReply:
        request = make_request(question=f"question {number % 2}")
        return ask(teacher, request, **make_terms(ledger, image_id=f"img-{number}", **terms))

    with Teacher(server.base_url) as teacher, ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(ask_for, range(8)))
    assert len(server.heard) == len(ledger.attempts) == 2
    assert len({reply.attempt_id for reply in replies}) == 2


def test_who_waited_for_the_same_request_asks_where_it_failed(server: ScriptedServer) -> None:
    server.answers = [replace(failure(400), delay_s=0.2), completion("good")]
    ledger, terms = MemoryLedger(), {"gate": Gate()}
    with Teacher(server.base_url) as teacher, ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(ask, teacher, make_request(), **make_terms(ledger, **terms))
            for _ in range(2)
        ]
    failed = [call for call in calls if call.exception()]
    assert (len(failed), len(server.heard)) == (1, 2)


def test_a_reply_costs_what_its_usage_says(server: ScriptedServer) -> None:
    server.answers = [completion()]
    ledger = MemoryLedger()
    with Teacher(server.base_url) as teacher:
        ask(teacher, make_request(), **make_terms(ledger))
    assert ledger.committed_usd == pytest.approx((600 * 1 + 400 * 0.5 + 200 * 2) / 1e6)


def test_a_reply_without_usage_costs_its_reservation(server: ScriptedServer) -> None:
    server.answers = [Answer(body=b"junk")]
    ledger = MemoryLedger()
    with Teacher(server.base_url) as teacher:
        ask(teacher, make_request(), **make_terms(ledger))
    (attempt,) = ledger.attempts.values()
    assert attempt.cost_usd == attempt.reserved_usd > 0


def test_passing_failures_are_tried_again_and_each_has_a_row(server: ScriptedServer) -> None:
    server.answers = [failure(429, retry_after="2"), failure(500), completion()]
    ledger, waits = MemoryLedger(), list[float]()
    with Teacher(server.base_url) as teacher:
        ask(teacher, make_request(), **make_terms(ledger, waits=waits))
    assert outcomes(ledger) == [
        AttemptOutcome.RATE_LIMITED,
        AttemptOutcome.SERVER_ERROR,
        AttemptOutcome.REPLIED,
    ]
    assert 2 <= waits[0] <= 2.5, "as long as the teacher asked for, and a little"
    assert 1 <= waits[1] <= 1.25


def test_tries_are_bounded(server: ScriptedServer) -> None:
    server.answers = [failure(500)]
    ledger, waits = MemoryLedger(), list[float]()
    with Teacher(server.base_url) as teacher, pytest.raises(TransientError):
        ask(teacher, make_request(), **make_terms(ledger, waits=waits))
    assert len(server.heard) == 3
    assert len(waits) == 2, "nobody waits after the last try"
    assert ledger.committed_usd == 0


def test_a_long_pause_is_handed_back_at_once(server: ScriptedServer) -> None:
    server.answers = [failure(429, retry_after="3600")]
    with Teacher(server.base_url) as teacher, pytest.raises(TransientError) as caught:
        ask(teacher, make_request(), **make_terms(MemoryLedger()))
    assert caught.value.retry_after == 3600
    assert len(server.heard) == 1


@pytest.mark.parametrize(
    ("answer", "kind"), [(failure(401), PermanentError), (failure(400), DataError)]
)
def test_lasting_failures_are_not_tried_again(
    server: ScriptedServer, answer: Answer, kind: type[Exception]
) -> None:
    server.answers = [answer]
    ledger = MemoryLedger()
    with Teacher(server.base_url) as teacher, pytest.raises(kind):
        ask(teacher, make_request(), **make_terms(ledger))
    assert outcomes(ledger) == [AttemptOutcome.REJECTED]
    assert len(server.heard) == 1


def test_above_the_ceiling_nothing_is_sent(server: ScriptedServer) -> None:
    ledger = MemoryLedger(ceiling_usd=0.0001)
    with Teacher(server.base_url) as teacher, pytest.raises(PermanentError, match="ceiling"):
        ask(teacher, make_request(), **make_terms(ledger))
    assert server.heard == []


def test_a_stop_prevents_the_next_call(server: ScriptedServer) -> None:
    stop = threading.Event()
    stop.set()
    with Teacher(server.base_url) as teacher, pytest.raises(StateError, match="img-1"):
        ask(teacher, make_request(), **make_terms(MemoryLedger(), stop=stop))
    assert server.heard == []


def test_a_stop_ends_the_wait_between_tries(server: ScriptedServer) -> None:
    server.answers = [failure(429, retry_after="40")]
    stop = threading.Event()
    terms = make_terms(MemoryLedger(), stop=stop)
    del terms["sleep"]
    with Teacher(server.base_url) as teacher, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, teacher, make_request(), **terms)
        while not server.heard:
            stop.wait(0.01)
        stop.set()
        with pytest.raises(StateError):
            waiting.result(timeout=5)


@given(st.integers(0, 6), st.none() | st.floats(0, 1000), st.text())
def test_waits_are_repeatable_and_never_shorter_than_asked(
    number: int, asked: float | None, seed: str
) -> None:
    wait = wait_after(number, asked, seed=seed)
    least = 0.5 * 2**number if asked is None else asked
    assert least <= wait <= 1.25 * least
    assert wait == wait_after(number, asked, seed=seed)


def test_a_reply_that_cannot_be_used_is_asked_for_again_with_the_reason(
    server: ScriptedServer,
) -> None:
    server.answers = [completion("bad"), completion("worse"), completion("good")]
    ledger = MemoryLedger()
    with Teacher(server.base_url) as teacher:
        value, reply = ask_until_usable(
            teacher, make_request(), parse=accept, max_reasks=2, **make_terms(ledger)
        )
    assert value == "good"
    assert reply.attempt_id == list(ledger.attempts)[-1]
    questions = [h.payload["messages"][1]["content"][0]["text"] for h in server.heard]
    assert "it said bad" not in questions[0]
    assert "it said bad" in questions[1]
    assert "it said bad" in questions[2]
    assert "it said worse" in questions[2]


def test_asking_again_is_bounded_and_ends_with_the_last_reason(server: ScriptedServer) -> None:
    server.answers = [completion("bad")]
    ledger = MemoryLedger()
    with Teacher(server.base_url) as teacher:
        for _ in range(2):
            with pytest.raises(DataError, match="it said bad"):
                ask_until_usable(
                    teacher, make_request(), parse=accept, max_reasks=2, **make_terms(ledger)
                )
    assert len(server.heard) == 3, "each of the three replies was stored and is not paid for again"


@given(st.text(min_size=1))
def test_each_asking_again_has_a_hash_of_its_own(reason: str) -> None:
    first = make_request()
    second = reask_of(first, reason)
    third = reask_of(second, reason)
    assert len({request_hash(first), request_hash(second), request_hash(third)}) == 3
    assert second.question.startswith(first.question)
    assert len(third.question) < len(first.question) + 1000
