"""When the next call to a teacher may leave: after its pause is over, and within its limits."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from core.errors import StateError, TransientError
from core.limits import HEADROOM_S
from teacher.failures import RateLimited
from teacher.limits import Limiter

log = logging.getLogger("fakescope.teacher")

LONGEST_WAIT_S = 60.0
"""a teacher that asks for more is left alone, and the work goes back to the queue"""
OUTAGE_WAIT_S = 1.0
"""between two questions to a limiter that cannot be reached"""


class Gate:
    """Before all calls of this process to one teacher; they queue here one behind the other."""

    def __init__(
        self, limiter: Limiter | None = None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Without `limiter` only the teacher's own word counts."""
        self._limiter = limiter
        self._clock = clock
        self._turn = threading.Lock()
        self._opens_at = clock()
        self._asked: set[str] = set()
        """requests on which somebody is at work"""
        self._answered = threading.Condition()

    @property
    def closed_for(self) -> float:
        """Seconds until the pause that the teacher asked for is over; 0.0 without one."""
        return max(0.0, self._opens_at - self._clock())

    def close(self, seconds: float) -> None:
        """The teacher asked for a pause: nobody goes through before it is over."""
        self._opens_at = max(self._opens_at, self._clock() + seconds)

    @contextmanager
    def one_by_one(self, name: str) -> Iterator[None]:
        """Whoever makes the same request at the same moment waits here, and finds it answered."""
        with self._answered:
            self._answered.wait_for(lambda: name not in self._asked)
            self._asked.add(name)
        try:
            yield
        finally:
            with self._answered:
                self._asked.remove(name)
                self._answered.notify_all()

    def enter(self, *, tokens: int, stop: threading.Event) -> float:
        """Wait until a call of so many tokens at worst may leave, and reserve it.

        Returns the moment, for `is_late`. RateLimited where the teacher asked for a long pause,
        StateError when stopped, PermanentError for a call that no minute could hold.
        """
        with self._turn:
            while not stop.is_set():
                pause = self.closed_for
                if pause > LONGEST_WAIT_S:
                    raise RateLimited("the teacher asked for a pause", retry_after=pause)
                wait = pause or self._reserve(tokens)
                if not wait:
                    return self._clock()
                stop.wait(wait)
        raise StateError("stopped before the next call")

    def is_late(self, entered: float) -> bool:
        """Whether a call that entered then may arrive after its reservation has ended."""
        return self._limiter is not None and self._clock() - entered > HEADROOM_S / 2

    def refund(self, tokens: int) -> None:
        """Give back what was reserved and not used."""
        if self._limiter is None or tokens <= 0:
            return
        try:
            self._limiter.refund(tokens=tokens)
        except TransientError as error:
            log.warning("%d tokens were not given back: %s", tokens, error)

    def _reserve(self, tokens: int) -> float:
        if self._limiter is None:
            return 0.0
        try:
            return self._limiter.reserve(requests=1, tokens=tokens)
        except TransientError as error:
            log.warning("nothing is sent for now: %s", error)
            return OUTAGE_WAIT_S
