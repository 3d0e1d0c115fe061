"""What teachers hold of withdrawn images: the files of batches, which are deleted there."""

from __future__ import annotations

from typing import NamedTuple

from core.records import Batch
from db.batches import unfinished_batches
from db.remains import withdrawn_batches
from generation.batch import advance
from generation.batch_desk import BatchDesk


class Forgotten(NamedTuple):
    """What became of the batches that ask about withdrawn images."""

    deleted: int
    under_way: int
    """asked to end early; their files go with the next run"""


def forget(desk: BatchDesk) -> Forgotten:
    """Have teachers delete the files of every batch that asks about a withdrawn image.

    A batch that is under way is asked to end early: what was answered is kept and paid, but for the
    withdrawn image, and what was not is due again. Running it again takes up what is left.
    """
    found = _withdrawn(desk)
    for batch in found:
        advance(desk, batch)
    for batch in _withdrawn(desk):
        if batch.remote_id is not None and not batch.state.is_ended:
            desk.seat_of(batch).teacher.cancel_batch(batch.remote_id)
            desk.tell(f"{batch.batch_id}: asked to end early")
            advance(desk, batch)
    left = len(_withdrawn(desk))
    return Forgotten(deleted=len(found) - left, under_way=left)


def _withdrawn(desk: BatchDesk) -> list[Batch]:
    with desk.database.read() as session:
        wanted = set(withdrawn_batches(session, desk.campaign_id))
        batches = unfinished_batches(session, desk.campaign_id)
    return [batch for batch in batches if batch.batch_id in wanted]
