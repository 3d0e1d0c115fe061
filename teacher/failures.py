"""How a call to a teacher fails: the platform's errors, each with what the ledger row will say.

FailedCall
 ├─ RateLimited   TransientError   429, waits as long as the teacher asks
 ├─ ServerFailed  TransientError   408, 409, 425, 5xx
 ├─ TimedOut      TransientError   no reply within the time limit
 ├─ Unreachable   TransientError   no connection, or it broke
 ├─ Refused       PermanentError   key, quota, model or a setting: no image would get through
 └─ Unacceptable  DataError        this one request was refused
"""

from __future__ import annotations

from core.errors import DataError, FakeScopeError, PermanentError, TransientError
from core.records import AttemptOutcome


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


class Refused(FailedCall, PermanentError):
    """The teacher refuses every request that we could send; `status` is that of HTTP."""

    outcome = AttemptOutcome.REJECTED

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


class Unacceptable(FailedCall, DataError):
    """The teacher refuses this one request."""

    outcome = AttemptOutcome.REJECTED
