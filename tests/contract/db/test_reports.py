"""The read model of status and costs, on both databases."""

from __future__ import annotations

import json
from dataclasses import asdict

from core.records import AttemptOutcome, Authenticity, ReviewLevel, WorkState
from db.chains import save_chains
from db.engine import Database
from db.ledger import DatabaseLedger
from db.reports import costs, status
from db.work import claim, mark_chained, mark_drafted, quarantine, stop_campaign
from tests.campaigns import NOON, ask, make_chain, start_campaign, store_draft, store_images
from tests.unit.records import make_finding


def test_an_empty_database_has_a_status(database: Database) -> None:
    with database.read() as session:
        found = status(session, "campaign-none")
        money = costs(session, "campaign-none")
    assert (found.images.total, found.work, found.chains, found.quarantined) == (0, {}, {}, {})
    assert found.drafts == {Authenticity.REAL: 0, Authenticity.FAKE: 0}
    assert (money.ceiling_usd, money.spending.attempts, money.by_outcome) == (None, 0, {})


def test_work_drafts_chains_and_reasons_are_counted(database: Database) -> None:
    images = store_images(database, 6)
    campaign_id = start_campaign(database, images)
    with database.write() as session:
        claims = claim(session, campaign_id, worker="w", limit=5, seconds=60, now=NOON)
        mark_drafted(session, claims[0])
        quarantine(session, claims[1].work_id, "refused")
        quarantine(session, claims[2].work_id, "refused")
        quarantine(session, claims[3].work_id, "truncated")
    drafted = next(image for image in images if image.image_id == claims[0].image_id)
    draft = store_draft(database, campaign_id, drafted, make_finding())
    with database.write() as session:
        save_chains(session, [make_chain(draft)])
        mark_chained(session, campaign_id, "main", [draft.image_id])
        stop_campaign(session, campaign_id, "401")
        found = status(session, campaign_id)
    assert found.work == {
        WorkState.CHAINED: 1,
        WorkState.DRAFTING: 1,
        WorkState.NEW: 1,
        WorkState.QUARANTINED: 3,
    }
    assert found.quarantined == {"refused": 2, "truncated": 1}
    assert found.chains == {ReviewLevel.DRAFT: 1}
    assert found.images.total == 6
    assert found.stopped_because == "401"


def test_fakes_without_a_trace_and_photographs_with_one_are_counted(database: Database) -> None:
    fakes = store_images(database, 4, label=Authenticity.FAKE)
    photographs = store_images(database, 3, source="own", label=Authenticity.REAL)
    campaign_id = start_campaign(database, [*fakes, *photographs])
    real = make_finding("colour", Authenticity.REAL)
    store_draft(database, campaign_id, fakes[0], make_finding(), make_finding("edges"))
    store_draft(database, campaign_id, fakes[1], real)
    store_draft(database, campaign_id, fakes[2])
    store_draft(database, campaign_id, photographs[0], real, make_finding(), make_finding("edges"))
    store_draft(database, campaign_id, photographs[1], real)
    with database.read() as session:
        found = status(session, campaign_id)
    assert found.drafts == {Authenticity.FAKE: 3, Authenticity.REAL: 2}
    assert (found.fakes_without_trace, found.photographs_with_trace) == (2, 1)


def test_superseded_drafts_are_not_counted(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    store_draft(database, campaign_id, image, question="first")
    store_draft(database, campaign_id, image, make_finding(), question="second")
    with database.read() as session:
        found = status(session, campaign_id)
    assert (found.drafts[Authenticity.FAKE], found.fakes_without_trace) == (1, 0)


def test_costs_name_the_ceiling_and_the_outcomes(database: Database) -> None:
    images = store_images(database, 2)
    campaign_id = start_campaign(database, images, ceiling_usd=2.5)
    ledger = DatabaseLedger(database, campaign_id)
    ask(ledger, images[0])
    failed = ledger.open_attempt(
        request_hash="h", image_id=images[1].image_id, arm="main", model="m", reserved_usd=0.1
    )
    ledger.fail_attempt(failed, AttemptOutcome.RATE_LIMITED, "429")
    with database.read() as session:
        found = costs(session, campaign_id)
    assert (found.ceiling_usd, found.spending.spent_usd) == (2.5, 0.001)
    assert found.by_outcome == {AttemptOutcome.REPLIED: 1, AttemptOutcome.RATE_LIMITED: 1}


def test_reports_can_be_printed_as_json(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    store_draft(database, campaign_id, image)
    with database.read() as session:
        printed = json.dumps([asdict(status(session, campaign_id)), asdict(costs(session, "c"))])
    assert json.loads(printed)[0]["work"] == {"new": 1}
