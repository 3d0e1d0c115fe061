"""Stored replies are read again: new readings supersede, rescued images get their drafts."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from core.records import WorkState
from db.engine import Database
from db.ledger import DatabaseLedger, save_drafts, spent
from db.reviews import save_correction
from db.work import open_campaign, set_aside, work_counts
from generation.prompt import render
from generation.reparse import reparse
from imaging.store import ImageStore
from teacher.request import request_hash
from tests.campaigns import ask
from tests.databases import (  # noqa: F401
    database,
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)
from tests.replies import ARM, RECIPE, Drafting
from tests.unit.records import make_correction

ANOTHER = RECIPE.model_copy(update={"drafting_digest": "another"})


def read_again(drafting: Drafting) -> dict[str, int]:
    """What a pass did, without what it did not do."""
    done = asdict(reparse(drafting.database, drafting.store, RECIPE))
    return {name: count for name, count in done.items() if count}


@pytest.fixture
def drafting(database: Database, tmp_path: Path) -> Drafting:  # noqa: F811
    return Drafting(database, tmp_path / "images", images=3)


def test_what_reads_as_before_stays(drafting: Drafting) -> None:
    kept = [drafting.keep(image, drafting.answer(image)) for image in drafting.images]
    assert read_again(drafting) == {"unchanged": 3}
    assert drafting.newest() == kept


def test_a_draft_that_reads_otherwise_is_superseded_once(drafting: Drafting) -> None:
    first, *others = drafting.images
    draft = drafting.keep(first, drafting.answer(first))
    kept = [drafting.keep(image, drafting.answer(image)) for image in others]
    drafting.read_otherwise(draft)
    assert read_again(drafting) == {"unchanged": 2, "superseded": 1}
    assert drafting.newest() == sorted([draft, *kept], key=lambda d: d.image_id)
    assert read_again(drafting) == {"unchanged": 3}


def test_a_draft_that_an_expert_corrected_is_left_alone(drafting: Drafting) -> None:
    first = drafting.images[0]
    older = drafting.read_otherwise(drafting.keep(first, drafting.answer(first)))
    with drafting.database.write() as session:
        save_correction(session, make_correction(older, "anna"))
    assert read_again(drafting) == {"corrected": 1}
    assert drafting.newest() == [older]


def test_a_draft_whose_reply_cannot_be_used_any_more_stays(drafting: Drafting) -> None:
    image = drafting.images[0]
    draft = drafting.keep(image, drafting.answer(image))
    broken = drafting.answer(image, content="{")
    other = replace(draft, draft_id="other", attempt_id=broken.attempt_id)
    with drafting.database.write() as session:
        save_drafts(session, [other])
    assert read_again(drafting) == {"unreadable": 1}
    assert drafting.newest() == [other]


def test_an_image_that_was_set_aside_is_rescued_by_its_first_usable_reply(
    drafting: Drafting,
) -> None:
    image = drafting.images[0]
    drafting.answer(image, content="{")
    usable = drafting.answer(image)
    drafting.answer(image, finish_reason="length")
    drafting.set_aside(image)
    assert read_again(drafting) == {"rescued": 1}
    (draft,) = drafting.newest()
    assert draft.attempt_id == usable.attempt_id
    assert draft.seen[0].name == "whole"
    assert draft.bytes_sent == len(drafting.store.read(image.path))
    with drafting.database.read() as session:
        assert work_counts(session, drafting.campaign_id)[WorkState.DRAFTED] == 1
        assert set_aside(session, drafting.campaign_id, "main") == []
    assert read_again(drafting) == {"unchanged": 1}


def test_without_a_usable_reply_or_without_its_file_an_image_stays_aside(
    drafting: Drafting, tmp_path: Path
) -> None:
    silent, refused, lost = drafting.images
    drafting.answer(refused, content=None, refusal="No.")
    drafting.answer(lost)
    for image in (silent, refused, lost):
        drafting.set_aside(image)
    drafting.store = ImageStore(tmp_path / "another")
    assert read_again(drafting) == {"still_aside": 3}
    assert drafting.newest() == []


def test_replies_of_other_images_arms_and_campaigns_rescue_nothing(drafting: Drafting) -> None:
    first, second, _ = drafting.images
    drafting.answer(second)
    with drafting.database.write() as session:
        elsewhere = open_campaign(session, ANOTHER, ceiling_usd=None)
    ask(DatabaseLedger(drafting.database, elsewhere, teacher="rehearsal"), first)
    drafting.set_aside(first)
    assert read_again(drafting) == {"still_aside": 1}


def test_a_reply_to_the_same_request_in_another_campaign_rescues(drafting: Drafting) -> None:
    image = drafting.images[0]
    data = drafting.store.read(image.path)
    name = request_hash(render(image, data, recipe=RECIPE, arm=ARM).request)
    with drafting.database.write() as session:
        elsewhere = open_campaign(session, ANOTHER, ceiling_usd=None)
    paid = drafting.answer(image, campaign_id=elsewhere, request_hash=name)
    drafting.set_aside(image)
    assert read_again(drafting) == {"rescued": 1}
    assert [draft.attempt_id for draft in drafting.newest()] == [paid.attempt_id]


def test_nothing_is_paid(drafting: Drafting) -> None:
    for image in drafting.images:
        drafting.answer(image)
        drafting.set_aside(image)
    with drafting.database.read() as session:
        before = spent(session, drafting.campaign_id)
    assert read_again(drafting) == {"rescued": 3}
    with drafting.database.read() as session:
        assert spent(session, drafting.campaign_id) == before
