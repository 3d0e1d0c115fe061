"""Read stored replies again with the present parser: nothing is sent, nothing is paid."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from core.errors import DataError
from core.recipe import Arm, Recipe
from core.records import Claim, Draft, Reasoning, TeacherReply
from core.servers import server_of
from db.engine import Database
from db.images import images_by_id
from db.ledger import drafts, replies_about, replies_of_attempts, save_drafts, stored_replies
from db.request_texts import keep_request_text
from db.reviews import corrections
from db.work import campaign_id_of, renew, rescue, set_aside
from generation.brief import Brief, briefs_for
from generation.parse import reread
from generation.prompt import Rendered
from imaging.store import ImageStore
from teacher.request import request_hash

BLOCK = 500
"""drafts read, and written, at a time"""


@dataclass(kw_only=True)
class Reparsed:
    """What became of the drafts and of the images that were set aside."""

    unchanged: int = 0
    superseded: int = 0
    """drafts whose reply now reads differently"""
    unreadable: int = 0
    """drafts whose reply the present parser cannot use; they stay"""
    corrected: int = 0
    """drafts that experts have corrected: left alone, whatever their reply now says"""
    rescued: int = 0
    """images set aside before, with a draft now"""
    still_aside: int = 0
    outdated: int = 0
    """images whose drafts are others than those that were merged: due again in the merging arm"""


def reparse(database: Database, store: ImageStore, recipe: Recipe) -> Reparsed:
    """Read the replies of the recipe's campaign again, and keep what is new. Idempotent.

    A draft whose reply reads differently is superseded, unless an expert has corrected it. An
    image that was set aside gets its draft from the first of its replies that can be used now.
    What other drafts than the present ones were merged into is left to the next drafting.
    """
    done = Reparsed()
    for arm in sorted(recipe.arms, key=lambda arm: arm.merge is not None):
        if arm.sorts:
            continue  # it drafts nothing
        for block in _blocks_of_drafts(database, campaign_id_of(recipe), arm):
            _read_again(database, recipe, arm, block, done)
        with database.read() as session:
            aside = set_aside(session, campaign_id_of(recipe), arm.name)
        for start in range(0, len(aside), BLOCK):
            _rescue(database, store, recipe, arm, aside[start : start + BLOCK], done)
    return done


def _blocks_of_drafts(database: Database, campaign_id: str, arm: Arm) -> Iterator[list[Draft]]:
    with database.read() as session:
        found = drafts(session, campaign_id, arm.name)
        while block := list(islice(found, BLOCK)):
            yield block


def _read_again(
    database: Database, recipe: Recipe, arm: Arm, block: Sequence[Draft], done: Reparsed
) -> None:
    image_ids = [draft.image_id for draft in block]
    with database.read() as session:
        images = images_by_id(session, image_ids)
        corrected = {c.draft_id for many in corrections(session, image_ids).values() for c in many}
        replies = replies_of_attempts(session, [draft.attempt_id for draft in block])
    briefs = briefs_for(database, recipe, arm, list(images.values()))
    changed, outdated = [], []
    for draft in block:
        if draft.draft_id in corrected:
            done.corrected += 1
            continue
        if draft.merged != tuple(each.draft_id for each in briefs[draft.image_id].drafts):
            outdated.append(draft.image_id)
            continue
        if draft.attempt_id not in replies:
            continue  # withdrawn since the draft was read
        reply = replies[draft.attempt_id]
        try:
            again = reread(draft, _reasoning(briefs[draft.image_id], reply), reply)
        except DataError:
            done.unreadable += 1
            continue
        if again == draft:
            done.unchanged += 1
        else:
            changed.append(again)
    if not changed and not outdated:
        return
    with database.write() as session:
        done.superseded += len(save_drafts(session, changed))
        done.outdated += renew(session, campaign_id_of(recipe), arm.name, outdated)


def _rescue(
    database: Database,
    store: ImageStore,
    recipe: Recipe,
    arm: Arm,
    aside: Sequence[Claim],
    done: Reparsed,
) -> None:
    image_ids = [work.image_id for work in aside]
    with database.read() as session:
        images = images_by_id(session, image_ids)
        replies = replies_about(session, campaign_id_of(recipe), arm.name, image_ids)
    briefs = briefs_for(database, recipe, arm, list(images.values()))
    unasked: list[str] = []
    for work in aside:
        image, brief = images[work.image_id], briefs[work.image_id]
        try:
            brief.check()
            rendered = brief.render(store.read(image.path))
            elsewhere = _paid_elsewhere(database, rendered, arm)
            known = [*replies.get(work.image_id, ()), *elsewhere]
            if arm.merge and not known:  # it lacked drafts, and was not asked
                unasked.append(work.image_id)
                continue
            reasoning, reply = _first_usable(known, brief)
        except DataError:
            done.still_aside += 1
            continue
        keep_request_text(database, rendered.text)
        with database.write() as session:
            if rescue(session, work.work_id):
                draft = brief.result(reasoning, reply, rendered, work=work)
                assert isinstance(draft, Draft)
                save_drafts(session, [draft])
                done.rescued += 1
    if unasked:
        with database.write() as session:
            done.outdated += renew(session, campaign_id_of(recipe), arm.name, unasked)


def _paid_elsewhere(database: Database, rendered: Rendered, arm: Arm) -> list[TeacherReply]:
    """The newest reply to the very same request, in whichever campaign it was paid for."""
    asked, server = [request_hash(rendered.request)], server_of(arm.teacher)
    with database.read() as session:
        found = stored_replies(session, asked, server=server)
    return [reply for reply in found if reply is not None]


def _first_usable(replies: Sequence[TeacherReply], brief: Brief) -> tuple[Reasoning, TeacherReply]:
    for reply in replies:
        with suppress(DataError):
            return _reasoning(brief, reply), reply
    raise DataError(f"no stored reply about image {brief.image.image_id} can be used")


def _reasoning(brief: Brief, reply: TeacherReply) -> Reasoning:
    said = brief.read(reply)
    assert isinstance(said, Reasoning)
    return said
