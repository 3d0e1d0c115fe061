"""A crew of processes that take files in: one core each, and a decoder that crashes or hangs costs
one file instead of the whole import.

The processes are started afresh (`python -m imaging.crew`), neither forked from a program that has
threads nor loaded with what it had loaded: they know this package and `core`, no database and no
framework. Each ends by itself when its program has gone, however that ended.
"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Final

from core.errors import ConfigError, FakeScopeError, StateError
from imaging.decode import Limits
from imaging.intake import Intake, Job, Refusal, take_in
from imaging.store import ImageStore

CHUNK: Final = 16
CHUNK_BYTES: Final = 2**23
CHUNKS_AHEAD: Final = 3
"""chunks per process that are under way at once"""
GRACE: Final = 2.0
"""times the limit of one file before its process is ended"""
START_SECONDS: Final = 120.0
READY: Final = "ready"


Outcome = Intake | Refusal


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Crew:
    """Takes files in with several processes; results come in the order of the jobs."""

    def __init__(self, store: ImageStore, limits: Limits, *, size: int) -> None:
        self._new_hand = partial(_Hand, store, limits)
        self._size = size
        self._hands: list[_Hand] = []
        self._idle: queue.SimpleQueue[_Hand] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="crew")

    def __enter__(self) -> Crew:
        with ExitStack() as undo:
            undo.callback(self.close)
            self._hands.extend(self._new_hand() for _ in range(self._size))
            for hand in self._hands:
                hand.wait_until_ready()
                self._idle.put(hand)
            undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes at once; what they were working on is given up."""
        for hand in self._hands:
            hand.end()
        self._threads.shutdown(cancel_futures=True)
        for hand in self._hands:
            hand.hang_up()

    def take_in(self, jobs: Iterable[Job]) -> Iterator[Outcome]:
        """One result for each job, in order; only a few chunks of jobs are held at a time."""
        waiting = iter(jobs)
        under_way: deque[Future[list[Outcome]]] = deque()
        while chunk := _next_chunk(waiting):
            under_way.append(self._threads.submit(self._serve, chunk))
            if len(under_way) >= len(self._hands) * CHUNKS_AHEAD:
                yield from under_way.popleft().result()
        while under_way:
            yield from under_way.popleft().result()

    def _serve(self, chunk: Sequence[Job]) -> list[Outcome]:
        hand = self._idle.get()
        try:
            return [hand.take_in(job) for job in chunk]
        finally:
            self._idle.put(hand)


def _next_chunk(jobs: Iterator[Job]) -> list[Job]:
    """A few jobs; fewer where they hold the bytes of large files."""
    chunk: list[Job] = []
    held = 0
    for job in islice(jobs, CHUNK):
        chunk.append(job)
        held += len(job.content) if isinstance(job.content, bytes) else 0
        if held >= CHUNK_BYTES:
            break
    return chunk


class _Hand:
    """One process of the crew, started again whenever a file has ended it."""

    def __init__(self, store: ImageStore, limits: Limits) -> None:
        self._setting = (store.folder.absolute(), limits)
        self._patience = GRACE * limits.seconds
        self._is_over = False
        self._start()

    def _start(self) -> None:
        self._line, far_end = Pipe()
        root = str(Path(__file__).parents[1])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with far_end:
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "imaging.crew", str(far_end.fileno())],
                pass_fds=[far_end.fileno()],
                env={**os.environ, "PYTHONPATH": path},
                process_group=0,  # Ctrl-C is for the program, which then ends its crew
            )
        self._line.send(self._setting)

    @property
    def process_id(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        try:
            if self._line.poll(START_SECONDS) and self._line.recv() == READY:
                return
        except (EOFError, OSError):
            self._is_over = True
        raise ConfigError(f"{sys.executable} starts no decoding process (python -m imaging.crew)")

    def take_in(self, job: Job) -> Outcome:
        try:
            self._line.send(job)
            if not self._line.poll(self._patience):
                return self._replace(f"too slow: not decoded within {self._patience:g} s")
            reply = self._line.recv()
        except (EOFError, OSError):
            return self._replace("the decoder crashed on it")
        if isinstance(reply, FakeScopeError):
            raise reply
        assert isinstance(reply, Intake | Refusal)
        return reply

    def _replace(self, reason: str) -> Refusal:
        if self._is_over:
            raise StateError("the import was ended")
        self.end()
        self.hang_up()
        self._start()
        self.wait_until_ready()
        self._is_over = False
        return Refusal(reason, is_lasting=False)

    def end(self) -> None:
        self._is_over = True
        self._process.kill()
        self._process.wait()

    def hang_up(self) -> None:
        self._line.close()


def serve(line: Connection) -> None:
    """The other end: take in what comes along the line until it is closed."""
    with suppress(EOFError, OSError):
        folder, limits = line.recv()
        store = ImageStore(folder)
        line.send(READY)
        while True:
            job = line.recv()
            try:
                line.send(take_in(job, store, limits))
            except FakeScopeError as error:
                line.send(error)


if __name__ == "__main__":
    with Connection(int(sys.argv[1])) as line:
        serve(line)
