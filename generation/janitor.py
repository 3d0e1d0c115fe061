"""The janitor: frees claims that nobody works on, and sees to it that somebody works on due images.

It runs in every process that drafts. A campaign is tended by one of them at a time, at most once
in `TEND_SECONDS`: whoever moves its `tended_at` on. Because it looks at the database, a broker
that forgot all messages loses nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path

from core.recipe import Recipe, configured_recipe
from core.settings import Settings, load_settings
from db.engine import Database, open_database
from db.work import (
    Running,
    campaign_id_of,
    claiming_workers,
    free_expired,
    is_due,
    release,
    running_campaigns,
    take_turn,
)
from generation.desk import Assignment
from generation.liveness import is_dead
from generation.stages import let_go_on
from generation.tasks import arms_of, call_listeners, enqueue, num_waiting, teachers_of

log = logging.getLogger("fakescope.generation")

TEND_SECONDS = 2.0


@contextmanager
def janitor(settings: Settings) -> Iterator[None]:
    """Tend all campaigns in a thread of this process while the block lasts."""
    ended = threading.Event()
    thread = start_janitor(settings, ended)
    try:
        yield
    finally:
        ended.set()
        thread.join()


def start_janitor(settings: Settings, ended: threading.Event) -> threading.Thread:
    """Tend all campaigns until `ended`; a process that was forked off calls it for itself."""
    thread = threading.Thread(target=_watch, args=(settings, ended), name="janitor", daemon=True)
    thread.start()
    return thread


def _watch(settings: Settings, ended: threading.Event) -> None:
    database: Database | None = None
    while not ended.wait(TEND_SECONDS):
        try:
            database = database or open_database(settings, migrate=False)
            tend(database)
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round may get through
            log.warning("the janitor could not do its round: %s", error)
    if database is not None:
        database.dispose()


def tend(database: Database) -> None:
    """One round over the campaigns that are running and whose turn it is."""
    with database.read() as session:
        running = running_campaigns(session)
    for campaign in running:
        now = datetime.now(UTC)
        with database.write() as session:
            is_mine = take_turn(
                session, campaign.campaign_id, now=now, every=timedelta(seconds=TEND_SECONDS)
            )
        if is_mine:
            tidy(database, campaign.campaign_id)
            _send_for_workers(database, campaign)


def tidy(database: Database, campaign_id: str) -> int:
    """Free claims that nobody works on any more; returns how many."""
    with database.write() as session:
        freed = free_expired(session, campaign_id, datetime.now(UTC))
        dead = [name for name in claiming_workers(session, campaign_id) if is_dead(name)]
        return freed + sum(release(session, worker) for worker in dead)


def _send_for_workers(database: Database, campaign: Running) -> None:
    """A message for each teacher that has due work and no message waiting."""
    recipe = _recipe_of(campaign)
    if recipe is None:
        return
    let_go_on(database, recipe)
    assignment = Assignment(
        campaign_id=campaign.campaign_id,
        recipe=campaign.recipe_folder,
        rehearsal_url=campaign.rehearsal_url,
    )
    for teacher in teachers_of(recipe):
        arms = [arm.name for arm in arms_of(recipe, teacher)]
        with database.read() as session:
            due = is_due(session, campaign.campaign_id, datetime.now(UTC), arms=arms)
        if due:
            call_listeners(teacher)
        if due and not num_waiting(teacher):
            enqueue(assignment, teacher)


@lru_cache(maxsize=16)
def _recipe_of(campaign: Running) -> Recipe | None:
    """The recipe of a campaign; None where its folder holds another version by now."""
    recipe = configured_recipe(Path(campaign.recipe_folder), load_settings())
    return recipe if campaign_id_of(recipe) == campaign.campaign_id else None
