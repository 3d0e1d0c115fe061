"""What drivers report, as the platform's errors."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from core.errors import ConfigError, FakeScopeError, TransientError
from db.failures import explain, explained


def wrapped(cause: Exception) -> DBAPIError:
    return DBAPIError("SELECT 1", {"secret": "hush"}, cause)


def postgresql(state: str) -> psycopg.Error:
    return psycopg.errors.lookup(state)("what the server says\nDETAIL: hush")


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ("28P01", ConfigError, "refuses the user or the password"),
        ("3D000", ConfigError, "no such database"),
        ("53100", ConfigError, "disk is full"),
        ("25006", ConfigError, "read-only"),
        ("42501", ConfigError, "lacks a permission"),
        ("40P01", TransientError, "what the server says; try again"),
        ("40001", TransientError, "try again"),
        ("53300", TransientError, "try again"),
        ("57P01", TransientError, "try again"),
        ("08006", TransientError, "try again"),
    ],
)
def test_what_postgresql_reports_becomes_one_line(
    state: str, kind: type[FakeScopeError], words: str
) -> None:
    error = explain(wrapped(postgresql(state)), "database app")
    assert isinstance(error, kind)
    assert str(error).startswith("database app: ")
    assert words in str(error)
    assert "hush" not in str(error)


def test_a_lost_connection_is_worth_another_try() -> None:
    cause = psycopg.OperationalError("the connection is closed")
    assert isinstance(explain(wrapped(cause), "database app"), TransientError)


@pytest.mark.parametrize(
    "cause",
    [postgresql("23505"), sqlite3.IntegrityError(), psycopg.ProgrammingError(), ValueError()],
)
def test_a_fault_of_our_own_is_left_as_it_is(cause: Exception) -> None:
    assert explain(wrapped(cause), "database app") is None
    with pytest.raises(DBAPIError), explained("database app"):
        raise wrapped(cause)


def test_an_exhausted_pool_is_worth_another_try() -> None:
    with pytest.raises(TransientError, match="database app"), explained("database app"):
        raise PoolTimeout("QueuePool limit")
