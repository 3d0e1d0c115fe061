"""Drafting in batches: send what is due, come back for the replies, as often as it takes.

Everything lies in the database, so each run goes on where the last one ended, in whatever way.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from core.errors import ConfigError, PermanentError, StateError, TransientError
from core.records import AttemptOutcome, Batch, BatchState
from db.batches import (
    batch_workers,
    images_in_batches,
    leave_batches,
    move_batch,
    take_batch,
    unfinished_batches,
    waiting_batches,
)
from generation.batch_desk import HOLD_SECONDS, BatchDesk, Standing, poll_seconds
from generation.batch_results import Ingest, set_aside_refused
from generation.batch_sending import Sending, create, give_up, note
from generation.janitor import tidy
from generation.liveness import is_dead
from generation.stages import let_go_on
from teacher.batch import RemoteBatch
from teacher.failures import FailedCall, Refused

Report = Callable[[int, int], None]
"""lines answered, lines sent: of the batches of this run"""


class LostBatch(PermanentError):
    """Its teacher does not know it."""

    def __init__(self, batch: Batch) -> None:
        super().__init__(
            f"{batch.batch_id}: the teacher does not know {batch.remote_id}: is OPENAI_API_KEY "
            "that of the account which submitted it? If it is, `python -m generation give-up "
            f"{batch.batch_id}` makes its images due again"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """What one run of `draft --batch` came to."""

    sent: int
    """batches"""
    drafted: int
    waiting: int
    """images in batches that have not ended"""


def run_batches(desk: BatchDesk, *, wait: bool, report: Report = lambda *_: None) -> BatchRun:
    """Move every batch on, read what is stored, send what is due; with `wait` until all is done.

    Raises PermanentError when the ceiling keeps images out and no batch is left that may cost less
    than was set aside for it, and TransientError when a teacher failed (with `wait`: again and
    again).
    """
    sent = drafted = troubles = 0
    while True:
        trouble = advance_all(desk)
        if not wait:
            _tell_standings(desk)
        sending = Sending(desk=desk)
        try:
            sending.run()
        except TransientError as error:
            trouble = error
        sent, drafted = sent + len(sending.sent), drafted + sending.drafted
        freed = let_go_on(desk.database, desk.recipe)
        waiting = _count_waiting(desk)
        seen = desk.seen.values()
        report(sum(one.answered for one in seen), sum(one.lines for one in seen))
        troubles = troubles + 1 if trouble else 0
        if trouble and (not wait or troubles > desk.recipe.settings.drafting.max_tries):
            raise trouble
        if sending.refusal is not None and not (wait and waiting):
            raise sending.refusal
        if freed:  # arms that waited for what was drafted now
            continue
        if not trouble and not (wait and waiting):
            return BatchRun(sent=sent, drafted=drafted, waiting=waiting)
        time.sleep(poll_seconds(desk.recipe))


def advance_all(desk: BatchDesk) -> TransientError | None:
    """Move every batch on as far as it goes now; returns the last failure that may pass.

    Raises LostBatch after that, when a teacher does not know one of them.
    """
    tidy(desk.database, desk.campaign_id)
    with desk.database.write() as session:
        for name in filter(is_dead, batch_workers(session, desk.campaign_id)):
            leave_batches(session, name)
        batches = unfinished_batches(session, desk.campaign_id)
    trouble: TransientError | None = None
    lost: LostBatch | None = None
    for batch in batches:
        try:
            advance(desk, batch)
        except StateError as error:
            desk.tell(str(error))
        except TransientError as error:
            desk.tell(f"{batch.batch_id}: {error}")
            trouble = error
        except LostBatch as error:
            lost = error
    if lost is not None:
        raise lost
    return trouble


def advance(desk: BatchDesk, batch: Batch) -> None:
    """Move one batch on, unless another process does."""
    taken = _hold(desk, batch.batch_id)
    if taken is None:
        if batch.batch_id not in desk.seen:
            desk.tell(f"{batch.batch_id}: another process is at work on it")
        desk.seen[batch.batch_id] = Standing(batch.state, 0, batch.num_lines)
        return
    if taken.ingested_at is None:
        taken = _await(desk, taken)
    if taken.ingested_at is not None and taken.deleted_at is None:
        _clean_up(desk, taken)


def _hold(desk: BatchDesk, batch_id: str) -> Batch | None:
    """Let this process alone move a batch on; None while another one does."""
    now = datetime.now(UTC)
    with desk.database.write() as session:
        return take_batch(session, batch_id, worker=desk.worker, seconds=HOLD_SECONDS, now=now)


def _await(desk: BatchDesk, batch: Batch) -> Batch:
    if batch.state is BatchState.PREPARING:
        return give_up(desk, batch, "nothing of it was sent")
    if batch.state is BatchState.UPLOADED:
        batch = create(desk, batch, is_resumed=True)
    remote = _poll(desk, batch)
    if remote is None:
        raise LostBatch(batch)
    batch = note(desk, batch, remote)
    answered = batch.num_lines if batch.state.is_ended else remote.num_done
    desk.seen[batch.batch_id] = Standing(batch.state, answered, batch.num_lines)
    if batch.state is BatchState.FAILED:
        return set_aside_refused(desk, batch, remote)
    if batch.state.is_ended:
        return Ingest(desk=desk, batch=batch).run()
    return batch


def _poll(desk: BatchDesk, batch: Batch) -> RemoteBatch | None:
    """The batch as its teacher describes it; None when the teacher does not know it."""
    teacher = desk.seat_of(batch).teacher
    if batch.remote_id is None:
        return teacher.find_batch(batch.batch_id)
    try:
        return teacher.batch(batch.remote_id)
    except Refused as error:
        if error.status != 404:
            raise
        return None


def give_up_lost(desk: BatchDesk, batch_id: str) -> Batch:
    """End a batch that its teacher does not know: its images are due again.

    It may have been run and paid, so its lines stay `unknown` and keep their reservations.
    ConfigError when the campaign waits for no such batch, or when the teacher does know it.
    """
    with desk.database.read() as session:
        waiting = waiting_batches(session, desk.campaign_id)
    if batch_id not in waiting:
        raise ConfigError(f"the campaign waits for no batch {batch_id!r}: see `status`")
    batch = _hold(desk, batch_id)
    if batch is None:
        raise ConfigError(f"{batch_id}: another process is at work on it; try again later")
    remote = _poll(desk, batch)
    if remote is not None:
        raise ConfigError(
            f"{batch_id}: the teacher knows it as {remote.remote_id} ({remote.state}): "
            "`draft --batch` goes on with it"
        )
    batch = give_up(desk, batch, "the teacher no longer knows it", AttemptOutcome.UNKNOWN)
    _clean_up(desk, batch)
    return batch


def _clean_up(desk: BatchDesk, batch: Batch) -> None:
    """Delete the teacher's copies: they hold the images and everything said about them."""
    teacher = desk.seat_of(batch).teacher
    for file_id in filter(None, (batch.input_file_id, batch.output_file_id, batch.error_file_id)):
        try:
            teacher.delete_file(file_id)
        except FailedCall as error:
            if isinstance(error, TransientError):
                raise
            desk.tell(f"{batch.batch_id}: {file_id} stays with the teacher: {error}")
    with desk.database.write() as session:
        move_batch(session, batch, worker=desk.worker, deleted_at=datetime.now(UTC))


def _tell_standings(desk: BatchDesk) -> None:
    for batch_id, (state, answered, lines) in desk.seen.items():
        if not state.is_ended:
            desk.tell(f"{batch_id}: {state}, {answered} of {lines} answered")


def _count_waiting(desk: BatchDesk) -> int:
    with desk.database.read() as session:
        return images_in_batches(session, desk.campaign_id)
