"""Requests and tokens of a minute: what a limiter must do.

The rule itself, and what it guarantees, stand in `core.limits`.
"""

from __future__ import annotations

from typing import Protocol


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
