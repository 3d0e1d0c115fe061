"""When to ask, how often, and what to say after a reply that cannot be used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import NotRequired, Protocol, TypedDict, TypeVar, Unpack

from core.errors import DataError, StateError, TransientError
from core.ids import unit_interval
from core.records import TeacherReply, TeacherRequest, Usage
from teacher.failures import FailedCall
from teacher.ledger import Ledger
from teacher.prices import Price, cost
from teacher.request import request_hash, worst_case_tokens

FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 60.0
"""a teacher that asks for more is left alone, and the work goes back to the queue"""
JITTER = 0.25
LONGEST_REASON = 300
"""characters"""
REASK_NOTE = (
    "Your previous reply could not be used: {reason}. "
    "Reply again, with one JSON object of the required form and nothing else."
)

Value = TypeVar("Value")


class Asked(Protocol):
    """Whatever can be asked: `teacher.client.Teacher`, or a fake."""

    def send(self, request: TeacherRequest) -> TeacherReply: ...


class Terms(TypedDict):
    """Under what terms a teacher is asked about one image."""

    ledger: Ledger
    image_id: str
    arm: str
    price: Price
    max_tries: int
    """calls for one request, where all but the last fail in passing"""
    stop: threading.Event
    """once set, no further call is made"""
    sleep: NotRequired[Callable[[float], object]]
    """how to wait between tries; by default on `stop`, which ends the wait"""


def ask(teacher: Asked, request: TeacherRequest, **terms: Unpack[Terms]) -> TeacherReply:
    """The stored reply, or else that of a new call; nothing is paid for twice.

    Raises TransientError after `max_tries` failures that may pass (or at once, where the teacher
    asks for a long pause), PermanentError and DataError at once, and StateError when stopped
    before a call.
    """
    stored = terms["ledger"].stored_reply(request_hash(request))
    if stored is not None:
        return stored
    sleep = terms.get("sleep", terms["stop"].wait)
    for number in range(terms["max_tries"]):
        if terms["stop"].is_set():
            break
        try:
            return _call(teacher, request, **terms)
        except TransientError as error:
            wait = wait_after(number, error.retry_after, seed=request_hash(request))
            if number + 1 == terms["max_tries"] or wait > LONGEST_WAIT_S:
                raise
            sleep(wait)
    raise StateError(f"{terms['image_id']}: stopped before the next call to {request.model}")


def _call(teacher: Asked, request: TeacherRequest, **terms: Unpack[Terms]) -> TeacherReply:
    ledger, price = terms["ledger"], terms["price"]
    reserved = cost(worst_case_tokens(request, price.image), price)
    attempt_id = ledger.open_attempt(
        request_hash=request_hash(request),
        image_id=terms["image_id"],
        arm=terms["arm"],
        model=request.model,
        reserved_usd=reserved,
    )
    try:
        reply = teacher.send(request)
    except FailedCall as error:
        ledger.fail_attempt(attempt_id, error.outcome, str(error))
        raise
    is_counted = reply.usage != Usage()
    return ledger.store_reply(
        attempt_id, reply, cost(reply.usage, price) if is_counted else reserved
    )


def wait_after(number: int, retry_after: float | None, *, seed: str) -> float:
    """Seconds to wait after failure `number` (from 0): as asked, else doubling; never less."""
    wait = FIRST_WAIT_S * 2**number if retry_after is None else retry_after
    return wait * (1 + JITTER * unit_interval("wait", seed, number))


def ask_until_usable(
    teacher: Asked,
    request: TeacherRequest,
    *,
    parse: Callable[[TeacherReply], Value],
    max_reasks: int,
    **terms: Unpack[Terms],
) -> tuple[Value, TeacherReply]:
    """The first reply that `parse` accepts, and what `parse` makes of it.

    `parse` raises DataError with the reason why a reply cannot be used: a refusal, a cut-off,
    broken JSON, a wrong verdict. Each further request carries that reason, so it has a hash of its
    own; after `max_reasks` of them the last reason is raised.
    """
    for _ in range(max_reasks):
        reply = ask(teacher, request, **terms)
        try:
            return parse(reply), reply
        except DataError as error:
            request = reask_of(request, str(error))
    reply = ask(teacher, request, **terms)
    return parse(reply), reply


def reask_of(request: TeacherRequest, reason: str) -> TeacherRequest:
    """The same request, which also says why its last reply could not be used."""
    note = REASK_NOTE.format(reason=" ".join(reason.split())[:LONGEST_REASON].rstrip("."))
    return replace(request, question=f"{request.question}\n\n{note}")
