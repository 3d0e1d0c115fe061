"""Group commit: what many threads want to change at the same moment goes into one transaction.

A commit costs the same for one row and for fifty. While one group is being committed, the changes
of other threads gather; whoever comes next commits all that have gathered. Nobody waits for a
group to fill, and each thread goes on only when its own change is committed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from core.errors import FakeScopeError, TransientError

Item = TypeVar("Item")
Result = TypeVar("Result")
Change = Callable[[Session, Sequence[Item]], Sequence[Result | FakeScopeError]]
"""Changes the database for several items at once and says for each what came of it, in order. An
item that is refused has an error for its result, and has changed nothing."""


class GroupCommit:
    """The one writer of a process, taken in turns by the threads that want something written."""

    def __init__(self, write: Callable[[], AbstractContextManager[Session]]) -> None:
        """`write` opens a transaction that is committed when its block ends."""
        self._write = write
        self._lock = threading.Lock()
        self._waiting: list[_Entry] = []
        self._is_led = False
        """whether a thread is committing, or about to"""

    def apply(self, change: Change[Item, Result], item: Item, *, rank: int = 0) -> Result:
        """What `change` makes of `item`, once it is committed; raises the error that it gives.

        In one transaction the changes of lower `rank` go first: processes that lock rows in the
        same order do not lock each other out.
        """
        entry = _Entry(change, item, rank)
        with self._lock:
            self._waiting.append(entry)
            leads, self._is_led = not self._is_led, True
        if not leads:
            entry.call.acquire()  # done, or it is this thread's turn to lead
        if not entry.is_done:
            self._lead()
        result: Result = entry.result()
        return result

    def _lead(self) -> None:
        """Commit all that waits, then call the threads that wait for it, and the next leader."""
        with self._lock:
            group, self._waiting = self._waiting, []
        try:
            self._commit_together(group)
        finally:
            for entry in group:
                entry.is_done = True
            with self._lock:
                following = self._waiting[:1]
                self._is_led = bool(following)
            for entry in (*group, *following):
                entry.call.release()

    def _commit_together(self, group: list[_Entry]) -> None:
        try:
            self._run(group)
        except Exception as error:  # noqa: BLE001 - raised in the thread whose change it was
            if len(group) == 1:
                group[0].outcome = error
                return
            for entry in group:  # one of them spoils the transaction, the others need not suffer
                self._commit_together([entry])

    def _run(self, group: list[_Entry]) -> None:
        by_change: dict[Change[Any, Any], list[_Entry]] = {}
        for entry in sorted(group, key=lambda entry: entry.rank):
            by_change.setdefault(entry.change, []).append(entry)
        results: list[tuple[_Entry, Any]] = []
        with self._write() as session:
            for change, entries in by_change.items():
                outcomes = change(session, [entry.item for entry in entries])
                results += zip(entries, outcomes, strict=True)
        for entry, outcome in results:
            entry.outcome = outcome


class _Entry:
    """One change that a thread waits for."""

    def __init__(self, change: Change[Any, Any], item: Any, rank: int) -> None:
        self.change = change
        self.item = item
        self.rank = rank
        self.is_done = False
        self.call = threading.Lock()
        """held until this entry is done or is to lead"""
        self.call.acquire()
        self.outcome: Any = TransientError("interrupted before it was written; try again")

    def result(self) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome
