"""The limiter that counts in Redis, on the clock of its server; nothing else imports `redis`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError, RedisError
from redis.retry import Retry

from core.errors import ConfigError, PermanentError, TransientError
from core.ids import sha256_text
from core.limits import BURST, HELD_S, SHORTEST_WAIT_S, Limits

SCRIPT = Path(__file__).with_name("redis_limits.lua").read_text(encoding="utf-8")
TIMEOUT_S = 3.0
"""an answer that comes late uses up the headroom of the reservation"""
SETTINGS = "LIMITS_REDIS_URL (or CELERY_BROKER_URL)"


class RedisLimiter:
    """One key per teacher and model, changed by one script; all campaigns and workers share it.

    A limiter of `teacher.limits.Limiter`, safe from any thread. A server that was restarted,
    emptied or replaced by a replica has lost its memory, so everybody waits. A script that is sent
    twice because its answer was lost counts twice: more than the truth, never less.
    """

    def __init__(
        self,
        address: str,
        limits: Limits,
        *,
        teacher: str,
        model: str,
        clock: Callable[[], float] | None = None,
    ) -> None:
        """`clock` takes the place of the server's own."""
        self._limits = limits
        self._key = f"fakescope:limits:{sha256_text(f'{teacher} {model}')}"
        self._clock = clock
        client = _connect(address)
        self._place = _describe(client)
        self._script = client.register_script(SCRIPT)

    def reserve(self, *, requests: int, tokens: int) -> float:
        """Seconds to wait before trying again; 0.0 when reserved."""
        self._limits.check(requests=requests, tokens=tokens)
        return self._run(requests=requests, tokens=tokens)

    def refund(self, *, tokens: int) -> None:
        """Give back what was reserved and not used."""
        self._run(refund=tokens)

    def _run(self, *, requests: int = 0, tokens: int = 0, refund: int | None = None) -> float:
        limits = (self._limits.requests_per_minute, self._limits.tokens_per_minute)
        now = None if self._clock is None else self._clock()
        rule = (HELD_S, BURST, SHORTEST_WAIT_S)
        arguments = (*limits, requests, tokens, refund, *rule, now)
        with _explained(self._place):
            wait = self._script(
                keys=[self._key], args=["" if value is None else value for value in arguments]
            )
        return float(wait)


def _connect(address: str) -> redis.Redis:
    try:
        return redis.Redis.from_url(
            address,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError:
        raise ConfigError(
            f"{SETTINGS} is no Redis address; it looks like redis://:password@host:6379/0"
        ) from None


def _describe(client: redis.Redis) -> str:
    """The server without user and password."""
    where = client.get_connection_kwargs()
    return f"Redis at {where.get('host', 'localhost')}:{where.get('port', 6379)}"


@contextmanager
def _explained(place: str) -> Iterator[None]:
    try:
        yield
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        raise PermanentError(f"{place} refuses us ({error}): check {SETTINGS}") from None
    except (RedisError, OSError) as error:
        raise TransientError(f"{place} cannot count requests and tokens: {error}") from None
