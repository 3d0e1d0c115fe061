"""Images that were withdrawn, and what the database lets go of with them.

Drafts, corrections and chains stay as rows, for history is never edited; nothing reads them on.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from sqlalchemy import Exists, bindparam, delete, exists, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.records import Tombstone, WorkState
from db.engine import Database
from db.statements import batches, change, insert_missing
from db.tables import (
    AttemptRow,
    ChainRow,
    ImageRow,
    ProvenanceRow,
    ReplyRow,
    TombstoneRow,
    WorkRow,
    table_of,
)
from db.work import UNCLAIMED

TOMBSTONES = table_of(TombstoneRow)
_AMONG = select(TombstoneRow.image_id).where(
    TombstoneRow.image_id.in_(bindparam("of_images", expanding=True))
)


def is_withdrawn(image_id: InstrumentedAttribute[str]) -> Exists:
    """Whether the image of a row was withdrawn, as a condition of a statement that reads rows."""
    return exists().where(TombstoneRow.image_id == image_id)


class LetGo(NamedTuple):
    """How many rows a withdrawal moved or deleted."""

    work: int
    """rows of work that are `withdrawn` now"""
    replies: int
    """stored replies deleted; their attempts stay, for what they cost"""
    provenance: int
    """statements of the file's metadata deleted"""


def withdraw(database: Database, tombstone: Tombstone) -> LetGo:
    """Set a tombstone, end all work on the image, and delete what was stored of it.

    A tombstone that stands already stays as it is; whatever came after it is let go of again. Each
    step is a transaction of its own, so that none waits for what another one holds; from the first
    on nobody begins anything about the image.
    """
    with database.write() as session:
        _lock(session, select(ImageRow.image_id).where(ImageRow.image_id == tombstone.image_id))
        insert_missing(session, TOMBSTONES, [asdict(tombstone)])
    with database.write() as session:
        work = withdraw_work(session, [tombstone.image_id])
    with database.write() as session:
        return LetGo(work, *_delete_what_was_said(session, tombstone.image_id))


def _delete_what_was_said(session: Session, image_id: str) -> tuple[int, int]:
    """Stored replies, once nobody is about to store another one, and provenance."""
    of_image = select(AttemptRow.attempt_id).where(AttemptRow.image_id == image_id)
    _lock(session, of_image.order_by(AttemptRow.attempt_id))
    connection = session.connection()
    replies = delete(table_of(ReplyRow)).where(ReplyRow.attempt_id.in_(of_image))
    said = delete(table_of(ProvenanceRow)).where(ProvenanceRow.image_id == image_id)
    return connection.execute(replies).rowcount, connection.execute(said).rowcount


def withdraw_work(session: Session, image_ids: Sequence[str]) -> int:
    """End the work on images in all arms, claimed or not; returns how many rows moved."""
    return sum(
        change(
            session,
            update(WorkRow)
            .where(WorkRow.image_id.in_(batch), WorkRow.state != WorkState.WITHDRAWN)
            .values(UNCLAIMED | {"state": WorkState.WITHDRAWN, "due_at": None}),
        )
        for batch in batches(image_ids)
    )


def tombstones(session: Session) -> list[Tombstone]:
    """Every tombstone, by image id."""
    rows = session.execute(select(*TOMBSTONES.columns).order_by(TombstoneRow.image_id)).mappings()
    return [Tombstone(**row) for row in rows]


def withdrawn_among(session: Session, image_ids: Collection[str]) -> set[str]:
    """Those of these images that were withdrawn."""
    found: set[str] = set()
    for batch in batches(sorted(image_ids)):
        found.update(session.connection().execute(_AMONG, {"of_images": batch}).scalars())
    return found


def tombstones_by_hash(session: Session, hashes: Collection[str]) -> dict[str, Tombstone]:
    """The tombstones of these files, by each of the given hashes that names one.

    A hash may be that of a user's file, or of the bytes in the image store.
    """
    found: dict[str, Tombstone] = {}
    for batch in batches(sorted(hashes)):
        named = or_(TombstoneRow.sha256.in_(batch), TombstoneRow.original_sha256.in_(batch))
        for row in session.execute(select(*TOMBSTONES.columns).where(named)).mappings():
            tombstone = Tombstone(**row)
            found |= {tombstone.sha256: tombstone, tombstone.original_sha256: tombstone}
    return {digest: found[digest] for digest in hashes if digest in found}


def withdrawn_chains(session: Session, campaign_id: str, arms: Sequence[str]) -> list[str]:
    """The withdrawn images that have a chain in these arms, in order."""
    statement = (
        select(TombstoneRow.image_id)
        .join(ChainRow, ChainRow.image_id == TombstoneRow.image_id)
        .where(ChainRow.campaign_id == campaign_id, ChainRow.arm.in_(arms))
    )
    return list(session.scalars(statement.distinct().order_by(TombstoneRow.image_id)))


def _lock(session: Session, statement: Any) -> None:
    """Rows that nobody else may change, or refer to anew, until the transaction ends."""
    session.execute(statement.with_for_update()).all()
