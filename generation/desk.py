"""What a worker process needs to draft: database, image store, teachers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from core.errors import ConfigError
from core.recipe import REHEARSAL, Arm, Recipe, configured_recipe
from core.settings import Settings, load_settings
from db.engine import Database, open_database
from db.ledger import DatabaseLedger
from db.work import campaign_id_of
from generation.limits import open_limiter
from generation.liveness import worker_name
from imaging.store import ImageStore
from teacher.client import Teacher, is_loopback
from teacher.gate import Gate
from teacher.prices import Price, require_price


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What a drafting message says: which campaign, recipe and rehearsal teacher. No secrets."""

    campaign_id: str
    recipe: str
    """folder of the recipe, readable by every worker"""
    rehearsal_url: str | None
    """where the rehearsal teacher listens, when an arm uses it"""


@dataclass(frozen=True, kw_only=True)
class Seat:
    """One arm with the teacher that answers for it."""

    arm: Arm
    teacher: Teacher
    ledger: DatabaseLedger
    price: Price
    gate: Gate = field(default_factory=Gate)


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Everything that drafting needs; the threads of one process share it."""

    database: Database
    store: ImageStore
    recipe: Recipe
    campaign_id: str
    seats: dict[str, Seat]
    """by arm"""
    worker: str
    stop: threading.Event = field(default_factory=threading.Event)
    """while set, nothing more is sent and what was not sent is given back"""
    shift_ended: threading.Event = field(default_factory=threading.Event)
    """set when this process has drafted for a while, for whoever waits for the end"""
    failures: list[Exception] = field(default_factory=list)
    """what stopped the campaign in this process; known even where the database cannot be told"""


@lru_cache(maxsize=4)
def open_desk(assignment: Assignment) -> Desk:
    """The desk of this process for an assignment; opened once, after any fork."""
    settings = load_settings()
    recipe = configured_recipe(Path(assignment.recipe), settings)
    if campaign_id_of(recipe) != assignment.campaign_id:
        raise ConfigError(
            f"recipe {recipe.folder} holds another version than this campaign began with, or a "
            "worker is configured for another teacher than the command: run it again with one of "
            "them for all"
        )
    database = open_database(settings, migrate=False)
    return Desk(
        database=database,
        store=ImageStore(settings.image_store),
        recipe=recipe,
        campaign_id=assignment.campaign_id,
        seats=_open_seats(recipe, settings, database, assignment),
        worker=worker_name(),
    )


def _open_seats(
    recipe: Recipe, settings: Settings, database: Database, assignment: Assignment
) -> dict[str, Seat]:
    """A seat for each arm; arms that ask the same model of a teacher share its gate."""
    gates: dict[tuple[str, str], Gate] = {}
    seats = {}
    for arm in recipe.arms:
        teacher = _connect(arm, settings, assignment.rehearsal_url)
        if (arm.teacher, arm.model) not in gates:
            gates[arm.teacher, arm.model] = Gate(open_limiter(settings, database, arm))
        seats[arm.name] = Seat(
            arm=arm,
            teacher=teacher,
            ledger=open_ledger(settings, database, assignment.campaign_id, arm),
            price=price_of_arm(recipe, arm),
            gate=gates[arm.teacher, arm.model],
        )
    return seats


def _connect(arm: Arm, settings: Settings, rehearsal_url: str | None) -> Teacher:
    """Connect an arm to its teacher; the rehearsal teacher is never sent a key."""
    if arm.teacher == REHEARSAL:
        if rehearsal_url is None:
            raise ConfigError(f"arm {arm.name}: the rehearsal teacher is not running")
        return Teacher(rehearsal_url, timeout_s=arm.timeout_s)
    key = settings.openai_api_key
    secret = key.get_secret_value() if key else None
    return Teacher(arm.teacher, secret, timeout_s=arm.timeout_s)


def check_teachers(desk: Desk) -> None:
    """Fail before any work is claimed when a teacher's address or key is wrong."""
    for seat in desk.seats.values():
        seat.teacher.check()


def open_ledger(
    settings: Settings, database: Database, campaign_id: str, arm: Arm
) -> DatabaseLedger:
    """The ledger of an arm's calls."""
    return DatabaseLedger(
        database, campaign_id, teacher=arm.teacher, usd_per_day=settings.usd_per_day
    )


def is_local(arm: Arm) -> bool:
    """True for the rehearsal teacher and for servers on this machine: nothing leaves it."""
    return arm.teacher == REHEARSAL or is_loopback(arm.teacher)


def price_of_arm(recipe: Recipe, arm: Arm) -> Price:
    """What the teacher of an arm asks; ConfigError when that is not known."""
    return require_price(arm.model, is_local=is_local(arm), recipe_folder=recipe.folder)
