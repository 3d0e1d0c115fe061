"""The short Celery task of drafting: work through due images for a while, one teacher's at a time.

A message says which campaign to work on, and for which teacher; the worker claims images itself.
Each teacher has a queue of its own, so that a slow one does not hold up the others.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from urllib.parse import urlsplit

from celery import current_app, shared_task
from celery.signals import worker_shutting_down

from core.errors import ConfigError, FakeScopeError, TransientError
from core.recipe import Arm, Recipe
from core.settings import load_settings
from db.engine import Database, open_database
from db.work import is_due, stop_campaign, stopped_because
from generation.desk import Assignment, Desk, open_desk
from generation.draft import draft_due
from generation.stages import let_go_on

log = logging.getLogger("fakescope.generation")

SHIFT_SECONDS = 300.0
"""of one task; brokers give a message back that is not acknowledged within an hour"""
QUEUE_PREFIX = "fakescope."
ALL_TEACHERS = "all-"
"""begins the names of the workers that serve every teacher"""

_leaving = mmap.mmap(-1, 1)
"""shared with the pool processes, which are forked off: 1 once the worker was told to end"""


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _leave(**_: object) -> None:
    _leaving[0] = 1


def is_leaving() -> bool:
    """Whether the worker of this process was told to end when its tasks have."""
    return _leaving[0] == 1


@shared_task(name="generation.draft")  # type: ignore[untyped-decorator]
def draft_task(teacher: str, campaign_id: str, recipe: str, rehearsal_url: str | None) -> None:
    """Draft what is due for one teacher, then enqueue again while work is due. Twice is harmless.

    What is raised concerns more than one image (a refused key, a ceiling, a full disk): it stops
    the campaign with its reason, for every worker, because going on would meet it again.
    """
    assignment = Assignment(campaign_id=campaign_id, recipe=recipe, rehearsal_url=rehearsal_url)
    try:
        desk = open_desk(assignment)
    except ConfigError as error:
        _stop(open_database(load_settings(), migrate=False), campaign_id, error)
        raise
    if _is_stopped(desk):
        return
    arms = [arm.name for arm in arms_of(desk.recipe, teacher)]
    try:
        done = draft_due(desk, arms, seconds=SHIFT_SECONDS, is_leaving=is_leaving)
    except TransientError as error:
        log.warning("drafting for %s paused: %s", teacher, error)
        return  # the janitor sends somebody again
    except Exception as error:
        desk.failures.append(error)
        _stop(desk.database, campaign_id, error)
        raise
    finally:
        desk.shift_ended.set()
    log.info("drafted %d, quarantined %d, gave back %d for %s", *done, teacher)
    let_go_on(desk.database, desk.recipe)
    is_ending = desk.stop.is_set() or is_leaving()
    if sum(done) and not is_ending and _is_due(desk, arms):
        enqueue(assignment, teacher)


def teachers_of(recipe: Recipe) -> list[str]:
    """The names of the teachers that a recipe asks, in the order of its arms."""
    return list(dict.fromkeys(teacher_name(arm) for arm in recipe.arms))


def arms_of(recipe: Recipe, teacher: str) -> list[Arm]:
    """The arms that ask this teacher."""
    return [arm for arm in recipe.arms if teacher_name(arm) == teacher]


def teacher_name(arm: Arm) -> str:
    """Host and port of the arm's teacher, or `rehearsal`: names its queue."""
    return urlsplit(arm.teacher).netloc.rpartition("@")[2] or arm.teacher


def queue_of(teacher: str) -> str:
    return QUEUE_PREFIX + teacher


def enqueue(assignment: Assignment, teacher: str) -> None:
    """Send a drafting message to a teacher's queue."""
    draft_task.apply_async((teacher,), asdict(assignment), queue=queue_of(teacher))


def call_listeners(teacher: str) -> None:
    """Have the workers that serve every teacher listen to this one's queue, if they do not yet."""
    everybody = f"{ALL_TEACHERS}*"
    current_app.control.add_consumer(queue_of(teacher), pattern=everybody, matcher="glob")


def num_waiting(teacher: str) -> int:
    """How many messages for a teacher nobody has taken up yet."""
    with current_app.connection_for_read() as connection:
        try:
            declared = connection.default_channel.queue_declare(queue_of(teacher), passive=True)
        except connection.channel_errors:
            return 0  # there is no such queue yet
        return int(declared.message_count)


def _stop(database: Database, campaign_id: str, error: Exception) -> None:
    reason = str(error) if isinstance(error, FakeScopeError) else f"unexpected {error!r}"
    log.error("drafting stopped: %s", reason)
    with database.write() as session:
        stop_campaign(session, campaign_id, reason)


def _is_stopped(desk: Desk) -> bool:
    with desk.database.read() as session:
        return stopped_because(session, desk.campaign_id) is not None


def _is_due(desk: Desk, arms: Sequence[str]) -> bool:
    with desk.database.read() as session:
        return is_due(session, desk.campaign_id, datetime.now(UTC), arms=arms)
