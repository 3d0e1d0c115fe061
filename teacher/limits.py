"""Requests and tokens of a minute: what a limiter must do, and one that lives in memory.

The rule itself, and what it guarantees, stand in `core.limits`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from core.limits import Limits, forgetful, refund, reserve


class Limiter(Protocol):
    """Keeps all workers together within what one teacher allows in a minute.

    Reserve before each call, and again when the call is not on its way within
    `core.limits.HEADROOM_S` seconds of the reservation. TransientError where the memory that the
    workers share cannot be reached: nothing is sent then.
    """

    def reserve(self, *, requests: int, tokens: int) -> float:
        """Seconds to wait before trying again; 0.0 when reserved.

        `tokens` is the worst case of the call. PermanentError for a call that never fits.
        """
        ...

    def refund(self, *, tokens: int) -> None:
        """Give back what was reserved and not used, at least 0: later calls may go sooner.

        It never lets more reserved tokens through than the limit of a minute. A call that was not
        made is refunded whole; its request stays counted.
        """
        ...


class MemoryLimiter:
    """The limiter of one process; like any other it starts without memory, so with a wait."""

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
