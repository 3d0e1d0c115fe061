"""How a call to a teacher fails: the platform's errors, each with what the ledger row will say.

FailedCall
 ├─ RateLimited   TransientError   429, waits as long as the teacher asks
 ├─ ServerFailed  TransientError   408, 409, 425, 5xx
 ├─ TimedOut      TransientError   no reply within the time limit
 ├─ Unreachable   TransientError   no connection, or it broke
 ├─ NotRun        TransientError   its batch ended before its turn came
 ├─ Refused       PermanentError   key, quota, model or a setting: no image would get through
 └─ Unacceptable  DataError        this one request was refused
"""

from __future__ import annotations

from core.errors import DataError, FakeScopeError, PermanentError, TransientError
from core.records import AttemptOutcome

EVERY_REQUEST = frozenset(
    {
        "billing_hard_limit_reached",
        "billing_not_active",
        "insufficient_quota",
        "invalid_json_schema",
        "model_not_found",
        "unknown_parameter",
        "unsupported_parameter",
        "unsupported_value",
    }
)
"""error codes that no other image would escape"""
TRANSIENT = frozenset({408, 409, 425})
PERMANENT = frozenset({401, 402, 403, 404, 405})


class FailedCall(FakeScopeError):
    """A call that brought no reply; `outcome` goes into its ledger row."""

    outcome = AttemptOutcome.UNKNOWN


class RateLimited(FailedCall, TransientError):
    """The teacher asked for a pause."""

    outcome = AttemptOutcome.RATE_LIMITED


class ServerFailed(FailedCall, TransientError):
    """The teacher failed inside."""

    outcome = AttemptOutcome.SERVER_ERROR


class TimedOut(FailedCall, TransientError):
    """The teacher did not answer within the time limit."""

    outcome = AttemptOutcome.TIMED_OUT


class Unreachable(FailedCall, TransientError):
    """Nobody answers at the teacher's address."""

    outcome = AttemptOutcome.UNREACHABLE


class NotRun(FailedCall, TransientError):
    """A line of a batch that was never run, nor billed."""

    outcome = AttemptOutcome.NOT_RUN


class Refused(FailedCall, PermanentError):
    """The teacher refuses every request that we could send; `status` is that of HTTP."""

    outcome = AttemptOutcome.REJECTED

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unacceptable(FailedCall, DataError):
    """The teacher refuses this one request."""

    outcome = AttemptOutcome.REJECTED


def kind_of(status: int, *codes: str | None) -> type[FailedCall]:
    """What a status of HTTP and the error codes that came with it mean for what follows."""
    is_general = bool(EVERY_REQUEST.intersection(codes))
    if is_general or status in PERMANENT or status < 400:  # 3xx: nothing is redirected
        return Refused
    if status == 429:
        return RateLimited
    return ServerFailed if status in TRANSIENT or status >= 500 else Unacceptable
