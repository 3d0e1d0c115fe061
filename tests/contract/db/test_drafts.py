"""Drafts with their findings as rows, on both databases."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.ids import content_id
from core.records import Authenticity, Confidence, Draft, Reasoning, Region, TraceFinding
from db.columns import storable
from db.engine import Database
from db.ledger import DatabaseLedger, drafts, save_drafts
from tests.campaigns import ask, start_campaign, store_draft, store_images
from tests.masks import masks
from tests.unit.records import make_draft, make_finding

unit = st.floats(0, 1, allow_nan=False)
regions = st.builds(
    Region, points=st.lists(st.tuples(unit, unit), min_size=1, max_size=5).map(tuple)
)
findings = st.builds(
    TraceFinding,
    category=st.sampled_from(["texture", "edges", "anatomy"]),
    evidence=st.text(max_size=60).map(storable),
    points_to=st.sampled_from(Authenticity),
    region=st.none() | regions | masks(),
)
reasonings = st.builds(
    Reasoning,
    verdict=st.sampled_from(Authenticity),
    findings=st.lists(findings, max_size=6).map(tuple),
    conclusion=st.text(max_size=60).map(storable),
    confidence=st.sampled_from(Confidence),
)


def newest(database: Database, campaign_id: str, arm: str = "main") -> list[Draft]:
    with database.read() as session:
        return list(drafts(session, campaign_id, arm))


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(reasoning=reasonings)
def test_any_reasoning_is_read_back_as_it_was_saved(
    database: Database, reasoning: Reasoning
) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    attempt_id = ask(DatabaseLedger(database, campaign_id, teacher="rehearsal"), image).attempt_id
    draft = make_draft(
        image,
        draft_id=content_id("draft", repr(reasoning), attempt_id),
        campaign_id=campaign_id,
        attempt_id=attempt_id,
        reasoning=reasoning,
    )
    with database.write() as session:
        save_drafts(session, [draft])
    assert newest(database, campaign_id) == [draft]


def test_drafts_come_in_order_and_in_more_than_one_batch(database: Database) -> None:
    images = store_images(database, 503)
    campaign_id = start_campaign(database, images)
    reply = ask(DatabaseLedger(database, campaign_id, teacher="rehearsal"), images[0])
    saved = [
        make_draft(
            image,
            make_finding(),
            make_finding("edges", Authenticity.REAL),
            campaign_id=campaign_id,
            attempt_id=reply.attempt_id,
        )
        for image in images
    ]
    with database.write() as session:
        for draft in reversed(saved):
            assert save_drafts(session, [draft])
    assert newest(database, campaign_id) == saved


def test_the_newest_draft_of_an_image_counts(database: Database) -> None:
    images = store_images(database, 2)
    campaign_id = start_campaign(database, images)
    store_draft(database, campaign_id, images[0], make_finding(), question="first")
    other = store_draft(database, campaign_id, images[1])
    second = store_draft(database, campaign_id, images[0], make_finding("edges"), question="second")
    assert newest(database, campaign_id) == [second, other]


def test_saving_a_draft_again_changes_nothing(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    draft = store_draft(database, campaign_id, image, make_finding())
    with database.write() as session:
        assert not save_drafts(session, [draft])
    assert newest(database, campaign_id) == [draft]


def test_an_older_draft_that_is_saved_again_is_the_newest_once_more(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    first = store_draft(database, campaign_id, image, question="first")
    store_draft(database, campaign_id, image, question="second")
    with database.write() as session:
        assert save_drafts(session, [first])
    assert newest(database, campaign_id) == [first]


def test_arms_do_not_mix(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    main = store_draft(database, campaign_id, image)
    other = replace(main, draft_id="draft-other", arm="other")
    with database.write() as session:
        save_drafts(session, [other])
    assert newest(database, campaign_id) == [main]
    assert newest(database, campaign_id, "other") == [other]


def test_chosen_images_alone_are_read(database: Database) -> None:
    images = store_images(database, 3)
    campaign_id = start_campaign(database, images)
    saved = [store_draft(database, campaign_id, image) for image in images[:2]]
    ids = [image.image_id for image in reversed(images)]
    with database.read() as session:
        assert list(drafts(session, campaign_id, "main", image_ids=ids[:2])) == saved[1:]
        assert list(drafts(session, campaign_id, "main", image_ids=[*ids, *ids])) == saved
        assert list(drafts(session, campaign_id, "main", image_ids=[])) == []
