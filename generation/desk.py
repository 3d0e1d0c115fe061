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
from generation.liveness import worker_name
from imaging.store import ImageStore
from teacher.client import Teacher, is_loopback
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
    price: Price


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Everything that drafting needs; the threads of one process share it."""

    database: Database
    store: ImageStore
    recipe: Recipe
    campaign_id: str
    ledger: DatabaseLedger
    seats: dict[str, Seat]
    """by arm"""
    worker: str
    stop: threading.Event = field(default_factory=threading.Event)
    """while set, nothing more is sent and what was not sent is given back"""
    failures: list[Exception] = field(default_factory=list)
    """what stopped the campaign in this process; known even where the database cannot be told"""


@lru_cache(maxsize=4)
def open_desk(assignment: Assignment) -> Desk:
    """The desk of this process for an assignment; opened once, after any fork."""
    settings = load_settings()
    recipe = configured_recipe(Path(assignment.recipe), settings)
    database = open_database(settings, migrate=False)
    return Desk(
        database=database,
        store=ImageStore(settings.image_store),
        recipe=recipe,
        campaign_id=assignment.campaign_id,
        ledger=DatabaseLedger(database, assignment.campaign_id),
        seats={
            arm.name: open_seat(recipe, arm, settings, assignment.rehearsal_url)
            for arm in recipe.arms
        },
        worker=worker_name(),
    )


def open_seat(recipe: Recipe, arm: Arm, settings: Settings, rehearsal_url: str | None) -> Seat:
    """Connect an arm to its teacher; the rehearsal teacher is never sent a key."""
    price = price_of_arm(recipe, arm)
    if arm.teacher == REHEARSAL:
        if rehearsal_url is None:
            raise ConfigError(f"arm {arm.name}: the rehearsal teacher is not running")
        return Seat(arm=arm, teacher=Teacher(rehearsal_url), price=price)
    key = settings.openai_api_key
    teacher = Teacher(arm.teacher, api_key=key.get_secret_value() if key else None)
    return Seat(arm=arm, teacher=teacher, price=price)


def check_teachers(desk: Desk) -> None:
    """Fail before any work is claimed when a teacher's address or key is wrong."""
    for seat in desk.seats.values():
        seat.teacher.check()


def is_local(arm: Arm) -> bool:
    """True for the rehearsal teacher and for servers on this machine: nothing leaves it."""
    return arm.teacher == REHEARSAL or is_loopback(arm.teacher)


def price_of_arm(recipe: Recipe, arm: Arm) -> Price:
    """What the teacher of an arm asks; ConfigError when that is not known."""
    return require_price(arm.model, is_local=is_local(arm), recipe_folder=recipe.folder)
