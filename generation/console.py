"""Progress on a terminal as a bar, in a log as plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from generation.campaign import Progress as Drafting

LOG_EVERY_SECONDS = 10.0

Report = Callable[[int, int], None]
"""done, total; a negative total is not known"""


@contextmanager
def counting(what: str) -> Iterator[Report]:
    """Yield a function that is told (done, total) and shows it."""
    if sys.stderr.isatty():
        with _bar() as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(
                task, completed=done, total=None if total < 0 else total
            )
    else:
        yield _line_writer(what)


@contextmanager
def drafting_bar() -> Iterator[Callable[[Drafting], None]]:
    """Yield a function that shows how far a campaign is."""
    with counting("drafting") as report:
        yield lambda seen: report(seen.done, seen.total)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def _line_writer(what: str) -> Report:
    last = time.monotonic()

    def write(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= LOG_EVERY_SECONDS or done == total:
            last = time.monotonic()
            sys.stderr.write(f"{what}: {done}{'' if total < 0 else f' of {total}'}\n")

    return write
