"""Batches as state: opened, held, moved on, closed, on each kind of database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from core.errors import StateError
from core.ids import sha256_text
from core.records import AttemptOutcome, Batch, BatchState, Claim, ImageRecord, WorkState
from db.batches import (
    BatchLine,
    NewLine,
    WaitingBatch,
    add_lines,
    all_batches,
    awaited_requests,
    batch_workers,
    close_batch,
    drop_batch,
    end_lines,
    failures_in_passing,
    images_in_batches,
    leave_batches,
    lines_by_attempt,
    lines_by_number,
    move_batch,
    new_batch,
    open_lines,
    take_batch,
    take_over_claims,
    unfinished_batches,
)
from db.engine import Database
from db.ledger import DatabaseLedger, End, attempts, end_attempts, spent
from db.reports import status
from db.work import claim, claiming_workers, free_expired, undrafted_image_ids, work_counts
from tests.campaigns import NOON, make_reply, start_campaign, store_images

WORKER = "host/1/1"
OTHER = "host/2/2"
YEAR = timedelta(days=365)


class Desk:
    """A campaign whose images are claimed by WORKER, and an empty batch in its hands."""

    def __init__(
        self, database: Database, count: int = 3, *, ceiling_usd: float | None = None
    ) -> None:
        self.database = database
        self.images: Sequence[ImageRecord] = store_images(database, count)
        self.campaign_id = start_campaign(database, self.images, ceiling_usd=ceiling_usd)
        self.ledger = DatabaseLedger(database, self.campaign_id, teacher="rehearsal")
        with database.write() as session:
            self.claims = claim(
                session,
                self.campaign_id,
                arms=["main"],
                worker=WORKER,
                limit=count,
                seconds=300,
                now=NOON,
            )
        self.batch = self.new_batch()

    def new_batch(self) -> Batch:
        with self.database.write() as session:
            return new_batch(session, self.campaign_id, "main", worker=WORKER, seconds=60, now=NOON)

    def add(self, claims: Sequence[Claim] | None = None, usd: float = 0.5) -> list[str]:
        """Add lines for these claims (None: for all); returns the ids of their attempts."""
        lines = [
            NewLine(
                request_hash=sha256_text(item.work_id),
                work_id=item.work_id,
                image_id=item.image_id,
                model="sturgeon-2",
                reserved_usd=usd,
            )
            for item in (self.claims if claims is None else claims)
        ]
        with self.database.write() as session:
            results = add_lines(session, self.batch, lines, ledger=self.ledger)
        return [result for result in results if isinstance(result, str)]

    def send(self) -> None:
        """As far as the upload."""
        with self.database.write() as session:
            take_over_claims(session, self.batch, worker=WORKER)
            self.batch = move_batch(
                session,
                self.batch,
                worker=WORKER,
                state=BatchState.UPLOADED,
                num_lines=len(self.claims),
                num_bytes=3_000_000_000,
                input_sha256="a" * 64,
                input_file_id="file-1",
            )

    def outcomes(self) -> list[AttemptOutcome]:
        with self.database.read() as session:
            return [row.outcome for row in attempts(session, campaign_id=self.campaign_id)]


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def test_an_opened_batch_has_an_attempt_for_each_line_with_its_reservation(desk: Desk) -> None:
    ids = desk.add()
    with desk.database.read() as session:
        rows = list(attempts(session, campaign_id=desk.campaign_id))
        money = spent(session, desk.campaign_id)
        lines = lines_by_attempt(session, desk.batch.batch_id, ids)
    assert sorted(row.attempt_id for row in rows) == sorted(ids) == sorted(lines)
    assert {row.outcome for row in rows} == {AttemptOutcome.UNKNOWN}
    assert money.reserved_usd == 1.5
    assert [lines[name].number for name in ids] == [1, 2, 3]
    assert [lines[name].work_id for name in ids] == [item.work_id for item in desk.claims]
    assert [lines[name].image_id for name in ids] == [item.image_id for item in desk.claims]


def test_lines_are_numbered_on_when_more_are_added(desk: Desk) -> None:
    first, second = desk.add(desk.claims[:1]), desk.add(desk.claims[1:])
    with desk.database.read() as session:
        found = lines_by_number(session, desk.batch.batch_id, [3, 1, 9])
    assert {line.number: line.attempt_id for line in found} == {1: first[0], 3: second[1]}


def test_the_ceiling_keeps_single_lines_out(database: Database) -> None:
    desk = Desk(database, ceiling_usd=1.0)
    assert len(desk.add()) == 2
    assert desk.add(desk.claims[2:]) == []
    assert desk.add(desk.claims[2:], usd=0.0), "the ceiling may be met exactly"


def test_a_batch_comes_back_as_it_was_written(desk: Desk) -> None:
    desk.add()
    desk.send()
    with desk.database.read() as session:
        (stored,) = all_batches(session, desk.campaign_id)
    assert stored == desk.batch
    assert stored.num_bytes == 3_000_000_000
    assert stored.created_at == NOON


def test_an_empty_batch_can_be_dropped(desk: Desk) -> None:
    with desk.database.write() as session:
        drop_batch(session, desk.batch)
    with desk.database.read() as session:
        assert all_batches(session, desk.campaign_id) == []


def test_two_batches_of_one_moment_differ(desk: Desk) -> None:
    assert desk.new_batch().batch_id != desk.batch.batch_id


def test_the_claims_of_a_sent_batch_have_no_end(desk: Desk) -> None:
    desk.add()
    with desk.database.read() as session:
        assert images_in_batches(session, desk.campaign_id) == 0
    desk.send()
    with desk.database.write() as session:
        assert claiming_workers(session, desk.campaign_id) == [desk.batch.batch_id]
        assert images_in_batches(session, desk.campaign_id) == 3
        assert free_expired(session, desk.campaign_id, NOON + YEAR) == 0
        assert undrafted_image_ids(session, desk.campaign_id, "main") == set()
        assert work_counts(session, desk.campaign_id) == {WorkState.DRAFTING: 3}


def test_claims_of_a_batch_that_was_not_sent_expire_as_any(desk: Desk) -> None:
    desk.add()
    with desk.database.write() as session:
        assert free_expired(session, desk.campaign_id, NOON + YEAR) == 3


def test_a_batch_whose_claim_was_lost_is_not_sent(desk: Desk) -> None:
    desk.add()
    with desk.database.write() as session:
        free_expired(session, desk.campaign_id, NOON + YEAR)
    with pytest.raises(StateError, match="3 of its claims were lost"):
        desk.send()
    with desk.database.read() as session:
        assert all_batches(session, desk.campaign_id)[0].state is BatchState.PREPARING


def test_one_process_at_a_time_moves_a_batch_on(desk: Desk) -> None:
    name = desk.batch.batch_id
    later = NOON + timedelta(seconds=60)
    with desk.database.write() as session:
        assert take_batch(session, name, worker=OTHER, seconds=60, now=NOON) is None
        assert take_batch(session, name, worker=WORKER, seconds=60, now=NOON) == desk.batch
        assert take_batch(session, name, worker=OTHER, seconds=60, now=later) == desk.batch
        assert batch_workers(session, desk.campaign_id) == [OTHER]
    with pytest.raises(StateError), desk.database.write() as session:
        move_batch(session, desk.batch, worker=WORKER, state=BatchState.UPLOADED)


def test_a_batch_that_was_left_is_free(desk: Desk) -> None:
    with desk.database.write() as session:
        assert leave_batches(session, OTHER) == 0
        assert leave_batches(session, WORKER) == 1
        assert batch_workers(session, desk.campaign_id) == []
        taken = take_batch(session, desk.batch.batch_id, worker=OTHER, seconds=60, now=NOON)
    assert taken == desk.batch


def test_a_batch_moves_on_from_the_state_that_it_was_seen_in(desk: Desk) -> None:
    seen = desk.batch
    desk.add()
    desk.send()
    with pytest.raises(StateError), desk.database.write() as session:
        move_batch(session, seen, worker=WORKER, state=BatchState.UPLOADED)


def test_lines_without_an_answer_are_open_until_they_are_ended(desk: Desk) -> None:
    first, second, third = desk.add()
    with desk.database.write() as session:
        end_attempts(session, [End.with_reply(second, make_reply("b" * 64), 0.1)])
        waiting = open_lines(session, desk.batch.batch_id, limit=10)
        assert [line.attempt_id for line in waiting] == [first, third]
        assert len(open_lines(session, desk.batch.batch_id, limit=1)) == 1
        end_lines(session, waiting, AttemptOutcome.NOT_RUN, "too late")
        assert open_lines(session, desk.batch.batch_id, limit=10) == []
    with desk.database.read() as session:
        money = spent(session, desk.campaign_id)
    assert (money.spent_usd, money.reserved_usd) == (0.1, 0.0)


def test_a_line_whose_end_is_unknown_keeps_its_reservation_and_is_not_open(desk: Desk) -> None:
    desk.add()
    with desk.database.write() as session:
        lines = open_lines(session, desk.batch.batch_id, limit=10)
        end_lines(session, lines, AttemptOutcome.UNKNOWN, "no answer")
        assert open_lines(session, desk.batch.batch_id, limit=10) == []
        assert spent(session, desk.campaign_id).reserved_usd == 1.5


def test_lines_of_another_batch_are_not_found(desk: Desk) -> None:
    ids = desk.add()
    other = desk.new_batch()
    with desk.database.read() as session:
        assert lines_by_attempt(session, other.batch_id, ids) == {}
        assert lines_by_attempt(session, desk.batch.batch_id, ["attempt-none"]) == {}


def test_requests_are_awaited_until_their_batch_was_closed(desk: Desk) -> None:
    first, _, third = (sha256_text(item.work_id) for item in desk.claims)
    desk.add(desk.claims[:2])

    def awaited(arm: str) -> set[str]:
        with desk.database.read() as session:
            return awaited_requests(session, desk.campaign_id, arm, [first, third])

    assert awaited("main") == {first}
    assert awaited("another") == set()
    with desk.database.write() as session:
        close_batch(session, desk.batch, worker=WORKER, now=NOON)
    assert awaited("main") == set()


def test_failures_that_may_pass_are_counted_by_request(desk: Desk) -> None:
    for outcome in (
        AttemptOutcome.SERVER_ERROR,
        AttemptOutcome.RATE_LIMITED,
        AttemptOutcome.NOT_RUN,
        AttemptOutcome.REJECTED,
    ):
        (name,) = desk.add(desk.claims[:1])
        with desk.database.write() as session:
            line: BatchLine = lines_by_attempt(session, desk.batch.batch_id, [name])[name]
            end_lines(session, [line], outcome, "failed")
    with desk.database.read() as session:
        assert failures_in_passing(session, desk.batch, line) == 2


def test_the_status_names_the_batches_that_images_wait_for(desk: Desk) -> None:
    desk.add()
    desk.send()
    with desk.database.write() as session:
        waiting = WaitingBatch(state=BatchState.UPLOADED, arm="main", images=3, remote_id=None)
        assert status(session, desk.campaign_id).batches == {desk.batch.batch_id: waiting}
        close_batch(session, desk.batch, worker=WORKER, now=NOON)
        assert status(session, desk.campaign_id).batches == {}


def test_a_closed_batch_gives_its_claims_back(desk: Desk) -> None:
    desk.add()
    desk.send()
    with desk.database.write() as session:
        closed = close_batch(session, desk.batch, worker=WORKER, now=NOON + YEAR)
        assert work_counts(session, desk.campaign_id) == {WorkState.NEW: 3}
        assert unfinished_batches(session, desk.campaign_id) == [closed], "its files are there"
        cleaned = move_batch(session, closed, worker=WORKER, deleted_at=NOON + YEAR)
        assert unfinished_batches(session, desk.campaign_id) == []
    assert closed == replace(desk.batch, ingested_at=NOON + YEAR)
    assert cleaned == replace(closed, deleted_at=NOON + YEAR)
