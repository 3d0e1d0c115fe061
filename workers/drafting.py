"""Run a drafting campaign to its end: in this process, or by the workers on the broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from kombu.exceptions import OperationalError

from core.errors import ConfigError, PermanentError
from core.recipe import REHEARSAL, Recipe
from core.settings import Settings
from db.engine import Database
from db.work import employ, stopped_because
from generation.campaign import Campaign, Progress, progress
from generation.desk import Assignment, Desk, check_teachers, open_desk
from generation.janitor import janitor, tidy
from generation.tasks import call_listeners, enqueue, queue_of, teachers_of
from teacher.rehearsal import start_rehearsal
from workers.app import in_process_worker, make_app

log = logging.getLogger("fakescope.workers")

POLL_SECONDS = 0.2
POLL_PAUSE = 20
"""times as long as a look takes: millions of images are not counted all the time"""
SILENCE_SECONDS = 20.0
"""without progress for so long, ask whether any worker lives"""
PING_SECONDS = 3.0
PINGS = 2
"""a worker on a busy machine may answer late"""

Report = Callable[[Progress], None]


def run_campaign(
    settings: Settings,
    database: Database,
    recipe: Recipe,
    campaign: Campaign,
    *,
    report: Report = lambda _: None,
) -> Progress:
    """Draft everything that is due; raises PermanentError when the campaign was stopped."""
    if not campaign.due:
        return progress(database, campaign)
    with ExitStack() as stack:
        assignment = Assignment(
            campaign_id=campaign.campaign_id,
            recipe=str(recipe.folder.resolve()),
            rehearsal_url=stack.enter_context(_rehearsal(settings, recipe)),
        )
        desk = open_desk(assignment)
        check_teachers(desk)
        _employ_workers(desk, assignment)
        stack.enter_context(_crew(settings, desk))
        return _wait(settings, desk, campaign, assignment, report)


def _employ_workers(desk: Desk, assignment: Assignment) -> None:
    """Let workers take part, and free what an earlier run left claimed."""
    with desk.database.write() as session:
        employ(
            session,
            assignment.campaign_id,
            recipe_folder=assignment.recipe,
            rehearsal_url=assignment.rehearsal_url,
        )
    tidy(desk.database, assignment.campaign_id)


def _rehearsal(settings: Settings, recipe: Recipe) -> AbstractContextManager[str | None]:
    """The rehearsal teacher where an arm uses it; it logs every request that it is sent."""
    if any(arm.teacher == REHEARSAL for arm in recipe.arms):
        return start_rehearsal(recipe.folder, log=settings.fakescope_home / "rehearsal.jsonl")
    return nullcontext(None)


@contextmanager
def _crew(settings: Settings, desk: Desk) -> Iterator[None]:
    """Somebody to do the work: a worker of our own when no broker is configured."""
    app = make_app(settings)
    app.set_default()
    if settings.celery_broker_url is not None:
        yield
        return
    queues = [queue_of(teacher) for teacher in teachers_of(desk.recipe)]
    with in_process_worker(app, queues), janitor(settings):
        try:
            yield
        finally:
            desk.stop.set()
    desk.stop.clear()


def _wait(
    settings: Settings, desk: Desk, campaign: Campaign, assignment: Assignment, report: Report
) -> Progress:
    """Send for workers, then look at the database until nothing is due.

    From then on the workers' janitors see to it that somebody works.
    """
    for teacher in teachers_of(desk.recipe):
        call_listeners(teacher)
        enqueue(assignment, teacher)
    seen, changed = progress(desk.database, campaign), time.monotonic()
    look_seconds = 0.0
    while seen.done < seen.total:
        report(seen)
        desk.shift_ended.wait(max(POLL_SECONDS, POLL_PAUSE * look_seconds))
        desk.shift_ended.clear()
        started = time.monotonic()
        _raise_if_stopped(desk)
        now = progress(desk.database, campaign)
        look_seconds = time.monotonic() - started
        if now != seen:
            seen, changed = now, time.monotonic()
        elif time.monotonic() - changed > SILENCE_SECONDS:
            _check_workers(settings)
            changed = time.monotonic()
    report(seen)
    return seen


def _raise_if_stopped(desk: Desk) -> None:
    """Raise what stopped the campaign: here, or in a worker elsewhere."""
    for failure in desk.failures:
        raise failure
    with desk.database.read() as session:
        reason = stopped_because(session, desk.campaign_id)
    if reason is not None:
        raise PermanentError(f"drafting stopped: {reason}; what was stored is kept, run it again")


def _check_workers(settings: Settings) -> None:
    """ConfigError when no worker answers. A broker that is away may come back: it loses nothing."""
    if settings.celery_broker_url is None:
        return
    app = make_app(settings)
    with app.connection_for_write() as connection:  # a pooled one may have died with the broker
        is_away = (*connection.connection_errors, *connection.channel_errors, OperationalError)
        try:
            pings = (
                app.control.ping(timeout=PING_SECONDS, connection=connection) for _ in range(PINGS)
            )
            is_answered = any(pings)
        except is_away:
            log.warning("the broker on CELERY_BROKER_URL does not answer; waiting for it")
            return
    if not is_answered:
        raise ConfigError(
            "no worker answers on CELERY_BROKER_URL: start one with `make worker`, or unset "
            "CELERY_BROKER_URL to draft inside this command"
        )
