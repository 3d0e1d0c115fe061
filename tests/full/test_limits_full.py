"""Processes and threads reserve by the clock of a real Redis, which is killed in between."""

from __future__ import annotations

import multiprocessing
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest

from core.errors import TransientError
from core.limits import HELD_S, Limits
from teacher.redis_limits import RedisLimiter
from tests.redis_servers import RedisServer

LIMITS = Limits(requests_per_minute=300, tokens_per_minute=60_000)
TOKENS = (50, 300, 700)
BEFORE_S, AFTER_S = HELD_S + 30, HELD_S + 40
"""seconds before and after the server is killed"""

Grant = tuple[float, int]
"""second since 1970, tokens"""


def reserve_until(address: str, deadline: float) -> list[Grant]:
    """What the threads of one process are granted; like calls, they refund half of it."""
    limiter = RedisLimiter(address, LIMITS, teacher="t", model="m")

    def work(tokens: int) -> list[Grant]:
        granted = []
        while time.time() < deadline:
            try:
                wait = limiter.reserve(requests=1, tokens=tokens)
                if not wait:
                    granted.append((time.time(), tokens))
                    limiter.refund(tokens=tokens // 2)
            except TransientError:
                wait = 0.2
            time.sleep(min(wait, max(0.0, deadline - time.time())))
        return granted

    with ThreadPoolExecutor(len(TOKENS)) as pool:
        return [grant for grants in pool.map(work, TOKENS) for grant in grants]


def restart_after(server: RedisServer, seconds: float) -> None:
    time.sleep(seconds)
    server.kill()
    server.start()


@pytest.mark.full
def test_no_minute_holds_more_than_the_limits_across_a_restart(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    with RedisServer(tmp_path) as server, ProcessPoolExecutor(3, mp_context=spawn) as pool:
        start = time.time()
        restart = threading.Thread(target=restart_after, args=(server, BEFORE_S))
        restart.start()
        jobs = [
            pool.submit(reserve_until, server.address, start + BEFORE_S + AFTER_S) for _ in range(3)
        ]
        granted = sorted(grant for job in jobs for grant in job.result())
        restart.join()
    for last, _ in granted:
        minute = [tokens for at, tokens in granted if last - 60 <= at <= last]
        assert len(minute) <= 300
        assert sum(minute) <= 60_000
    gaps = [later - at for (at, _), (later, _) in pairwise(granted)]
    assert max(gaps) > 60, "the restart was not noticed"
    assert granted[0][0] < start + BEFORE_S < granted[-1][0]
