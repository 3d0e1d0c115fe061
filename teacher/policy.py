"""When to ask, how often, and what to say after a reply that cannot be used."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import NotRequired, Protocol, TypedDict, TypeVar, Unpack

from core.errors import DataError, PermanentError, StateError, TransientError
from core.ids import unit_interval
from core.records import AttemptOutcome, TeacherReply, TeacherRequest, Usage
from teacher.failures import FailedCall, RateLimited
from teacher.gate import LONGEST_WAIT_S, Gate
from teacher.ledger import Ledger
from teacher.prices import Price, cost
from teacher.request import request_hash, worst_case_tokens

FIRST_WAIT_S = 0.5
JITTER = 0.25
LONGEST_REASON = 300
"""characters"""
NO_SLOT = nullcontext()
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
    gate: Gate
    """of the teacher, shared by all who ask it"""
    slot: NotRequired[AbstractContextManager[object]]
    """held from before a call is written down until its reply is stored; by default nothing is"""
    sleep: NotRequired[Callable[[float], object]]
    """how to wait between tries; by default on `stop`, which ends the wait"""


def ask(teacher: Asked, request: TeacherRequest, **terms: Unpack[Terms]) -> TeacherReply:
    """The stored reply, or else that of a new call; nothing is paid for twice.

    Raises TransientError after `max_tries` failures that may pass (or at once, where the teacher
    asks for a long pause), PermanentError and DataError at once, and StateError when stopped
    before a call.
    """
    name = request_hash(request)
    with terms["gate"].one_by_one(name):
        return _stored_or_called(teacher, request, name, **terms)


def _stored_or_called(
    teacher: Asked, request: TeacherRequest, name: str, **terms: Unpack[Terms]
) -> TeacherReply:
    stored = terms["ledger"].stored_reply(name)
    if stored is not None:
        return stored
    sleep = terms.get("sleep", terms["stop"].wait)
    for number in range(terms["max_tries"]):
        if terms["stop"].is_set():
            break
        try:
            with terms.get("slot", NO_SLOT):
                return _call(teacher, request, name, **terms)
        except TransientError as error:
            wait = wait_after(number, error.retry_after, seed=name)
            if isinstance(error, RateLimited) and error.retry_after is not None:
                terms["gate"].close(error.retry_after)
            if number + 1 == terms["max_tries"] or wait > LONGEST_WAIT_S:
                raise
            sleep(wait)
    raise StateError(f"{terms['image_id']}: stopped before the next call to {request.model}")


def _call(
    teacher: Asked, request: TeacherRequest, name: str, **terms: Unpack[Terms]
) -> TeacherReply:
    """One call: reserved, written down, sent, and its reply stored before anybody reads it."""
    ledger, price, gate = terms["ledger"], terms["price"], terms["gate"]
    worst = worst_case_tokens(request, price.image)
    tokens = worst.prompt_tokens + worst.completion_tokens
    attempt_id = _open_attempt(request, name, tokens=tokens, usd=cost(worst, price), **terms)
    try:
        reply = teacher.send(request)
    except FailedCall as error:
        ledger.fail_attempt(attempt_id, error.outcome, str(error))
        raise
    if reply.usage == Usage():  # nobody counted: then it is taken for the worst case
        return ledger.store_reply(attempt_id, reply, cost(worst, price))
    stored = ledger.store_reply(attempt_id, reply, cost(reply.usage, price))
    gate.refund(tokens - reply.usage.prompt_tokens - reply.usage.completion_tokens)
    return stored


def _open_attempt(
    request: TeacherRequest, name: str, *, tokens: int, usd: float, **terms: Unpack[Terms]
) -> str:
    """Go through the gate and write the call down; anew when writing took too long."""
    gate, ledger = terms["gate"], terms["ledger"]
    while True:
        entered = gate.enter(tokens=tokens, stop=terms["stop"])
        try:
            attempt_id = ledger.open_attempt(
                request_hash=name,
                image_id=terms["image_id"],
                arm=terms["arm"],
                model=request.model,
                reserved_usd=usd,
            )
        except (PermanentError, StateError):
            gate.refund(tokens)
            raise
        if not gate.is_late(entered):
            return attempt_id
        ledger.fail_attempt(attempt_id, AttemptOutcome.UNREACHABLE, "not sent: the ledger was slow")
        gate.refund(tokens)


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
