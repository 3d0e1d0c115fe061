"""What is newest for an image in an arm: a later draft or chain takes the place of the earlier one.

Nothing is edited or deleted; only `superseded_by` moves. A record that was superseded and is saved
again (an annotation was added, then deleted) is the newest once more. A unique index over the rows
that nothing supersedes holds the law: one newest per campaign, arm and image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Column, Select, Table, Update, bindparam, select, update
from sqlalchemy.orm import Session

from core.records import Draft, ReasoningChain
from db.statements import BATCH, lock_images

Record = TypeVar("Record", Draft, ReasoningChain)
Place = tuple[str, str, str]
PLACE = ("campaign_id", "arm", "image_id")


def place_of(record: Draft | ReasoningChain) -> Place:
    """Campaign, arm and image: where one draft and one chain are newest."""
    return record.campaign_id, record.arm, record.image_id


def runs(records: Sequence[Record]) -> Iterator[list[Record]]:
    """The records in order, in runs of limited length that hold no place twice."""
    run: dict[Place, Record] = {}
    for record in records:
        if place_of(record) in run or len(run) == BATCH:
            yield list(run.values())
            run = {}
        run[place_of(record)] = record
    if run:
        yield list(run.values())


class Moved(NamedTuple):
    """The ids that became the newest in their places."""

    new: set[str]
    """not in the table yet: the caller inserts them"""
    again: set[str]
    """superseded before, newest once more"""


def take_places(session: Session, table: Table, records: Mapping[str, Record]) -> Moved:
    """Make the records of one run, by their id, the newest in their places."""
    lock_images(session, [record.image_id for record in records.values()])
    known = _known(session, table, list(records))
    moved = Moved(
        new={record_id for record_id in records if record_id not in known},
        again={record_id for record_id, heir in known.items() if heir is not None},
    )
    heirs = sorted(moved.new | moved.again)
    _run(session, _give_way(table), [_inheritance(heir, records[heir]) for heir in heirs])
    _run(session, _come_back(table), [{"that": record_id} for record_id in sorted(moved.again)])
    return moved


def _known(session: Session, table: Table, ids: Sequence[str]) -> dict[str, str | None]:
    """Those of `ids` that are in the table, each with the id that supersedes it."""
    rows = session.connection().execute(_select_known(table), {"ids": ids})
    return {row[0]: row[1] for row in rows}


def _inheritance(heir: str, record: Draft | ReasoningChain) -> dict[str, str]:
    return {"heir": heir} | {f"of_{name}": getattr(record, name) for name in PLACE}


def _run(session: Session, statement: Update, changes: Sequence[Mapping[str, str]]) -> None:
    if changes:
        session.connection().execute(statement, changes)


@cache
def _select_known(table: Table) -> Select[Any]:
    key = _key_of(table)
    known = key.in_(bindparam("ids", expanding=True))
    return select(key, table.c.superseded_by).where(known)


@cache
def _give_way(table: Table) -> Update:
    """Whoever is newest in a place is superseded by the heir; one look into the unique index."""
    here = [table.c[name] == bindparam(f"of_{name}") for name in PLACE]
    newest = update(table).where(*here, table.c.superseded_by.is_(None))
    return newest.values(superseded_by=bindparam("heir"))


@cache
def _come_back(table: Table) -> Update:
    return update(table).where(_key_of(table) == bindparam("that")).values(superseded_by=None)


def _key_of(table: Table) -> Column[str]:
    (key,) = table.primary_key.columns
    return key
