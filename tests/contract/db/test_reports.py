"""The read model of status and costs, on both databases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from sqlalchemy import update

from core.recipe import Arm
from core.records import AttemptOutcome, Authenticity, ReviewLevel, WorkState
from db.chains import save_chains
from db.engine import Database
from db.ledger import DatabaseLedger
from db.reports import ArmCosts, Costs, costs, reviewed_drafts, status
from db.reviews import save_correction, withdraw_corrections
from db.tables import AttemptRow
from db.work import add_work, claim, mark_chained, quarantine, stop_campaign
from tests.campaigns import (
    NOON,
    ask,
    make_chain,
    mark_drafted,
    start_campaign,
    store_draft,
    store_images,
)
from tests.unit.records import make_correction, make_finding


def test_an_empty_database_has_a_status(database: Database) -> None:
    with database.read() as session:
        found = status(session, "campaign-none")
        money = costs(session, "campaign-none", [], now=NOON)
    assert (found.images.total, found.work, found.chains, found.quarantined) == (0, {}, {}, {})
    assert found.drafts == {Authenticity.REAL: 0, Authenticity.FAKE: 0}
    assert (money.ceiling_usd, money.spending.attempts, money.by_outcome) == (None, 0, {})


def test_work_drafts_chains_and_reasons_are_counted(database: Database) -> None:
    images = store_images(database, 6)
    campaign_id = start_campaign(database, images)
    with database.write() as session:
        claims = claim(
            session, campaign_id, arms=["main"], worker="w", limit=5, seconds=60, now=NOON
        )
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


def make_arms(*names: str, teacher: str = "http://127.0.0.1:9/v1") -> list[Arm]:
    return [Arm(name=name, teacher=teacher, model="m", mode="acoti") for name in names]


def costs_of(database: Database, campaign_id: str, arms: Sequence[Arm], **settings: Any) -> Costs:
    with database.read() as session:
        return costs(session, campaign_id, arms, now=NOON, **settings)


def test_costs_name_the_ceilings_and_the_outcomes(database: Database) -> None:
    images = store_images(database, 2)
    campaign_id = start_campaign(database, images, ceiling_usd=2.5)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    ask(ledger, images[0])
    failed = ledger.open_attempt(
        request_hash="h", image_id=images[1].image_id, arm="main", model="m", reserved_usd=0.1
    )
    ledger.fail_attempt(failed, AttemptOutcome.RATE_LIMITED, "429")
    found = costs_of(database, campaign_id, make_arms("main"), usd_per_day=7.0)
    assert (found.ceiling_usd, found.usd_per_day, found.spending.spent_usd) == (2.5, 7.0, 0.001)
    assert found.by_outcome == {AttemptOutcome.REPLIED: 1, AttemptOutcome.RATE_LIMITED: 1}


def test_costs_are_told_per_draft_and_forecast_to_the_end(database: Database) -> None:
    images = store_images(database, 5)
    campaign_id = start_campaign(database, images)
    with database.write() as session:
        claims = claim(
            session, campaign_id, arms=["main"], worker="w", limit=3, seconds=60, now=NOON
        )
        mark_drafted(session, claims[0])
        mark_drafted(session, claims[1])
    drafted = [image for image in images if image.image_id in {c.image_id for c in claims[:2]}]
    for image in drafted:
        store_draft(database, campaign_id, image)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    ask(ledger, images[0], "a reply that could not be used")
    ledger.open_attempt(
        request_hash="h", image_id=images[1].image_id, arm="main", model="m", reserved_usd=0.1
    )
    found = costs_of(database, campaign_id, make_arms("main"))
    (arm,) = found.arms
    assert arm == ArmCosts(
        arm="main",
        model="m",
        is_simulated=False,
        calls=4,
        drafts=2,
        due=3,
        spent_usd=0.003,
        reserved_usd=0.1,
        usd_per_draft=0.0015,
        forecast_usd=0.1075,
    )
    assert (found.usd_per_draft, found.forecast_usd) == (0.0015, 0.1075)


def test_costs_tell_the_arms_apart(database: Database) -> None:
    images = store_images(database, 2)
    campaign_id = start_campaign(database, images)
    with database.write() as session:
        add_work(session, campaign_id, "other", [images[0].image_id])
    store_draft(database, campaign_id, images[0])
    main, other, idle = costs_of(database, campaign_id, make_arms("main", "other", "idle")).arms
    assert (main.spent_usd, main.drafts, main.due, main.forecast_usd) == (0.001, 1, 2, 0.003)
    assert (other.spent_usd, other.drafts, other.due, other.forecast_usd) == (0.0, 0, 1, None)
    assert (idle.calls, idle.due, idle.forecast_usd) == (0, 0, 0.0)


def test_costs_have_no_forecast_before_the_first_draft_of_an_arm(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 2))
    found = costs_of(database, campaign_id, make_arms("main"))
    assert (found.usd_per_draft, found.forecast_usd) == (None, None)


def test_costs_by_day_are_days_of_utc(database: Database) -> None:
    images = store_images(database, 3)
    campaign_id = start_campaign(database, images)
    for image in images:
        ask(DatabaseLedger(database, campaign_id, teacher="rehearsal"), image)
    started = [NOON.replace(hour=23, minute=59), NOON + timedelta(hours=12), NOON]
    with database.write() as session:
        for image, moment in zip(images, started, strict=True):
            session.execute(
                update(AttemptRow)
                .where(AttemptRow.image_id == image.image_id)
                .values(started_at=moment)
            )
    days = costs_of(database, campaign_id, make_arms("main")).days
    assert [(day.day, day.calls, day.spent_usd, day.reserved_usd) for day in days] == [
        ("2026-03-01", 2, 0.002, 0.0),
        ("2026-03-02", 1, 0.001, 0.0),
    ]


def test_costs_tell_what_all_campaigns_committed_today(database: Database) -> None:
    images = store_images(database, 1)
    for name in ("one", "other"):
        ledger = DatabaseLedger(
            database, start_campaign(database, images, name=name), teacher="rehearsal"
        )
        with database.write() as session:
            ledger.reserve(session, 0.25, NOON)
    found = costs_of(database, "campaign-none", [])
    assert (found.today, found.today_usd) == ("2026-03-01", 0.5)


def test_an_arm_of_the_rehearsal_is_simulated(database: Database) -> None:
    (arm,) = costs_of(database, "campaign-none", make_arms("main", teacher="rehearsal")).arms
    assert arm.is_simulated


def test_reports_can_be_printed_as_json(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    store_draft(database, campaign_id, image)
    with database.read() as session:
        money = costs(session, campaign_id, make_arms("main"), now=NOON)
        printed = json.dumps([asdict(status(session, campaign_id)), asdict(money)])
    assert json.loads(printed)[0]["work"] == {"new": 1}


def test_a_reviewed_draft_has_what_counts_of_its_answers(database: Database) -> None:
    images = store_images(database, 3)
    campaign_id = start_campaign(database, images)
    drafts = [store_draft(database, campaign_id, image, make_finding()) for image in images]
    said = [make_correction(drafts[0], f"expert-{n}", make_finding()) for n in range(3)]
    newer = make_correction(drafts[0], "expert-0", version=2, correction_id="correction-newer")
    ruling = make_correction(
        drafts[1], "judge", correction_id="correction-ruling", is_adjudication=True
    )
    with database.write() as session:
        for correction in (*said, newer, ruling):
            save_correction(session, correction)
        withdraw_corrections(session, [said[2].correction_id])
    with database.read() as session:
        found = list(reviewed_drafts(session, campaign_id, ["main"]))
        assert list(reviewed_drafts(session, campaign_id, ["other"])) == []
        assert list(reviewed_drafts(session, "campaign-none", ["main"])) == []
    assert [review.draft for review in found] == drafts[:2]
    assert [review.image for review in found] == images[:2]
    assert found[0].corrections == (newer, said[1])
    assert found[0].ruling is None
    assert (found[1].corrections, found[1].ruling) == ((), ruling)


def test_an_answer_about_another_campaigns_draft_is_left_out(database: Database) -> None:
    images = store_images(database, 1)
    first, second = (start_campaign(database, images, name=name) for name in ("one", "other"))
    draft = store_draft(database, first, images[0], make_finding())
    store_draft(database, second, images[0], make_finding(), question="again")
    with database.write() as session:
        save_correction(session, make_correction(draft, "expert-1", make_finding()))
    with database.read() as session:
        assert [r.draft for r in reviewed_drafts(session, first, ["main"])] == [draft]
        assert list(reviewed_drafts(session, second, ["main"])) == []
