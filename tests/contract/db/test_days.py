"""The ceiling of a day holds over all campaigns and processes; on both databases."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from core.errors import PermanentError
from core.records import AttemptOutcome
from core.settings import Settings
from db.columns import NANO
from db.days import committed_on_day, day_of
from db.engine import Database, open_database
from db.ledger import DatabaseLedger
from tests.campaigns import NOON, make_reply, start_campaign, store_images


def set_aside(ledger: DatabaseLedger, database: Database, usd: float, at: datetime = NOON) -> None:
    with database.write() as session:
        ledger.reserve(session, usd, at)


def committed(database: Database, day: str) -> float:
    with database.read() as session:
        return committed_on_day(session, day)


def sums(database: Database, table: str) -> int:
    """What a table says is committed, in billionths of a dollar."""
    with database.read() as session:
        question = text(f"SELECT coalesce(sum(committed_usd), 0) FROM {table}")
        return int(session.execute(question).scalar_one())


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (NOON, "2026-03-01"),
        (NOON.replace(hour=23, tzinfo=timezone(timedelta(hours=-5))), "2026-03-02"),
    ],
)
def test_a_day_is_one_of_utc(moment: datetime, day: str) -> None:
    assert day_of(moment) == day


def test_all_campaigns_together_stay_under_the_ceiling_of_a_day(database: Database) -> None:
    images = store_images(database, 1)
    one, other = (
        DatabaseLedger(
            database,
            start_campaign(database, images, name=name),
            teacher="rehearsal",
            usd_per_day=1.0,
        )
        for name in ("one", "other")
    )
    set_aside(one, database, 0.7)
    set_aside(other, database, 0.3)
    with pytest.raises(PermanentError) as caught:
        set_aside(one, database, 0.0001)
    for told in ("$1.00 a day", "2026-03-01", "$1.0000", "$0.0001", "midnight UTC", "USD_PER_DAY"):
        assert told in str(caught.value)


def test_the_next_day_is_free(database: Database) -> None:
    ledger = DatabaseLedger(
        database,
        start_campaign(database, store_images(database, 1)),
        teacher="rehearsal",
        usd_per_day=1.0,
    )
    set_aside(ledger, database, 1.0)
    set_aside(ledger, database, 1.0, NOON + timedelta(hours=12))
    assert committed(database, "2026-03-01") == committed(database, "2026-03-02") == 1.0


def test_a_refusal_by_the_day_commits_nothing(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 1), ceiling_usd=5.0)
    with database.write() as session, pytest.raises(PermanentError, match="a day"):
        DatabaseLedger(database, campaign_id, teacher="rehearsal", usd_per_day=1.0).reserve(
            session, 1.5, NOON
        )
    assert sums(database, "campaigns") == sums(database, "days") == 0


def test_a_refusal_by_the_campaign_commits_nothing(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 1), ceiling_usd=1.0)
    with database.write() as session, pytest.raises(PermanentError, match="--budget"):
        DatabaseLedger(database, campaign_id, teacher="rehearsal", usd_per_day=5.0).reserve(
            session, 1.5, NOON
        )
    assert sums(database, "campaigns") == sums(database, "days") == 0


def test_what_was_spent_without_a_ceiling_counts_when_one_is_set(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 1))
    set_aside(DatabaseLedger(database, campaign_id, teacher="rehearsal"), database, 2.0)
    with pytest.raises(PermanentError, match="a day"):
        set_aside(
            DatabaseLedger(database, campaign_id, teacher="rehearsal", usd_per_day=2.5),
            database,
            1.0,
        )


def test_what_costs_nothing_goes_on_above_the_ceiling(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 1))
    set_aside(DatabaseLedger(database, campaign_id, teacher="rehearsal"), database, 2.0)
    set_aside(
        DatabaseLedger(database, campaign_id, teacher="rehearsal", usd_per_day=1.0), database, 0.0
    )
    assert committed(database, "2026-03-01") == 2.0


@hypothesis_settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    calls=st.lists(
        st.tuples(
            st.floats(0, 0.5),
            st.sampled_from([None, *AttemptOutcome]),
            st.floats(0, 1),
        ),
        max_size=10,
    )
)
def test_days_and_campaigns_commit_the_same(
    database: Database, calls: Sequence[tuple[float, AttemptOutcome | None, float]]
) -> None:
    (image,) = store_images(database, 1)
    ledger = DatabaseLedger(
        database, start_campaign(database, [image]), teacher="rehearsal", usd_per_day=5.0
    )
    for usd, outcome, share in calls:
        try:
            attempt_id = ledger.open_attempt(
                request_hash="h", image_id=image.image_id, arm="main", model="m", reserved_usd=usd
            )
        except PermanentError:
            continue
        if outcome is AttemptOutcome.REPLIED:
            ledger.store_reply(attempt_id, make_reply("h"), usd * share)
        elif outcome is not None:
            ledger.fail_attempt(attempt_id, outcome, "why")
    assert sums(database, "days") == sums(database, "campaigns")


def set_aside_elsewhere(settings: Settings, campaign_id: str) -> int:
    """How many of a hundred cents a worker process gets on one day."""
    database = open_database(settings)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal", usd_per_day=1.0)
    granted = 0
    for _ in range(100):
        try:
            set_aside(ledger, database, 0.01)
        except PermanentError:
            break
        granted += 1
    database.dispose()
    return granted


def test_two_processes_never_pass_the_ceiling_together(
    settings: Settings, database: Database
) -> None:
    images = store_images(database, 1)
    campaigns = [start_campaign(database, images, name=name) for name in ("one", "other")]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        jobs: list[Any] = [pool.submit(set_aside_elsewhere, settings, name) for name in campaigns]
        assert sum(job.result() for job in jobs) == 100
    assert sums(database, "days") == NANO
