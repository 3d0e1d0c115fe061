"""Changes of many threads in few transactions, each as if it were alone; on both databases."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from core.errors import FakeScopeError, StateError
from db.engine import Database
from db.tables import SourceRow, table_of
from tests.databases import (  # noqa: F401
    database,
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)

SOURCES = table_of(SourceRow)


def add(session: Session, names: Sequence[str]) -> list[str | StateError]:
    """Refuses what begins with `no`, breaks the transaction at a name that is there already."""
    rows = [
        {"name": name, "licence": "CC0-1.0", "may_train": True}
        for name in names
        if not name.startswith("no")
    ]
    if rows:
        session.connection().execute(SOURCES.insert(), rows)
    return [StateError(name) if name.startswith("no") else f"added {name}" for name in names]


def names_in(database: Database) -> set[str]:  # noqa: F811
    with database.read() as session:
        return set(session.scalars(select(SourceRow.name)))


class Gathering:
    """Holds the first group back until so many changes wait for the next one."""

    def __init__(self, database: Database, count: int) -> None:  # noqa: F811
        self.sizes: list[int] = []
        self._group = database._group
        self._count = count
        self._is_first = True

    def __call__(self, session: Session, names: Sequence[str]) -> Sequence[str | FakeScopeError]:
        if self._is_first:
            self._is_first = False
            pause = threading.Event()
            while len(self._group._waiting) < self._count:
                assert not pause.wait(0.005)
        self.sizes.append(len(names))
        return add(session, names)


def apply_all(
    database: Database,  # noqa: F811
    change: Gathering,
    names: Sequence[str],
) -> list[object]:
    """What became of each name: the result, or the error."""

    def apply(name: str) -> object:
        try:
            return database.write_together(change, name)
        except Exception as error:  # noqa: BLE001 - the error is what is looked at
            return error

    with ThreadPoolExecutor(len(names)) as pool:
        first = pool.submit(apply, names[0])
        while change._is_first:
            threading.Event().wait(0.005)
        others = pool.map(apply, names[1:])
        return [first.result(), *others]


def test_what_gathers_during_a_commit_is_committed_together(database: Database) -> None:  # noqa: F811
    names = [f"source-{number}" for number in range(12)]
    change = Gathering(database, len(names) - 1)
    assert apply_all(database, change, names) == [f"added {name}" for name in names]
    assert change.sizes == [1, 11]
    assert names_in(database) == set(names)


def test_a_refusal_meets_only_the_one_who_asked_for_it(database: Database) -> None:  # noqa: F811
    names = ["a", "b", "no way", "c"]
    results = apply_all(database, Gathering(database, 3), names)
    assert isinstance(results.pop(2), StateError)
    assert results == ["added a", "added b", "added c"]
    assert names_in(database) == {"a", "b", "c"}


def test_a_change_that_breaks_its_transaction_takes_no_other_with_it(database: Database) -> None:  # noqa: F811
    names = ["a", "b", "a", "c"]
    results = apply_all(database, Gathering(database, 3), names)
    broken = results.pop(2)
    assert isinstance(broken, Exception)
    assert not isinstance(broken, StateError)
    assert results == ["added a", "added b", "added c"]
    assert names_in(database) == {"a", "b", "c"}


def test_lower_ranks_go_first(database: Database) -> None:  # noqa: F811
    order: list[str] = []

    def early(session: Session, names: Sequence[str]) -> list[None]:
        order.append("early")
        return [None for _ in names]

    def late(session: Session, names: Sequence[str]) -> list[None]:
        order.append("late")
        return [None for _ in names]

    gathering = Gathering(database, 2)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(database.write_together, gathering, "first")
        while gathering._is_first:
            threading.Event().wait(0.005)
        waiting = [
            pool.submit(database.write_together, late, "x", rank=2),
            pool.submit(database.write_together, early, "y", rank=1),
        ]
        for done in waiting:
            done.result()
    assert order == ["early", "late"]


def test_an_error_of_the_database_is_raised_where_it_belongs(database: Database) -> None:  # noqa: F811
    database.write_together(add, "a")
    with pytest.raises((IntegrityError, FakeScopeError)):
        database.write_together(add, "a")
    assert database.write_together(add, "b") == "added b"
