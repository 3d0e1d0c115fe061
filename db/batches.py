"""Batches: files of requests that a teacher answers within a day, as state that can be resumed.

A batch holds the claims of its images without an end, under its own id, until it was ingested:
only then is it known which of them are still to be asked about.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from core.errors import PermanentError, StateError
from core.ids import content_id
from core.records import AttemptOutcome, Batch, BatchState, WorkState
from db.ledger import DatabaseLedger, End, end_attempts
from db.statements import batches as runs_of
from db.statements import change, insert_missing
from db.tables import AttemptRow, BatchLineRow, BatchRow, WorkRow, table_of
from db.work import WAITS_FOR_BATCH, release

BATCHES = table_of(BatchRow)
LINES = table_of(BatchLineRow)
QUEUE_FULL = "token_limit_exceeded"
"""error code of a batch that is too much beside those that the teacher still has"""
FAILED_IN_PASSING = (AttemptOutcome.RATE_LIMITED, AttemptOutcome.SERVER_ERROR)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLine:
    """One request that is about to become a line of a batch."""

    request_hash: str
    work_id: str
    image_id: str
    model: str
    reserved_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLine:
    """One line of a batch: an attempt, and the work that it is for."""

    attempt_id: str
    number: int
    """of the line in its file, from 1"""
    request_hash: str
    work_id: str
    image_id: str
    reserved_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingBatch:
    """A batch that images wait for."""

    state: BatchState
    arm: str
    images: int
    remote_id: str | None
    """its name at the teacher"""


def new_batch(
    session: Session, campaign_id: str, arm: str, *, worker: str, seconds: float, now: datetime
) -> Batch:
    """An empty batch, in the hands of `worker`."""
    earlier = select(func.count()).where(BatchRow.campaign_id == campaign_id, BatchRow.arm == arm)
    number = session.execute(earlier).scalar_one() + 1
    batch = Batch(
        batch_id=content_id("batch", campaign_id, arm, number, worker, now.isoformat()),
        campaign_id=campaign_id,
        arm=arm,
        state=BatchState.PREPARING,
        created_at=now,
    )
    held = {"worker": worker, "held_until": now + timedelta(seconds=seconds)}
    session.execute(insert(BATCHES), asdict(batch) | held)
    return batch


def add_lines(
    session: Session, batch: Batch, lines: Sequence[NewLine], *, ledger: DatabaseLedger
) -> list[str | PermanentError | StateError]:
    """Open the attempts of further lines.

    Returns the id of each attempt, which names its line, or what keeps it out: the PermanentError
    of a money ceiling that its worst case would pass, the StateError of a withdrawn image.
    """
    results = ledger.open_attempts(session, [_attempt_of(line, batch) for line in lines])
    taken = [(line, r) for line, r in zip(lines, results, strict=True) if isinstance(r, str)]
    if taken:
        _insert_lines(session, batch, taken)
    return results


def awaited_requests(
    session: Session, campaign_id: str, arm: str, request_hashes: Sequence[str]
) -> set[str]:
    """Those of some requests of an arm that stand in batches which were not ingested."""
    found: set[str] = set()
    for names in runs_of(request_hashes):
        found.update(
            session.scalars(
                select(AttemptRow.request_hash)
                .join(BatchLineRow, BatchLineRow.attempt_id == AttemptRow.attempt_id)
                .join(BatchRow, BatchRow.batch_id == BatchLineRow.batch_id)
                .where(
                    AttemptRow.request_hash.in_(names),
                    BatchRow.campaign_id == campaign_id,
                    BatchRow.arm == arm,
                    BatchRow.ingested_at.is_(None),
                )
            )
        )
    return found


def take_over_claims(session: Session, batch: Batch, *, worker: str) -> None:
    """Pass the claims of all lines from `worker` to the batch, which holds them without an end.

    StateError when one was lost meanwhile: then the batch must not be run.
    """
    of_batch = select(BatchLineRow.work_id).where(BatchLineRow.batch_id == batch.batch_id)
    passed = change(
        session,
        update(WorkRow)
        .where(
            WorkRow.work_id.in_(of_batch),
            WorkRow.state == WorkState.DRAFTING,
            WorkRow.worker == worker,
        )
        .values(worker=batch.batch_id, claimed_until=None),
    )
    total = session.execute(select(func.count()).select_from(of_batch.subquery())).scalar_one()
    if passed != total:
        raise StateError(f"{batch.batch_id}: {total - passed} of its claims were lost")


def all_batches(session: Session, campaign_id: str) -> list[Batch]:
    """The batches of a campaign, the oldest first."""
    statement = select(*_COLUMNS).where(BatchRow.campaign_id == campaign_id)
    ordered = statement.order_by(BatchRow.created_at, BatchRow.batch_id)
    return [Batch(**row) for row in session.execute(ordered).mappings()]


def full_arms(session: Session, campaign_id: str) -> set[str]:
    """Arms whose newest batch did not fit into the teacher's queue, while others still wait."""
    batches = all_batches(session, campaign_id)
    newest = {batch.arm: batch for batch in batches}
    waiting = {batch.arm for batch in batches if batch.ingested_at is None}
    return {arm for arm in waiting if QUEUE_FULL in (newest[arm].reason or "")}


def unfinished_batches(session: Session, campaign_id: str) -> list[Batch]:
    """The batches that are still to be sent, awaited, ingested or cleaned up; oldest first."""
    return [batch for batch in all_batches(session, campaign_id) if batch.deleted_at is None]


def waiting_batches(session: Session, campaign_id: str) -> dict[str, WaitingBatch]:
    """The batches of a campaign that were not ingested, by their ids, the oldest first."""
    return {
        batch.batch_id: WaitingBatch(
            state=batch.state, arm=batch.arm, images=batch.num_lines, remote_id=batch.remote_id
        )
        for batch in all_batches(session, campaign_id)
        if batch.ingested_at is None
    }


def batch_workers(session: Session, campaign_id: str) -> list[str]:
    """The processes that are moving batches of a campaign on."""
    statement = select(BatchRow.worker).where(
        BatchRow.campaign_id == campaign_id, BatchRow.worker.is_not(None)
    )
    return [str(name) for name in session.scalars(statement.distinct().order_by(BatchRow.worker))]


def take_batch(
    session: Session, batch_id: str, *, worker: str, seconds: float, now: datetime
) -> Batch | None:
    """Let `worker` alone move a batch on; None while somebody else does."""
    free = or_(BatchRow.worker.is_(None), BatchRow.worker == worker, BatchRow.held_until <= now)
    statement = update(BatchRow).where(BatchRow.batch_id == batch_id, free)
    held = {"worker": worker, "held_until": now + timedelta(seconds=seconds)}
    return _read(session, batch_id) if change(session, statement.values(held)) else None


def images_in_batches(session: Session, campaign_id: str) -> int:
    """How many rows of work wait for a batch."""
    statement = select(func.count()).where(WorkRow.campaign_id == campaign_id, WAITS_FOR_BATCH)
    return session.execute(statement).scalar_one()


def leave_batches(session: Session, worker: str) -> int:
    """`worker` moves no batch on any more; returns how many it had."""
    nobody = {"worker": None, "held_until": None}
    return change(session, update(BatchRow).where(BatchRow.worker == worker).values(nobody))


def move_batch(session: Session, batch: Batch, *, worker: str, **changes: Any) -> Batch:
    """Write down how far a batch got; StateError when it is no longer where `batch` says."""
    statement = update(BatchRow).where(
        BatchRow.batch_id == batch.batch_id,
        BatchRow.worker == worker,
        BatchRow.state == batch.state,
    )
    if not change(session, statement.values(changes)):
        raise StateError(f"{batch.batch_id} was moved on by another process")
    return _read(session, batch.batch_id)


def drop_batch(session: Session, batch: Batch) -> None:
    """Forget a batch that got no line."""
    session.execute(delete(BatchRow).where(BatchRow.batch_id == batch.batch_id))


def lines_by_attempt(
    session: Session, batch_id: str, attempt_ids: Sequence[str]
) -> dict[str, BatchLine]:
    """Those of these attempts that are lines of this batch."""
    found = _narrowed(session, batch_id, BatchLineRow.attempt_id, attempt_ids)
    return {line.attempt_id: line for line in found}


def lines_by_number(session: Session, batch_id: str, numbers: Sequence[int]) -> list[BatchLine]:
    """The lines that stand at these places of the file."""
    return _narrowed(session, batch_id, BatchLineRow.number, numbers)


def open_lines(session: Session, batch_id: str, *, limit: int) -> list[BatchLine]:
    """The first `limit` lines whose attempt has no end yet."""
    is_open = (AttemptRow.outcome == AttemptOutcome.UNKNOWN) & AttemptRow.finished_at.is_(None)
    statement = _SELECT_LINES.where(BatchLineRow.batch_id == batch_id, is_open)
    return _lines(session, statement.order_by(BatchLineRow.number).limit(limit))


def end_lines(
    session: Session, lines: Sequence[BatchLine], outcome: AttemptOutcome, reason: str
) -> None:
    """Close the attempts of lines that brought no reply."""
    end_attempts(session, [End.with_failure(line.attempt_id, outcome, reason) for line in lines])


def failures_in_passing(session: Session, batch: Batch, line: BatchLine) -> int:
    """How often the arm's request was answered with a failure that may pass."""
    statement = select(func.count()).where(
        AttemptRow.request_hash == line.request_hash,
        AttemptRow.campaign_id == batch.campaign_id,
        AttemptRow.arm == batch.arm,
        AttemptRow.outcome.in_(FAILED_IN_PASSING),
    )
    return session.execute(statement).scalar_one()


def close_batch(session: Session, batch: Batch, *, worker: str, now: datetime) -> Batch:
    """All of a batch is stored: the claims that it still holds become due again."""
    release(session, batch.batch_id, untried=True)
    return move_batch(session, batch, worker=worker, ingested_at=now)


def _attempt_of(line: NewLine, batch: Batch) -> dict[str, Any]:
    return {
        "request_hash": line.request_hash,
        "image_id": line.image_id,
        "campaign_id": batch.campaign_id,
        "arm": batch.arm,
        "model": line.model,
        "outcome": AttemptOutcome.UNKNOWN,
        "reserved_usd": line.reserved_usd,
    }


def _insert_lines(session: Session, batch: Batch, taken: Sequence[tuple[NewLine, str]]) -> None:
    last = select(func.max(BatchLineRow.number)).where(BatchLineRow.batch_id == batch.batch_id)
    first = (session.execute(last).scalar_one() or 0) + 1
    rows = [
        {
            "attempt_id": attempt_id,
            "batch_id": batch.batch_id,
            "number": number,
            "work_id": line.work_id,
        }
        for number, (line, attempt_id) in enumerate(taken, start=first)
    ]
    insert_missing(session, LINES, rows)


_COLUMNS = [BATCHES.c[field.name] for field in fields(Batch)]
_SELECT_LINES = select(
    BatchLineRow.attempt_id,
    BatchLineRow.number,
    AttemptRow.request_hash,
    BatchLineRow.work_id,
    AttemptRow.image_id,
    AttemptRow.reserved_usd,
).join(AttemptRow, AttemptRow.attempt_id == BatchLineRow.attempt_id)


def _narrowed(
    session: Session, batch_id: str, column: Any, values: Sequence[Any]
) -> list[BatchLine]:
    of_batch = _SELECT_LINES.where(BatchLineRow.batch_id == batch_id)
    runs = runs_of(sorted(set(values)))
    return [line for run in runs for line in _lines(session, of_batch.where(column.in_(run)))]


def _lines(session: Session, statement: Any) -> list[BatchLine]:
    rows: Sequence[RowMapping] = session.execute(statement).mappings().all()
    return [BatchLine(**row) for row in rows]


def _read(session: Session, batch_id: str) -> Batch:
    statement = select(*_COLUMNS).where(BatchRow.batch_id == batch_id)
    return Batch(**session.execute(statement).mappings().one())
