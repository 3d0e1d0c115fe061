"""The use case of a drafting worker: claim images, ask the teacher, store what it says."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

from core.errors import DataError, PermanentError, StateError, TransientError
from core.ids import content_id
from core.records import Claim, Draft, ImageRecord, Reasoning, TeacherReply
from db.images import images_by_id
from db.ledger import save_draft
from db.work import claim, extend_claims, mark_drafted, quarantine, release
from generation.desk import Desk, Seat
from generation.parse import parse_draft
from generation.prompt import choose_demonstrations, prompt_version, render_request
from teacher.policy import ask_until_usable


class Drafted(NamedTuple):
    """What became of a block of claims."""

    drafted: int = 0
    quarantined: int = 0
    given_back: int = 0


def draft_block(desk: Desk, size: int) -> Drafted:
    """Claim up to `size` images and draft them with many calls in flight.

    A PermanentError ends the block: what was not sent is given back and the error is raised. So
    does a block of which no single image could be drafted: then it is the teacher that fails.
    """
    with desk.database.write() as session:
        claims = claim(
            session,
            desk.campaign_id,
            worker=desk.worker,
            limit=size,
            seconds=desk.recipe.settings.drafting.claim_seconds,
            now=datetime.now(UTC),
        )
    with desk.database.read() as session:
        images = images_by_id(session, [item.image_id for item in claims])
    try:
        return _draft_claims(desk, claims, images)
    finally:
        with desk.database.write() as session:
            release(session, desk.worker, [item.work_id for item in claims])


def _draft_claims(desk: Desk, claims: Sequence[Claim], images: dict[str, ImageRecord]) -> Drafted:
    in_flight = desk.recipe.settings.drafting.calls_in_flight
    with ThreadPoolExecutor(max_workers=in_flight, thread_name_prefix="draft") as pool:
        calls = [pool.submit(_draft_one, desk, item, images[item.image_id]) for item in claims]
        _keep_claims(desk, claims, calls)
    results = [call.result() for call in calls]
    failures = [result for result in results if isinstance(result, PermanentError)]
    troubles = [result for result in results if isinstance(result, TransientError)]
    if failures:
        desk.stop.clear()
        raise failures[0]
    if claims and len(troubles) == len(claims):
        raise PermanentError(f"none of {len(claims)} images could be drafted: {troubles[-1]}")
    done = [result for result in results if isinstance(result, Drafted)]
    columns = zip(*done, Drafted(given_back=len(troubles)), strict=True)
    return Drafted(*map(sum, columns))


def _keep_claims(desk: Desk, claims: Sequence[Claim], calls: Collection[Future[Any]]) -> None:
    """Wait for the calls, and hold on to the claims however long that takes."""
    seconds = desk.recipe.settings.drafting.claim_seconds
    while wait(calls, timeout=seconds / 3).not_done:
        with desk.database.write() as session:
            extend_claims(
                session,
                desk.worker,
                [item.work_id for item in claims],
                seconds=seconds,
                now=datetime.now(UTC),
            )


def _draft_one(
    desk: Desk, item: Claim, image: ImageRecord
) -> Drafted | TransientError | PermanentError:
    """Draft one image; what concerns more than this image is returned, not raised."""
    if desk.stop.is_set():
        return Drafted(given_back=1)
    try:
        return _draft_or_set_aside(desk, item, image)
    except StateError:
        return Drafted()
    except TransientError as error:
        return error
    except PermanentError as error:
        desk.stop.set()
        return error


def _draft_or_set_aside(desk: Desk, item: Claim, image: ImageRecord) -> Drafted:
    seat = desk.seats[item.arm]
    try:
        reasoning, reply = _ask(desk, seat, item, image)
        _keep(desk, seat, item, reasoning=reasoning, reply=reply)
    except DataError as error:
        return _set_aside(desk, item, str(error))
    except TransientError as error:
        if item.tries < desk.recipe.settings.drafting.max_tries:
            raise
        return _set_aside(desk, item, f"failed {item.tries} times, the last time: {error}")
    return Drafted(drafted=1)


def _ask(desk: Desk, seat: Seat, item: Claim, image: ImageRecord) -> tuple[Reasoning, TeacherReply]:
    label = image.label
    if label is None:
        raise DataError(f"image {image.image_id} has no label; only labelled images are drafted")
    request = render_request(image, desk.store.read(image.path), recipe=desk.recipe, arm=seat.arm)
    settings = desk.recipe.settings.drafting
    return ask_until_usable(
        seat.teacher,
        request,
        ledger=desk.ledger,
        image_id=item.image_id,
        arm=item.arm,
        price=seat.price,
        max_tries=settings.max_tries,
        max_reasks=settings.max_reasks,
        parse=lambda reply: parse_draft(reply, taxonomy=desk.recipe.taxonomy, label=label),
        stop=desk.stop,
    )


def _keep(
    desk: Desk, seat: Seat, item: Claim, *, reasoning: Reasoning, reply: TeacherReply
) -> None:
    draft = Draft(
        draft_id=content_id("draft", item.work_id, reply.request_hash, asdict(reasoning)),
        image_id=item.image_id,
        attempt_id=reply.attempt_id,
        campaign_id=item.campaign_id,
        arm=item.arm,
        teacher=reply.model,
        prompt_version=prompt_version(desk.recipe, seat.arm),
        demonstrations=len(choose_demonstrations(desk.recipe, seat.arm).exemplars),
        reasoning=reasoning,
    )
    with desk.database.write() as session:
        mark_drafted(session, item)
        save_draft(session, draft)


def _set_aside(desk: Desk, item: Claim, reason: str) -> Drafted:
    with desk.database.write() as session:
        quarantine(session, item.work_id, reason)
    return Drafted(quarantined=1)
