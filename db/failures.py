"""What a driver says went wrong, as one of the platform's errors with a remedy."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.errors import ConfigError, FakeScopeError, TransientError

SQLITE_REMEDIES = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space there, then run the command again",
    sqlite3.SQLITE_READONLY: "it is read-only: make the file and its folder writable, "
    "or name another place in FAKESCOPE_HOME or DATABASE_URL",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that the file and its folder exist "
    "and are writable, or name another place in FAKESCOPE_HOME or DATABASE_URL",
    sqlite3.SQLITE_PERM: "access is denied: check the permissions of the file and its folder",
    sqlite3.SQLITE_NOTADB: "it is no SQLite database: move the file away, or name another one",
    sqlite3.SQLITE_CORRUPT: "the file is damaged: put a copy of it back",
    sqlite3.SQLITE_IOERR: "reading or writing failed; is the disk full, or failing?",
}
SQLITE_PASSING = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}

POSTGRESQL_REMEDIES = {
    "28": "the server refuses the user or the password: check DATABASE_URL",
    "3D": "the server has no such database: create it, or check DATABASE_URL",
    "53100": "the server's disk is full: free some space there, then run the command again",
    "25006": "the server is read-only: name a writable one in DATABASE_URL",
    "42501": "the user lacks a permission: grant it, or name another user in DATABASE_URL",
}
POSTGRESQL_PASSING = ("08", "40", "53", "55P03", "57P")


@contextmanager
def explained(place: str) -> Iterator[None]:
    """Known failures of the database at `place` leave as ConfigError or TransientError."""
    try:
        yield
    except PoolTimeout as error:
        raise TransientError(f"{place}: all connections stayed in use") from error
    except DBAPIError as error:
        known = explain(error, place)
        if known is None:
            raise
        raise known from error


def explain(error: DBAPIError, place: str) -> FakeScopeError | None:
    """The platform's error for a driver's; None for a fault of our own."""
    cause = error.orig
    if isinstance(cause, sqlite3.Error):
        return _explain_sqlite(cause, place)
    if isinstance(cause, psycopg.Error):
        return _explain_postgresql(cause, place)
    return None


def _explain_sqlite(cause: sqlite3.Error, place: str) -> FakeScopeError | None:
    code = getattr(cause, "sqlite_errorcode", 0) & 0xFF  # the upper bytes only say more exactly
    if code in SQLITE_PASSING:
        return TransientError(f"{place}: other processes kept it locked; try again")
    remedy = SQLITE_REMEDIES.get(code)
    return ConfigError(f"{place}: {remedy}") if remedy else None


def _explain_postgresql(cause: psycopg.Error, place: str) -> FakeScopeError | None:
    state = cause.sqlstate
    if state is None:
        is_connection = isinstance(cause, psycopg.OperationalError)
        return TransientError(f"{place}: {first_line(cause)}") if is_connection else None
    for known in (state, state[:2]):
        if known in POSTGRESQL_REMEDIES:
            return ConfigError(f"{place}: {POSTGRESQL_REMEDIES[known]}")
    if state.startswith(POSTGRESQL_PASSING):
        return TransientError(f"{place}: {first_line(cause)}; try again")
    return None


def first_line(error: BaseException) -> str:
    """What an error says, without the lines of detail that drivers add."""
    return str(error).strip().partition("\n")[0]
