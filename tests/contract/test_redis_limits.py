"""What a Redis server may do to the limiter: start anew, lose or mix up its memory, be away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from core.errors import ConfigError, PermanentError, TransientError
from core.limits import HELD_S, Limits
from teacher.redis_limits import RedisLimiter
from tests.redis_servers import RedisServer

LIMITS = Limits(requests_per_minute=100)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def open_limiter(address: str, now: float) -> RedisLimiter:
    return RedisLimiter(address, LIMITS, teacher="t", model="m", clock=lambda: now)


def awake(server: RedisServer) -> RedisLimiter:
    """A limiter that has waited for its first minute, at second 100."""
    open_limiter(server.address, 100 - HELD_S).refund(tokens=0)
    limiter = open_limiter(server.address, 100)
    assert limiter.reserve(requests=1, tokens=1) == 0
    return limiter


def test_after_a_restart_everybody_waits_for_a_full_minute(server: RedisServer) -> None:
    limiter = awake(server)
    server.kill()
    server.start()
    assert limiter.reserve(requests=1, tokens=1) == pytest.approx(HELD_S)


def test_an_old_copy_that_a_server_read_back_is_no_memory(server: RedisServer) -> None:
    limiter = awake(server)
    client = redis.Redis.from_url(server.address)
    client.save()
    server.kill()
    server.start()
    assert client.dbsize() == 1
    assert limiter.reserve(requests=1, tokens=1) == pytest.approx(HELD_S)


def test_an_emptied_server_makes_everybody_wait(server: RedisServer) -> None:
    limiter = awake(server)
    redis.Redis.from_url(server.address).flushall()
    assert limiter.reserve(requests=1, tokens=1) == pytest.approx(HELD_S)


def test_forgotten_scripts_are_sent_again(server: RedisServer) -> None:
    limiter = awake(server)
    redis.Redis.from_url(server.address).script_flush()
    assert limiter.reserve(requests=1, tokens=1) == 0


def test_a_server_that_is_away_lets_nothing_through_and_is_found_again(
    server: RedisServer,
) -> None:
    limiter = awake(server)
    server.kill()
    with pytest.raises(TransientError, match=rf"Redis at 127\.0\.0\.1:{server.port} cannot count"):
        limiter.reserve(requests=1, tokens=1)
    server.start()
    assert limiter.reserve(requests=1, tokens=1) > 0


def test_a_full_server_lets_nothing_through(server: RedisServer) -> None:
    limiter = awake(server)
    redis.Redis.from_url(server.address).config_set("maxmemory", 1)
    with pytest.raises(TransientError, match="maxmemory"):
        limiter.reserve(requests=1, tokens=1)


def test_a_wrong_password_is_named_and_not_shown(tmp_path: Path) -> None:
    with RedisServer(tmp_path, "--requirepass", "right") as server:
        address = server.address.replace("127", ":hush@127")
        with pytest.raises(PermanentError, match="LIMITS_REDIS_URL") as caught:
            open_limiter(address, 100).reserve(requests=1, tokens=1)
    assert "hush" not in str(caught.value)


def test_an_address_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match="no Redis address"):
        open_limiter("redis://127.0.0.1:port/0", 100)
