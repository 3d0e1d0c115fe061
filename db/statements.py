"""Statements in batches: inserts that skip what is there, streams that never hold a cursor open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    RowMapping,
    Select,
    Table,
    Text,
    Update,
    any_,
    literal,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import InstrumentedAttribute, Session

from db.tables import ImageRow

BATCH = 500
"""values in one IN list, rows in one step of a stream"""

Item = TypeVar("Item")
Dialectal = sqlite.Insert | postgresql.Insert
INSERTS: dict[str, Callable[[Table], Dialectal]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


def batches(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    """`items` in runs of at most `BATCH`."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def among(
    session: Session, column: InstrumentedAttribute[Any], values: Sequence[str]
) -> ColumnElement[bool]:
    """Whether a text column holds one of many values, such as a batch.

    PostgreSQL is sent one array: its driver takes longer over 500 values than the server.
    """
    if session.get_bind().dialect.name == "postgresql":
        return column == any_(literal(list(values), ARRAY(Text)))
    return column.in_(values)


def insert_into(session: Session, table: Table) -> Dialectal:
    """An insert that knows ON CONFLICT; both databases spell it alike, SQLAlchemy does not."""
    return INSERTS[session.get_bind().dialect.name](table)


def insert_missing(session: Session, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert the rows whose primary key is not there yet; returns how many."""
    if not rows:
        return 0
    statement = _insert_missing(session.get_bind().dialect.name, table)
    result = session.connection().execute(
        statement, list(rows), execution_options={"preserve_rowcount": True}
    )
    return result.rowcount


@cache
def _insert_missing(dialect: str, table: Table) -> Dialectal:
    keys = list(table.primary_key.columns)
    return INSERTS[dialect](table).on_conflict_do_nothing(index_elements=keys)


def stream(
    session: Session, statement: Select[Any], key: InstrumentedAttribute[str]
) -> Iterator[Sequence[RowMapping]]:
    """The rows of `statement` in the order of `key`, which is unique among them, batch by batch.

    Each batch is a query of its own that starts after the last key, so the caller may do anything
    with the session in between.
    """
    ordered = statement.order_by(key).limit(BATCH)
    rows = session.execute(ordered).mappings().all()
    while rows:
        yield rows
        last = rows[-1][key.key]
        rows = session.execute(ordered.where(key > last)).mappings().all()


def lock_images(session: Session, image_ids: Sequence[str]) -> None:
    """Until the transaction ends nobody else replaces what is newest for these images.

    SQLite has one writer at a time and needs no lock.
    """
    if session.get_bind().dialect.name != "postgresql":
        return
    for batch in batches(sorted(set(image_ids))):
        session.execute(
            select(ImageRow.image_id)
            .where(ImageRow.image_id.in_(batch))
            .order_by(ImageRow.image_id)
            .with_for_update(key_share=True)
        ).all()


def change(session: Session, statement: Update) -> int:
    """Run a conditional update; returns how many rows met the condition."""
    return session.connection().execute(statement).rowcount
