"""Every paid call is one row, and no ceiling is passed; on both databases."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import text

from core.errors import PermanentError, StateError
from core.records import Attempt, AttemptOutcome, ImageRecord, Usage
from core.settings import Settings
from db import schema
from db.columns import NANO
from db.engine import Database, connect, database_url, open_database
from db.ledger import DatabaseLedger, Spending, attempts, spent
from db.work import open_campaign
from tests.campaigns import ask, make_recipe, make_reply, start_campaign, store_images

FAILURES = sorted(set(AttemptOutcome) - {AttemptOutcome.REPLIED})


def open_one(ledger: DatabaseLedger, image: ImageRecord, usd: float, name: str = "hash") -> str:
    return ledger.open_attempt(
        request_hash=name, image_id=image.image_id, arm="main", model="m", reserved_usd=usd
    )


def spending(database: Database, campaign_id: str) -> Spending:
    with database.read() as session:
        return spent(session, campaign_id)


def all_attempts(database: Database, campaign_id: str) -> list[Attempt]:
    with database.read() as session:
        return list(attempts(session, campaign_id=campaign_id))


def committed_nano(database: Database, campaign_id: str) -> int:
    with database.read() as session:
        question = text("SELECT committed_usd FROM campaigns WHERE campaign_id = :c")
        return int(session.execute(question, {"c": campaign_id}).scalar_one())


def test_a_reply_is_found_by_its_request(database: Database) -> None:
    images = store_images(database, 1)
    ledger = DatabaseLedger(database, start_campaign(database, images), teacher="rehearsal")
    stored = ask(ledger, images[0])
    assert stored.attempt_id
    assert ledger.stored_reply(stored.request_hash) == stored
    assert ledger.stored_reply("never asked") is None


def test_a_reply_paid_for_in_one_campaign_serves_another(database: Database) -> None:
    images = store_images(database, 1)
    stored = ask(
        DatabaseLedger(database, start_campaign(database, images), teacher="rehearsal"), images[0]
    )
    other = DatabaseLedger(
        database, start_campaign(database, images, name="other"), teacher="rehearsal"
    )
    assert other.stored_reply(stored.request_hash) == stored


def test_servers_share_no_replies_however_their_addresses_are_spelt(database: Database) -> None:
    images = store_images(database, 1)
    campaign_id = start_campaign(database, images)
    here, again, there = (
        DatabaseLedger(database, campaign_id, teacher=address)
        for address in ("http://a:8000/v1", "http://user:secret@A:8000/v1/", "http://b:8000/v1")
    )
    stored = ask(here, images[0])
    assert again.stored_reply(stored.request_hash) == stored
    assert there.stored_reply(stored.request_hash) is None
    other = ask(there, images[0])
    assert here.stored_reply(stored.request_hash) == stored
    assert there.stored_reply(stored.request_hash) == other
    with database.read() as session:
        servers = session.scalars(text("SELECT DISTINCT server FROM attempts ORDER BY server"))
        assert list(servers) == ["http://a:8000/v1", "http://b:8000/v1"]


def test_replies_from_before_servers_were_written_down_are_found(bare_settings: Settings) -> None:
    engine, place = connect(database_url(bare_settings), create=True)
    schema.upgrade(engine, place)
    database = open_database(bare_settings)
    images = store_images(database, 1)
    campaign_id = start_campaign(database, images)
    stored = ask(DatabaseLedger(database, campaign_id, teacher="rehearsal"), images[0])
    database.dispose()
    schema.downgrade(engine, place, "0008")
    schema.upgrade(engine, place)
    engine.dispose()
    database = open_database(bare_settings)
    for address in ("rehearsal", "http://a:8000/v1"):
        ledger = DatabaseLedger(database, campaign_id, teacher=address)
        assert ledger.stored_reply(stored.request_hash) == stored
    database.dispose()


def test_the_newest_reply_to_a_request_counts(database: Database) -> None:
    images = store_images(database, 1)
    ledger = DatabaseLedger(database, start_campaign(database, images), teacher="rehearsal")
    ids = [open_one(ledger, images[0], 0) for _ in range(12)]
    assert len(set(ids)) == 12
    for number, attempt_id in enumerate(ids):
        ledger.store_reply(attempt_id, make_reply("hash", content=str(number)), 0)
    found = ledger.stored_reply("hash")
    assert found is not None
    assert (found.content, found.attempt_id) == ("11", ids[-1])


def test_an_attempt_is_written_down_before_the_call(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    attempt_id = open_one(DatabaseLedger(database, campaign_id, teacher="rehearsal"), image, 0.5)
    assert all_attempts(database, campaign_id) == [
        Attempt(
            attempt_id=attempt_id,
            request_hash="hash",
            image_id=image.image_id,
            campaign_id=campaign_id,
            arm="main",
            model="m",
            outcome=AttemptOutcome.UNKNOWN,
            reserved_usd=0.5,
            cost_usd=None,
            usage=None,
            reason=None,
        )
    ]
    assert spending(database, campaign_id).reserved_usd == 0.5
    assert spending(database, campaign_id).unknown == 1


def test_a_reply_turns_the_reservation_into_its_cost(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    ask(DatabaseLedger(database, campaign_id, teacher="rehearsal"), image)
    (attempt,) = all_attempts(database, campaign_id)
    assert (attempt.outcome, attempt.cost_usd) == (AttemptOutcome.REPLIED, 0.001)
    assert attempt.usage == Usage(prompt_tokens=100, image_tokens=60, completion_tokens=20)
    assert spending(database, campaign_id) == Spending(
        spent_usd=0.001,
        reserved_usd=0.0,
        attempts=1,
        replies=1,
        unknown=0,
        prompt_tokens=100,
        cached_tokens=0,
        image_tokens=60,
        completion_tokens=20,
        reasoning_tokens=0,
    )


@pytest.mark.parametrize("outcome", FAILURES)
def test_a_failed_call_frees_its_money_unless_it_may_have_been_billed(
    database: Database, outcome: AttemptOutcome
) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    ledger.fail_attempt(open_one(ledger, image, 0.5), outcome, "no answer")
    (attempt,) = all_attempts(database, campaign_id)
    may_be_billed = outcome in (AttemptOutcome.UNKNOWN, AttemptOutcome.TIMED_OUT)
    assert (attempt.outcome, attempt.reason) == (outcome, "no answer")
    assert attempt.cost_usd == (None if may_be_billed else 0.0)
    assert spending(database, campaign_id).reserved_usd == (0.5 if may_be_billed else 0.0)
    assert committed_nano(database, campaign_id) == (NANO // 2 if may_be_billed else 0)


def test_an_attempt_ends_once(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    attempt_id = ask(ledger, image).attempt_id
    with pytest.raises(StateError, match=attempt_id):
        ledger.store_reply(attempt_id, make_reply("hash"), 1)
    with pytest.raises(StateError, match=attempt_id):
        ledger.fail_attempt(attempt_id, AttemptOutcome.TIMED_OUT, "late")
    with pytest.raises(StateError, match="attempt-none"):
        ledger.fail_attempt("attempt-none", AttemptOutcome.TIMED_OUT, "late")
    assert spending(database, campaign_id).spent_usd == 0.001


def test_a_call_that_could_pass_the_ceiling_is_refused(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image], ceiling_usd=1.0)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    first = open_one(ledger, image, 0.6)
    with pytest.raises(PermanentError, match=r"ceiling of \$1\.00 .*--budget"):
        open_one(ledger, image, 0.5)
    ledger.store_reply(first, make_reply("hash"), 0.1)
    open_one(ledger, image, 0.9)
    assert [item.outcome for item in all_attempts(database, campaign_id)] == [
        AttemptOutcome.REPLIED,
        AttemptOutcome.UNKNOWN,
    ]


def test_ten_dimes_make_a_dollar(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image], ceiling_usd=1.0)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    for _ in range(10):
        open_one(ledger, image, 0.1)
    with pytest.raises(PermanentError):
        open_one(ledger, image, 1e-9)


def test_a_ceiling_of_this_run_counts_instead_of_the_campaigns(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    open_one(DatabaseLedger(database, campaign_id, teacher="rehearsal"), image, 5)
    with pytest.raises(PermanentError, match=r"\$5\.50"):
        open_one(
            DatabaseLedger(database, campaign_id, teacher="rehearsal", ceiling_usd=5.5), image, 1
        )


def test_a_raised_ceiling_is_seen_at_once(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image], ceiling_usd=1)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    with pytest.raises(PermanentError):
        open_one(ledger, image, 2)
    with database.write() as session:
        open_campaign(session, make_recipe(), ceiling_usd=3)
    assert open_one(ledger, image, 2)


def test_a_campaign_that_does_not_exist_has_no_money(database: Database) -> None:
    (image,) = store_images(database, 1)
    with pytest.raises(PermanentError, match="there is no campaign campaign-none"):
        open_one(DatabaseLedger(database, "campaign-none", teacher="rehearsal"), image, 0)


def test_attempts_are_chosen_by_what_is_given(database: Database) -> None:
    first, second = store_images(database, 2)
    mine = start_campaign(database, [first, second])
    other = start_campaign(database, [first], name="other")
    ask(DatabaseLedger(database, mine, teacher="rehearsal"), first)
    ask(DatabaseLedger(database, mine, teacher="rehearsal"), second)
    reply = ask(DatabaseLedger(database, other, teacher="rehearsal"), first, "what else")
    with database.read() as session:
        of_first = list(attempts(session, image_id=first.image_id))
        assert [item.campaign_id for item in of_first] == [mine, other]
        assert len(list(attempts(session))) == 3
        assert len(list(attempts(session, campaign_id=mine, image_id=first.image_id))) == 1
        (found,) = attempts(session, request_hash=reply.request_hash)
        assert found.attempt_id == reply.attempt_id


@pytest.mark.parametrize("odd", ["nul \0 here", "lone \ud800 surrogate", "é 漢字 🙂", ""])
def test_odd_text_in_a_reply_is_stored_as_it_is_returned(database: Database, odd: str) -> None:
    (image,) = store_images(database, 1)
    ledger = DatabaseLedger(database, start_campaign(database, [image]), teacher="rehearsal")
    reply = make_reply("hash", raw=odd, content=odd, refusal=odd)
    stored = ledger.store_reply(open_one(ledger, image, 0), reply, 0)
    assert ledger.stored_reply("hash") == stored
    if odd.isprintable():
        assert stored == replace(reply, attempt_id=stored.attempt_id)


ends = st.one_of(
    st.none(),
    st.sampled_from(FAILURES),
    st.floats(0, 3, allow_nan=False),
)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(calls=st.lists(st.tuples(st.floats(0, 2, allow_nan=False), ends), max_size=8))
def test_what_is_committed_is_the_sum_over_the_attempts(
    database: Database, calls: list[tuple[float, AttemptOutcome | float | None]]
) -> None:
    (image,) = store_images(database, 1)
    name = uuid4().hex
    campaign_id = start_campaign(database, [image], name=name, ceiling_usd=4)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    for reserved, end in calls:
        try:
            attempt_id = open_one(ledger, image, reserved, name)
        except PermanentError:
            continue
        if isinstance(end, AttemptOutcome):
            ledger.fail_attempt(attempt_id, end, "why")
        elif end is not None:
            ledger.store_reply(attempt_id, make_reply(name), end)
    sums = spending(database, campaign_id)
    total = round(sums.spent_usd * NANO) + round(sums.reserved_usd * NANO)
    assert committed_nano(database, campaign_id) == total


def test_threads_never_pass_the_ceiling_together(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image], ceiling_usd=1.0)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")

    def spend(number: int) -> bool:
        try:
            attempt_id = open_one(ledger, image, 0.05, f"hash {number}")
        except PermanentError:
            return False
        ledger.store_reply(attempt_id, make_reply(f"hash {number}"), 0.05)
        return True

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(spend, range(60))) == 20
    assert spending(database, campaign_id).spent_usd == 1.0


def spend_in_a_process(settings: Settings, campaign_id: str, image: ImageRecord) -> int:
    """Open attempts at one and the same request until the ceiling is reached."""
    database = open_database(settings)
    ledger, opened = DatabaseLedger(database, campaign_id, teacher="rehearsal"), 0
    try:
        while True:
            open_one(ledger, image, 0.01)
            opened += 1
    except PermanentError:
        return opened
    finally:
        database.dispose()


def test_processes_never_pass_the_ceiling_together(settings: Settings, database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image], ceiling_usd=1.0)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(3, mp_context=spawn) as pool:
        jobs = [pool.submit(spend_in_a_process, settings, campaign_id, image) for _ in range(3)]
        assert sum(job.result() for job in jobs) == 100
    assert len({item.attempt_id for item in all_attempts(database, campaign_id)}) == 100
