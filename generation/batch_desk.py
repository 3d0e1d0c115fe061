"""What drafting in batches needs: database, image store, and the batch side of each teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from core.recipe import REHEARSAL, Arm, Recipe
from core.records import Batch, BatchState
from core.settings import Settings
from db.batches import leave_batches
from db.engine import Database
from db.ledger import DatabaseLedger
from db.work import release
from generation.desk import is_local, open_ledger, price_of_arm
from generation.liveness import worker_name
from imaging.store import ImageStore
from teacher.batch import BatchTeacher
from teacher.prices import Price, batch_price
from teacher.rehearsal import start_rehearsal

LOG_FILE = "rehearsal.jsonl"
FOLDER = "rehearsal-batches"
"""where the rehearsal teacher keeps its files and batches between two commands"""
LOCAL_POLL_SECONDS = 0.5
HOLD_SECONDS = 3600.0
"""a process on another machine that moves a batch on is taken for dead after this"""

Tell = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class BatchSeat:
    """One arm with the teacher that answers its batches."""

    arm: Arm
    teacher: BatchTeacher
    ledger: DatabaseLedger
    price: Price
    """of a request in a batch"""


class Standing(NamedTuple):
    """How far the teacher is with a batch."""

    state: BatchState
    answered: int
    lines: int


@dataclass(frozen=True, kw_only=True)
class BatchDesk:
    """Everything that drafting in batches needs."""

    database: Database
    store: ImageStore
    recipe: Recipe
    campaign_id: str
    seats: dict[str, BatchSeat]
    """by arm"""
    worker: str
    scratch: Path
    """folder for a file in the making"""
    tell: Tell
    """shows one line to whoever runs the command"""
    seen: dict[str, Standing] = field(default_factory=dict)
    """how the batches of this run stand, by batch id"""

    def seat_of(self, batch: Batch) -> BatchSeat:
        return self.seats[batch.arm]


@contextmanager
def open_batch_desk(
    settings: Settings, database: Database, recipe: Recipe, campaign_id: str, *, tell: Tell
) -> Iterator[BatchDesk]:
    """The desk of this process; in the end it gives back what it still holds."""
    with ExitStack() as stack:
        rehearsal_url = None
        if any(arm.teacher == REHEARSAL for arm in recipe.arms):
            home = settings.fakescope_home
            rehearsal_url = stack.enter_context(
                start_rehearsal(recipe.folder, log=home / LOG_FILE, batches=home / FOLDER)
            )
        desk = BatchDesk(
            database=database,
            store=ImageStore(settings.image_store),
            recipe=recipe,
            campaign_id=campaign_id,
            seats={
                arm.name: BatchSeat(
                    arm=arm,
                    teacher=stack.enter_context(_open_teacher(arm, settings, rehearsal_url)),
                    ledger=open_ledger(settings, database, campaign_id, arm),
                    price=batch_price(price_of_arm(recipe, arm)),
                )
                for arm in recipe.arms
            },
            worker=worker_name(),
            scratch=settings.fakescope_home,
            tell=tell,
        )
        for seat in desk.seats.values():
            seat.teacher.check()
        stack.callback(_give_back, desk)
        yield desk


def poll_seconds(recipe: Recipe) -> float:
    """How long to wait between two looks at a batch; a teacher on this machine is quicker."""
    settings = recipe.settings.drafting.batch
    is_near = all(is_local(arm) for arm in recipe.arms)
    return min(settings.poll_seconds, LOCAL_POLL_SECONDS) if is_near else settings.poll_seconds


def _open_teacher(arm: Arm, settings: Settings, rehearsal_url: str | None) -> BatchTeacher:
    """The rehearsal teacher is never sent a key."""
    if arm.teacher == REHEARSAL:
        assert rehearsal_url is not None
        return BatchTeacher(rehearsal_url)
    key = settings.openai_api_key
    return BatchTeacher(arm.teacher, api_key=key.get_secret_value() if key else None)


def _give_back(desk: BatchDesk) -> None:
    with desk.database.write() as session:
        leave_batches(session, desk.worker)
        release(session, desk.worker, untried=True)
