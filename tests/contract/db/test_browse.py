"""What the dashboard asks of the database, on both: pages, filters, and figures told elsewhere."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from sqlalchemy import update

from core.ids import content_id
from core.records import AttemptOutcome, Authenticity, TraceOutcome, WorkState
from db.browse import (
    UNLABELLED,
    DraftFilter,
    DraftLine,
    Fault,
    ImageFilter,
    clusters_page,
    count_clusters,
    count_wanted,
    draft_details,
    drafts_page,
    first_drafts,
    images_page,
    metadata_counts,
)
from db.engine import Database
from db.images import count_images, labelled_images, save_images
from db.ledger import DatabaseLedger
from db.progress import Wait, count_held_up, funnel, held_up_images, pace, set_aside_images
from db.reports import invented_traces, status
from db.reviews import save_correction
from db.tables import WorkRow
from db.work import claim, extend_claims, quarantine, release, work_counts
from imaging.shortcuts import label_tables
from tests.campaigns import NOON, start_campaign, store_draft, store_images
from tests.unit.records import make_correction, make_finding, make_image

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE


def test_pages_hold_each_image_once_and_filters_hold(database: Database) -> None:
    store_images(database, 5)
    store_images(database, 4, source="other", format="PNG")
    with database.write() as session:
        save_images(session, [make_image("nobody knows", label=None, generator=None)])
    with database.read() as session:
        wanted = ImageFilter()
        pages = [images_page(session, wanted, limit=4, offset=start) for start in (0, 4, 8)]
        ids = [image.image_id for page in pages for image in page]
        assert ids == sorted(set(ids))
        assert len(ids) == count_wanted(session, wanted) == count_images(session).total == 10
        assert count_wanted(session, ImageFilter(source="other", label="fake")) == 2
        assert count_wanted(session, ImageFilter(label=UNLABELLED)) == 1
        assert count_wanted(session, ImageFilter(format="PNG", generator="sim-nearest")) == 2
        (one,) = images_page(session, ImageFilter(image_id=ids[3]), limit=9)
        assert one.image_id == ids[3]
        assert count_wanted(session, ImageFilter(image_id="img_")) == 0  # no pattern


def test_label_tables_from_counts_are_those_of_the_audit(database: Database) -> None:
    store_images(database, 6, jpeg_quality=81)
    store_images(database, 5, source="other", format="PNG", jpeg_quality=None, width=300)
    with database.read() as session:
        counts = metadata_counts(session, ImageFilter())
        images = list(labelled_images(session))
    assert label_tables(counts, numbers=[c.images for c in counts]) == label_tables(images)


def test_only_mixed_clusters_where_asked(database: Database) -> None:
    images = store_images(database, 4)
    mixed = [replace(make_image(f"m{n}"), cluster="mixed") for n in range(2)]
    same = [replace(make_image(f"s{n}"), cluster="same", group="one") for n in range(3)]
    with database.write() as session:
        save_images(session, [replace(mixed[0], label=REAL), mixed[1], *same])
    with database.read() as session:
        (found,) = clusters_page(session, ImageFilter(), mixed=True, limit=9)
        everything = clusters_page(session, ImageFilter(), mixed=False, limit=9)
        assert count_clusters(session, ImageFilter(), mixed=False) == 2
    assert found.name == "mixed"
    assert [cluster.name for cluster in everything] == ["same", "mixed"]
    assert not {i.image_id for c in everything for i in c.images} & {i.image_id for i in images}


def test_each_fault_finds_its_drafts(database: Database) -> None:
    images = store_images(database, 4)
    campaign_id = start_campaign(database, images)
    fakes = [image for image in images if image.label is FAKE]
    reals = [image for image in images if image.label is REAL]
    edited = store_draft(database, campaign_id, fakes[0], make_finding())
    no_trace = store_draft(database, campaign_id, fakes[1])
    invented = store_draft(database, campaign_id, reals[0], make_finding())
    store_draft(database, campaign_id, reals[1], make_finding("edge", REAL))
    store_draft(database, campaign_id, reals[1], make_finding("edge", REAL), question="again")
    said = make_correction(
        edited,
        "expert-1",
        make_finding(evidence="No."),
        correction_id=content_id("correction", 1),
        outcomes=(TraceOutcome.EDITED,),
    )
    with database.write() as session:
        save_correction(session, said)
    found = {
        fault: {line.image_id for line in page}
        for fault in Fault
        for page in [drafts_of(database, campaign_id, fault)]
    }
    assert found == {
        Fault.CONTRADICTION: set(),
        Fault.RETRIED: {reals[1].image_id},
        Fault.EDITED: {fakes[0].image_id},
        Fault.REJECTED: set(),
        Fault.IMAGE_REJECTED: set(),
        Fault.WRONG_VERDICT: set(),
        Fault.NO_TRACE: {no_trace.image_id},
        Fault.INVENTED: {invented.image_id},
    }
    with database.read() as session:
        details = draft_details(session, edited.draft_id)
        assert draft_details(session, "draft-none") is None
    assert details is not None
    assert (details.draft, details.corrections) == (edited, (said,))
    assert [call.attempt_id for call in details.attempts] == [edited.attempt_id]
    assert details.reply is not None


def drafts_of(database: Database, campaign_id: str, fault: Fault) -> list[DraftLine]:
    wanted = DraftFilter(campaign_id=campaign_id, fault=fault)
    with database.read() as session:
        page = drafts_page(session, wanted, limit=9)
        assert first_drafts(session, wanted, limit=9) == (len(page), page)
        assert first_drafts(session, wanted, limit=1) == (len(page), page[:1])
        assert drafts_page(session, wanted, limit=9, offset=1) == page[1:]
    return page


def test_progress_tells_what_status_tells(database: Database) -> None:
    images = store_images(database, 6)
    campaign_id = start_campaign(database, images)
    store_draft(database, campaign_id, images[0], make_finding())
    with database.write() as session:
        first, second, _ = claim(
            session, campaign_id, arms=["main"], worker="w", limit=3, seconds=60, now=NOON
        )
        quarantine(session, first.work_id, "refused")
        quarantine(session, second.work_id, "cut off")
    with database.read() as session:
        counts = funnel(session, campaign_id)
        by_state = {
            state: sum(each.images for each in counts if each.state is state)
            for state in WorkState
            if any(each.state is state for each in counts)
        }
        told = status(session, campaign_id)
        assert by_state == told.work == work_counts(session, campaign_id)
        assert told.quarantined == {"refused": 1, "cut off": 1}
        (aside,) = set_aside_images(session, campaign_id, "refused", limit=9)
        assert aside.image.image_id == first.image_id
        assert len(set_aside_images(session, campaign_id, None, limit=9)) == 2
        assert pace(session, campaign_id, now=NOON, minutes=10).due == 4


def test_what_waits_is_counted_and_named_with_the_reason(database: Database) -> None:
    images = store_images(database, 5)
    campaign_id = start_campaign(database, images)
    with database.write() as session:
        silent, tried, sent, _ = claim(
            session, campaign_id, arms=["main"], worker="w", limit=4, seconds=60, now=NOON
        )
        release(session, "w", [tried.work_id], due_at=NOON + timedelta(hours=2))
        of_batch = update(WorkRow).where(WorkRow.work_id == sent.work_id)
        session.execute(of_batch.values(claimed_until=None))
        extend_claims(session, "w", [silent.work_id], seconds=1, now=NOON)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    for reason in ("an old one", "busy"):
        attempt_id = ledger.open_attempt(
            request_hash="f" * 64,
            image_id=tried.image_id,
            arm="main",
            model="rehearsal",
            reserved_usd=0.0,
        )
        ledger.fail_attempt(attempt_id, AttemptOutcome.RATE_LIMITED, reason)
    soon = NOON + timedelta(seconds=30)
    with database.read() as session:
        counts = count_held_up(session, campaign_id, now=soon)
        found = held_up_images(session, campaign_id, now=soon, limit=9)
        (second,) = held_up_images(session, campaign_id, now=soon, limit=1, offset=1)
    assert counts == dict.fromkeys(Wait, 1)
    waits = {each.image.image_id: (each.wait, each.reason) for each in found}
    assert waits == {
        silent.image_id: (Wait.EXPIRED, ""),
        tried.image_id: (Wait.LATER, "busy"),
        sent.image_id: (Wait.IN_BATCH, ""),
    }
    assert second == found[1]


def test_invented_traces_are_those_of_status(database: Database) -> None:
    images = store_images(database, 8)
    campaign_id = start_campaign(database, images)
    reals = [image for image in images if image.label is REAL]
    store_draft(database, campaign_id, reals[0], make_finding(), make_finding("edge"))
    store_draft(database, campaign_id, reals[1], make_finding(), make_finding("shape", REAL))
    store_draft(database, campaign_id, reals[2], make_finding("edge", REAL))
    with database.read() as session:
        (found,) = invented_traces(session, campaign_id)
        told = status(session, campaign_id)
    assert (found.photographs, found.with_traces) == (3, 2)
    assert found.with_traces == told.photographs_with_trace
    assert found.by_category == {"texture": 2, "edge": 1}
