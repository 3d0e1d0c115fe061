"""Who makes the shards of a build: this process, several local ones, or workers on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from pathlib import Path

from core.errors import ConfigError
from instruct_builder.memory import be_slim, give_back
from instruct_builder.staging import Range, Staging
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
    def hands(self, shards: int) -> Iterator[Hands]:
        """What plans rows and makes so many shards."""
        size = 1 if self.hand_out else min(self.workers, shards)
        if size == 1:
            yield Hands(self.hand_out, self.report)
            return
        spawn = get_context("spawn")
        with ProcessPoolExecutor(size, mp_context=spawn, initializer=be_slim) as pool:
            try:
                yield PoolOfHands(None, self.report, pool, size)
            except BrokenProcessPool:
                for process in active_children():  # the pool waits for one that it just started
                    process.terminate()
                raise ConfigError(
                    "a process that made shards was ended: build again to go on, with fewer "
                    "--workers if memory ran out"
                ) from None
            finally:
                pool.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Hands:
    """This process, which leaves shards to others where `hand_out` is given."""

    hand_out: Callable[[Staging, Callable[[], None]], None] | None
    report: Report

    def wake(self) -> None:
        """Start what takes a while to start, as other work goes on meanwhile."""

    def plan(self, staging: Staging, *, go_on: bool) -> None:
        """Plan all parts; with `go_on`, free hands make the shards of parts that are planned."""
        for number in staging.unplanned():
            staging.plan_part(number)

    def begin(self, staging: Staging) -> None:
        """Begin to make what is missing, as far as others do it."""

    def make(self, staging: Staging) -> None:
        """Make all shards that are missing."""
        self.tell(staging)
        missing = staging.missing()
        if self.hand_out is not None and missing:
            self.hand_out(staging, lambda: self.tell(Staging(staging.path)))
            return
        for number in missing:
            staging.make_shard(number)
            self.tell(staging)

    def tell(self, staging: Staging) -> None:
        """Report how far the shards are."""
        sizes = [each.stop - each.start for each in staging.ranges]
        waiting = sum(sizes[number] for number in staging.missing())
        self.report(sum(sizes) - waiting, sum(sizes))


@dataclass(frozen=True)
class PoolOfHands(Hands):
    """Several processes of this machine."""

    pool: ProcessPoolExecutor
    size: int
    begun: dict[Range, Future[None]] = field(default_factory=dict)

    def wake(self) -> None:
        for _ in range(self.size):
            self.pool.submit(_start)

    def plan(self, staging: Staging, *, go_on: bool) -> None:
        folder = str(staging.path)
        planning = {self.pool.submit(plan_part, folder, part) for part in staging.unplanned()}
        for each in as_completed(planning):
            for rows in each.result() if go_on else ():
                self._begin(staging, rows)

    def begin(self, staging: Staging) -> None:
        for number in staging.missing():
            self._begin(staging, staging.ranges[number])

    def make(self, staging: Staging) -> None:
        self.tell(staging)
        self.begin(staging)
        running: set[Future[None]] = {*self.begun.values()}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                each.result()
            self.tell(staging)
        self.pool.shutdown()

    def _begin(self, staging: Staging, rows: Range) -> None:
        if rows not in self.begun:
            self.begun[rows] = self.pool.submit(make_rows, str(staging.path), rows)


def _start() -> None:
    """Nothing: the process has read its programs by now."""


def plan_part(folder: str, number: int) -> list[Range]:
    """Plan one part of the build in a folder, in whatever process this is; gives its shards."""
    ranges = _opened(folder).plan_part(number)
    give_back()
    return ranges


def make_rows(folder: str, rows: Range) -> None:
    """Make the shard of some rows of a planned part."""
    _opened(folder).make(rows)


def make_shard(folder: str, number: int) -> None:
    """Make one shard of a build whose plan is complete."""
    _opened(folder).make_shard(number)


_last: dict[tuple[str, int], Staging] = {}


def _opened(folder: str) -> Staging:
    """The staging folder, read once by a process that works on it several times."""
    key = folder, Staging(Path(folder)).began_ns
    if key not in _last:
        _last.clear()
        _last[key] = Staging(Path(folder))
    return _last[key]
