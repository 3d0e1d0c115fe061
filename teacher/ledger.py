"""The book of paid calls: what a ledger must do, and one that lives in memory."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import Protocol

from core.errors import PermanentError, StateError
from core.ids import content_id
from core.records import Attempt, AttemptOutcome, TeacherReply

UNSETTLED = frozenset({AttemptOutcome.UNKNOWN, AttemptOutcome.TIMED_OUT})
"""may have been billed without our knowing: they keep their worst-case reservation"""


class Ledger(Protocol):
    """One row per call, written before it; the raw reply stored before anything reads it.

    What counts against the ceiling: the cost of every stored reply, and the reservation of every
    attempt that has no end (its process died) or that timed out: either may have been billed.
    """

    def stored_reply(self, request_hash: str) -> TeacherReply | None:
        """The reply to this request that the newest attempt brought, with its `attempt_id`."""
        ...

    def open_attempt(
        self, *, request_hash: str, image_id: str, arm: str, model: str, reserved_usd: float
    ) -> str:
        """Write the row of a call about to be made; PermanentError above the money ceiling.

        StateError when the image was withdrawn.
        """
        ...

    def store_reply(self, attempt_id: str, reply: TeacherReply, cost_usd: float) -> TeacherReply:
        """Keep a reply and its cost; returns it with its `attempt_id`. StateError if closed."""
        ...

    def fail_attempt(self, attempt_id: str, outcome: AttemptOutcome, reason: str) -> None:
        """Close an attempt that brought no reply and refund it, unless it timed out.

        StateError if closed.
        """
        ...


def check_ceiling(*, committed_usd: float, reserved_usd: float, ceiling_usd: float | None) -> None:
    """PermanentError when a reservation on top of what is committed would pass the ceiling."""
    if ceiling_usd is None or committed_usd + reserved_usd <= ceiling_usd:
        return
    raise PermanentError(
        f"the ceiling of ${ceiling_usd:.2f} is reached: ${committed_usd:.4f} are spent or set "
        f"aside and the next call may cost ${reserved_usd:.4f}; raise it with --budget"
    )


@dataclass(kw_only=True)
class MemoryLedger:
    """The rules of `Ledger` without a database, for tests and trials; forgets at exit."""

    campaign_id: str = "in-memory"
    ceiling_usd: float | None = None
    attempts: dict[str, Attempt] = field(default_factory=dict)
    """by attempt id, in the order of the calls"""
    replies: dict[str, TeacherReply] = field(default_factory=dict)
    """by attempt id"""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def committed_usd(self) -> float:
        """Spent or set aside."""
        rows = self.attempts.values()
        return sum(r.reserved_usd if r.cost_usd is None else r.cost_usd for r in rows)

    def stored_reply(self, request_hash: str) -> TeacherReply | None:
        with self._lock:
            found = [self.replies[a] for a in self.attempts if a in self.replies]
        return next((r for r in reversed(found) if r.request_hash == request_hash), None)

    def open_attempt(
        self, *, request_hash: str, image_id: str, arm: str, model: str, reserved_usd: float
    ) -> str:
        with self._lock:
            check_ceiling(
                committed_usd=self.committed_usd,
                reserved_usd=reserved_usd,
                ceiling_usd=self.ceiling_usd,
            )
            attempt = Attempt(
                attempt_id=content_id("attempt", request_hash, len(self.attempts)),
                request_hash=request_hash,
                image_id=image_id,
                campaign_id=self.campaign_id,
                arm=arm,
                model=model,
                outcome=AttemptOutcome.UNKNOWN,
                reserved_usd=reserved_usd,
                cost_usd=None,
                usage=None,
                reason=None,
            )
            self.attempts[attempt.attempt_id] = attempt
        return attempt.attempt_id

    def store_reply(self, attempt_id: str, reply: TeacherReply, cost_usd: float) -> TeacherReply:
        stored = replace(reply, attempt_id=attempt_id)
        with self._lock:
            self.attempts[attempt_id] = replace(
                self._open(attempt_id),
                outcome=AttemptOutcome.REPLIED,
                cost_usd=cost_usd,
                usage=reply.usage,
            )
            self.replies[attempt_id] = stored
        return stored

    def fail_attempt(self, attempt_id: str, outcome: AttemptOutcome, reason: str) -> None:
        with self._lock:
            self.attempts[attempt_id] = replace(
                self._open(attempt_id),
                outcome=outcome,
                cost_usd=None if outcome in UNSETTLED else 0.0,
                reason=reason,
            )

    def _open(self, attempt_id: str) -> Attempt:
        attempt = self.attempts.get(attempt_id)
        if attempt is None or attempt.outcome is not AttemptOutcome.UNKNOWN:
            raise StateError(f"attempt {attempt_id} is not open")
        return attempt
