"""Progress on a terminal as a bar, in a log as plain lines."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOG_EVERY_SECONDS = 10.0

Advance = Callable[[int, str], None]
"""told how many more are done, and a short note that may be empty"""


@contextmanager
def counting(what: str, total: int) -> Iterator[Advance]:
    """Yield a function that shows how far `what` is, on standard error."""
    if sys.stderr.isatty():
        with _bar(what, total) as advance:
            yield advance
    else:
        yield _line_writer(what, total)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, note="")

        def advance(done: int, note: str) -> None:
            bar.update(task, advance=done)
            if note:
                bar.update(task, note=note)

        yield advance


def _line_writer(what: str, total: int) -> Advance:
    done, last, shown = 0, time.monotonic(), ""

    def advance(more: int, note: str) -> None:
        nonlocal done, last, shown
        done, shown = done + more, note or shown
        if time.monotonic() - last >= LOG_EVERY_SECONDS or done == total:
            last = time.monotonic()
            sys.stderr.write(f"{what}: {done} of {total}{', ' if shown else ''}{shown}\n")

    return advance
