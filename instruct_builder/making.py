"""Who makes the shards of a build: this process, several local ones, or workers on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from pathlib import Path

from core.errors import ConfigError
from instruct_builder.staging import Staging
from instruct_builder.stopwatch import Stopwatch

Report = Callable[[int, int], None]
"""told how many rows are made, of how many"""


def _say_nothing(done: int, total: int) -> None:
    """For callers that show no progress."""


@dataclass(frozen=True, kw_only=True)
class Making:
    """How a build works; decides nothing of what comes out."""

    workers: int = 1
    """processes of this machine"""
    hand_out: Callable[[Staging, Callable[[], None]], None] | None = None
    """makes the missing shards elsewhere, and calls back now and then while it waits"""
    check_all: bool = False
    """look at the words of every row, not of a sample"""
    report: Report = _say_nothing
    stopwatch: Stopwatch = field(default_factory=Stopwatch)

    @contextmanager
    def started(self, shards: int) -> Iterator[Callable[[Staging], None]]:
        """Start what is needed to make so many shards; gives what makes all that are missing.

        Processes take a while to start, which a plan that is under way meanwhile hides.
        """
        size = 1 if self.hand_out else min(self.workers, shards)
        if size == 1:
            yield self._make
            return
        with ProcessPoolExecutor(size, mp_context=get_context("spawn")) as pool:
            try:
                for _ in range(size):
                    pool.submit(_start)
                yield lambda staging: self._in_processes(pool, staging)
            except BrokenProcessPool:
                for process in active_children():  # the pool waits for one that it just started
                    process.terminate()
                raise ConfigError(
                    "a process that made shards was ended: build again to go on, with fewer "
                    "--workers if memory ran out"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)

    def _make(self, staging: Staging) -> None:
        self._tell(staging)
        missing = staging.missing()
        if self.hand_out is not None and missing:
            self.hand_out(staging, lambda: self._tell(Staging(staging.path)))
            return
        for number in missing:
            staging.make_shard(number)
            self._tell(staging)

    def _in_processes(self, pool: ProcessPoolExecutor, staging: Staging) -> None:
        self._tell(staging)
        folder = str(staging.path)
        running = {pool.submit(make_shard, folder, number) for number in staging.missing()}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                each.result()
            self._tell(staging)
        pool.shutdown()

    def _tell(self, staging: Staging) -> None:
        sizes = [each.stop - each.start for each in staging.ranges]
        waiting = sum(sizes[number] for number in staging.missing())
        self.report(sum(sizes) - waiting, sum(sizes))


def _start() -> None:
    """Nothing: the process has read its programs by now."""


def make_shard(folder: str, number: int) -> None:
    """Make one shard of the build in a folder, in whatever process this is."""
    _opened(folder).make_shard(number)


_last: list[Staging] = []


def _opened(folder: str) -> Staging:
    """The staging folder, read once by a process that makes several shards."""
    if not _last or _last[0].path != Path(folder):
        _last[:] = [Staging(Path(folder))]
    return _last[0]
