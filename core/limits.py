"""How much may be asked of a teacher in a minute: the one rule that every limiter follows.

The law. In no sliding 60 seconds do more requests, or more reserved tokens, arrive at the teacher
than its limit, provided that each call arrives within `HEADROOM_S` of its reservation. A call has
to pass two gates:

* The window: this call and all that was reserved in the last `HELD_S` seconds stay within the
  limit. Nothing lowers that count, a refund neither. This gate alone holds the law.
* The pace: a token bucket, so that a minute's calls do not leave all at once. Its burst and what
  flows in within `HELD_S` seconds make up the limit. A call larger than the burst needs a full
  bucket and leaves a debt. A refund flows back here: calls that use less than their worst case
  go faster than the pace, up to what the window lets through.

Who knows nothing of the last minute grants nothing for `HELD_S` seconds, because the whole limit
may have been granted in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from core.errors import PermanentError

HEADROOM_S = 10.0
"""from a reservation until its request is at the teacher, at most"""
HELD_S = 60.0 + HEADROOM_S + 1.0
"""how long a reservation counts: it is counted by the whole second in which it was made"""
BURST = 0.05
"""share of a limit that its bucket holds: three seconds of a minute"""
SHORTEST_WAIT_S = 0.001


class Limits(BaseModel):
    """What a teacher allows in a minute; a limit that is absent does not bind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    """of prompt, image and reply, each call counted at its worst case"""

    @model_validator(mode="after")
    def _name_one(self) -> Self:
        if self.requests_per_minute is None and self.tokens_per_minute is None:
            raise ValueError("name requests_per_minute, tokens_per_minute or both")
        return self

    def of(self, resource: str) -> int | None:
        """The limit of a resource: `requests` or `tokens`."""
        limits = {"requests": self.requests_per_minute, "tokens": self.tokens_per_minute}
        return limits[resource]

    def check(self, *, requests: int, tokens: int) -> None:
        """PermanentError for a call so large that no minute could hold it."""
        for resource, asked in (("requests", requests), ("tokens", tokens)):
            limit = self.of(resource)
            if limit is not None and asked > limit:
                raise PermanentError(
                    f"a call of up to {asked:,} {resource} never fits {resource}_per_minute: "
                    f"{limit:,}; raise that limit of the arm in recipe.yaml (or "
                    f"OPENAI_{resource.upper()}_PER_MINUTE), or lower the arm's max_output_tokens"
                )


class Slot(NamedTuple):
    """What was reserved in one whole second of the limiter's clock."""

    second: int
    requests: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """All that a limiter remembers of one teacher; times in seconds on the limiter's clock."""

    opens_at: float
    """nothing is granted before"""
    seen_at: float
    """until when the buckets are filled"""
    requests: float = 0.0
    """in the bucket of requests; below 0 after a call larger than the burst"""
    tokens: float = 0.0
    """in the bucket of tokens, likewise"""
    slots: tuple[Slot, ...] = ()
    """of the last `HELD_S` seconds, oldest first"""


def forgetful(now: float) -> Window:
    """The window of a limiter that does not know what was granted before `now`."""
    return Window(opens_at=now + HELD_S, seen_at=now)


def reserve(
    window: Window, limits: Limits, now: float, *, requests: int, tokens: int
) -> tuple[Window, float]:
    """The window afterwards, and 0.0 when the call was let in, or else the seconds to wait.

    PermanentError for a call that never fits.
    """
    limits.check(requests=requests, tokens=tokens)
    window = _at(window, now, limits)
    wait = window.opens_at - window.seen_at
    for resource, asked in (("requests", requests), ("tokens", tokens)):
        limit = limits.of(resource)
        if limit is not None:
            room = _wait_for_room(window, resource, asked, limit)
            wait = max(wait, room, _wait_for_pace(window, resource, asked, limit))
    if wait > 0:
        return window, max(wait, SHORTEST_WAIT_S)
    return _taken(window, requests, tokens), 0.0


def refund(window: Window, limits: Limits, now: float, *, tokens: int) -> Window:
    """The window after `tokens` that were reserved and not used have flowed back."""
    window = _at(window, now, limits)
    return replace(window, tokens=_filled(window.tokens + tokens, limits.tokens_per_minute))


def _at(window: Window, now: float, limits: Limits) -> Window:
    """The window at a later moment; a clock that was set back leaves no memory to rely on."""
    if now < window.seen_at - 1:
        return forgetful(now)
    passed = max(0.0, now - window.seen_at)
    request_limit, token_limit = limits.requests_per_minute, limits.tokens_per_minute
    return replace(
        window,
        seen_at=window.seen_at + passed,
        requests=_filled(window.requests + passed * _refill(request_limit), request_limit),
        tokens=_filled(window.tokens + passed * _refill(token_limit), token_limit),
        slots=tuple(slot for slot in window.slots if slot.second + HELD_S > now),
    )


def _filled(level: float, limit: int | None) -> float:
    """What a bucket keeps of `level`; without a limit there is no bucket."""
    return 0.0 if limit is None else min(BURST * limit, level)


def _refill(limit: int | None) -> float:
    """What flows into a bucket in a second."""
    return 0.0 if limit is None else (1 - BURST) * limit / HELD_S


def _wait_for_room(window: Window, resource: str, asked: int, limit: int) -> float:
    """Seconds until so much has left the window that the call fits in."""
    excess = asked + sum(getattr(slot, resource) for slot in window.slots) - limit
    wait = 0.0
    for slot in window.slots:
        if excess <= 0:
            break
        excess -= getattr(slot, resource)
        wait = slot.second + HELD_S - window.seen_at
    return wait


def _wait_for_pace(window: Window, resource: str, asked: int, limit: int) -> float:
    """Seconds until the bucket holds the call or is full."""
    level: float = getattr(window, resource)
    return (min(asked, BURST * limit) - level) / _refill(limit)


def _taken(window: Window, requests: int, tokens: int) -> Window:
    second = math.floor(window.seen_at)
    *earlier, last = window.slots or (Slot(second, 0, 0),)
    if last.second != second:
        earlier, last = [*earlier, last], Slot(second, 0, 0)
    slot = Slot(second, last.requests + requests, last.tokens + tokens)
    return replace(
        window,
        requests=window.requests - requests,
        tokens=window.tokens - tokens,
        slots=(*earlier, slot),
    )
