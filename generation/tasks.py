"""The short Celery task of drafting: claim a block, draft it, come back while work is due."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from celery import shared_task

from core.errors import FakeScopeError
from db.work import due_count, stop_campaign, stopped_because
from generation.desk import Assignment, Desk, open_desk
from generation.draft import draft_block
from generation.janitor import tidy

log = logging.getLogger("fakescope.generation")


@shared_task(name="generation.draft_block")  # type: ignore[untyped-decorator]
def draft_block_task(campaign_id: str, recipe: str, rehearsal_url: str | None) -> None:
    """Draft one block of claims, then enqueue the next while work is due. Twice is harmless.

    What is raised concerns more than one image (a refused key, a ceiling, a full disk): it stops
    the campaign with its reason, for every worker, because going on would meet it again.
    """
    assignment = Assignment(campaign_id=campaign_id, recipe=recipe, rehearsal_url=rehearsal_url)
    desk = open_desk(assignment)
    if _is_stopped(desk):
        return
    try:
        tidy(desk.database, campaign_id)
        done = draft_block(desk, desk.recipe.settings.drafting.claim_size)
    except Exception as error:
        _stop(desk, error)
        raise
    log.info("drafted %d, quarantined %d, gave back %d", *done)
    if sum(done) and not desk.stop.is_set() and _is_due(desk):
        enqueue(assignment)


def enqueue(assignment: Assignment, *, count: int = 1) -> None:
    """Send `count` drafting messages."""
    for _ in range(count):
        draft_block_task.delay(assignment.campaign_id, assignment.recipe, assignment.rehearsal_url)


def _stop(desk: Desk, error: Exception) -> None:
    reason = str(error) if isinstance(error, FakeScopeError) else f"unexpected {error!r}"
    log.error("drafting stopped: %s", reason)
    desk.failures.append(error)
    with desk.database.write() as session:
        stop_campaign(session, desk.campaign_id, reason)


def _is_stopped(desk: Desk) -> bool:
    with desk.database.read() as session:
        return stopped_because(session, desk.campaign_id) is not None


def _is_due(desk: Desk) -> bool:
    with desk.database.read() as session:
        return due_count(session, desk.campaign_id, datetime.now(UTC)) > 0
