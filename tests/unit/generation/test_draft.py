"""A shift of drafting: rolling, bounded, and nothing lost whatever the teacher does."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from core.errors import PermanentError
from core.records import AttemptOutcome, WorkState
from core.settings import load_settings
from db.engine import Database, open_database
from db.ledger import attempts, attempts_by_outcome, drafts
from db.request_texts import request_texts
from db.work import count_quarantined, is_due
from generation.draft import Drafted, draft_due
from tests.databases import sqlite_template  # noqa: F401
from tests.unit.generation.desks import Scene, scene, usable
from tests.unit.teacher.scripted import Answer, completion, failure

PATIENCE_S = 60


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:  # noqa: F811
    copied = shutil.copy(sqlite_template, tmp_path / "test.db")
    opened = open_database(load_settings(database_url=f"sqlite:///{copied}"))
    yield opened
    opened.dispose()


def outcomes(place: Scene) -> dict[AttemptOutcome, int]:
    with place.desk.database.read() as session:
        return attempts_by_outcome(session, place.desk.campaign_id)


def column(place: Scene, name: str) -> list[object]:
    with place.desk.database.read() as session:
        return list(session.scalars(text(f"SELECT {name} FROM work ORDER BY work_id")))


def test_everything_due_is_drafted_once(database: Database, tmp_path: Path) -> None:
    with scene(
        database, tmp_path, lambda _: usable(), images=30, calls_in_flight=4, claim_size=5
    ) as place:
        assert draft_due(place.desk, place.arms, seconds=60) == Drafted(drafted=30)
        assert draft_due(place.desk, place.arms, seconds=60) == Drafted()
        assert place.server.heard == 30
        assert place.counts() == {WorkState.DRAFTED: 30}
        with database.read() as session:
            found = list(drafts(session, place.desk.campaign_id, "main"))
            paid = {a.attempt_id for a in attempts(session, campaign_id=place.desk.campaign_id)}
    assert len(found) == 30
    assert {draft.attempt_id for draft in found} == paid


def test_what_the_teacher_was_told_is_kept_once_for_all_who_were_told_the_same(
    database: Database, tmp_path: Path
) -> None:
    with scene(database, tmp_path, lambda _: usable(), images=5) as place:
        draft_due(place.desk, place.arms, seconds=60)
        with database.read() as session:
            told = {
                draft.request_text_id for draft in drafts(session, place.desk.campaign_id, "main")
            }
            ((text_id, kept),) = request_texts(session, {str(each) for each in told}).items()
    assert told == {text_id}
    assert "fake" in kept.question
    assert kept.instructions and kept.reply_schema.startswith("{")


def test_many_calls_are_in_flight_at_once(database: Database, tmp_path: Path) -> None:
    together = threading.Barrier(6)

    def answer(_: int) -> Answer:
        together.wait(PATIENCE_S)  # broken, and so an error, unless six calls meet here
        return usable()

    with scene(database, tmp_path, answer, images=12, calls_in_flight=6, claim_size=2) as place:
        assert draft_due(place.desk, place.arms, seconds=60).drafted == 12


def test_no_more_calls_are_without_an_end_than_may_be_in_flight(
    database: Database, tmp_path: Path
) -> None:
    """What a killed worker leaves unknown is bounded, although more threads prepare requests."""
    without_end: list[int] = []

    def answer(_: int) -> Answer:
        time.sleep(0.02)  # for others to come, if they may
        without_end.append(outcomes(place)[AttemptOutcome.UNKNOWN])
        return usable()

    with scene(database, tmp_path, answer, images=24, calls_in_flight=3, claim_size=24) as place:
        assert draft_due(place.desk, place.arms, seconds=60).drafted == 24
    assert max(without_end) == 3


def test_a_slow_call_holds_up_no_other(database: Database, tmp_path: Path) -> None:
    all_others = threading.Event()

    def answer(number: int) -> Answer:
        if number == 0:
            all_others.wait(PATIENCE_S)
        elif number == 39:
            all_others.set()
        return usable()

    with scene(database, tmp_path, answer, images=40, calls_in_flight=2, claim_size=3) as place:
        assert draft_due(place.desk, place.arms, seconds=60).drafted == 40
        assert all_others.is_set()


def test_a_shift_that_is_to_end_finishes_its_calls_and_gives_the_rest_back(
    database: Database, tmp_path: Path
) -> None:
    leaving = threading.Event()

    def answer(_: int) -> Answer:
        leaving.set()
        return usable()

    with scene(database, tmp_path, answer, images=200, calls_in_flight=2, claim_size=50) as place:
        done = draft_due(place.desk, place.arms, seconds=60, is_leaving=leaving.is_set)
        assert 0 < done.drafted < 200
        assert outcomes(place) == {AttemptOutcome.REPLIED: done.drafted}
        assert place.counts() == {
            WorkState.DRAFTED: done.drafted,
            WorkState.NEW: 200 - done.drafted,
        }
        assert set(column(place, "worker")) == {None}
        assert set(column(place, "tries")) == {0, 1}, "what was not sent was not tried"


def test_a_stopped_desk_sends_nothing_more(database: Database, tmp_path: Path) -> None:
    with scene(
        database, tmp_path, lambda _: usable(), images=50, calls_in_flight=2, claim_size=50
    ) as place:
        place.desk.stop.set()
        done = draft_due(place.desk, place.arms, seconds=60)
        place.desk.stop.clear()
        assert done.drafted + done.given_back == 50
        assert draft_due(place.desk, place.arms, seconds=60).drafted == 50 - done.drafted


def test_a_refused_key_ends_the_shift_and_loses_nothing(database: Database, tmp_path: Path) -> None:
    with scene(database, tmp_path, lambda _: failure(401), images=40, calls_in_flight=3) as place:
        with pytest.raises(PermanentError, match="OPENAI_API_KEY"):
            draft_due(place.desk, place.arms, seconds=60)
        assert place.counts() == {WorkState.NEW: 40}
        assert set(column(place, "tries")) == {0}
        assert place.server.heard <= 40


def test_a_long_pause_puts_the_work_off_and_counts_as_no_try(
    database: Database, tmp_path: Path
) -> None:
    with scene(
        database,
        tmp_path,
        lambda _: failure(429, retry_after="3600"),
        images=40,
        calls_in_flight=3,
        claim_size=10,
    ) as place:
        done = draft_due(place.desk, place.arms, seconds=60)
        assert done.drafted == done.quarantined == 0
        assert place.server.heard <= 3, "only what was in flight when the teacher asked for it"
        assert place.counts() == {WorkState.NEW: 40}
        assert set(column(place, "tries")) == {0}
        assert any(column(place, "due_at"))
        assert draft_due(place.desk, place.arms, seconds=60) == Drafted()
        assert place.server.heard <= 3, "the pause holds for the next shift too"


def test_what_was_put_off_is_not_due_before_its_time(database: Database, tmp_path: Path) -> None:
    with scene(
        database,
        tmp_path,
        lambda _: failure(429, retry_after="3600"),
        images=1,
        calls_in_flight=1,
    ) as place:
        draft_due(place.desk, place.arms, seconds=60)
        now = datetime.now(UTC)
        with database.read() as session:
            assert not is_due(session, place.desk.campaign_id, now, arms=["main"])
            later = now + timedelta(seconds=3601)
            assert is_due(session, place.desk.campaign_id, later, arms=["main"])


def test_an_image_that_always_fails_is_set_aside_and_the_others_go_on(
    database: Database, tmp_path: Path
) -> None:
    with scene(
        database,
        tmp_path,
        lambda number: failure(500) if number == 0 else usable(),
        images=20,
        calls_in_flight=1,
        max_tries=1,
    ) as place:
        done = draft_due(place.desk, place.arms, seconds=60)
        assert done == Drafted(drafted=19, quarantined=1)
        with database.read() as session:
            (reason,) = count_quarantined(session, place.desk.campaign_id)
        assert "failed 1 times" in reason
        assert "500" in reason


def test_an_unusable_reply_is_set_aside_with_the_reason(database: Database, tmp_path: Path) -> None:
    with scene(
        database,
        tmp_path,
        lambda _: completion("<b>no JSON</b>"),
        images=3,
        calls_in_flight=2,
        max_reasks=1,
    ) as place:
        assert draft_due(place.desk, place.arms, seconds=60) == Drafted(quarantined=3)
        assert outcomes(place) == {AttemptOutcome.REPLIED: 6}


@pytest.mark.parametrize("images", [1, 40])
def test_a_teacher_that_only_fails_ends_the_shift(
    database: Database, tmp_path: Path, images: int
) -> None:
    with scene(
        database, tmp_path, lambda _: usable(), images=images, calls_in_flight=4, max_tries=2
    ) as place:
        place.server.shutdown()
        place.server.server_close()
        with pytest.raises(PermanentError, match="no teacher answers"):
            draft_due(place.desk, place.arms, seconds=60)
        assert place.counts() == {WorkState.NEW: images}


def test_a_teacher_that_answers_500_to_all_ends_the_shift(
    database: Database, tmp_path: Path
) -> None:
    with scene(
        database, tmp_path, lambda _: failure(500), images=60, calls_in_flight=8, max_tries=2
    ) as place:
        with pytest.raises(PermanentError, match="none of 8 images could be drafted"):
            draft_due(place.desk, place.arms, seconds=60)
        assert place.counts() == {WorkState.NEW: 60}


def test_an_image_whose_workers_die_is_set_aside_unsent(database: Database, tmp_path: Path) -> None:
    with scene(
        database, tmp_path, lambda _: usable(), images=3, calls_in_flight=2, max_claims=5
    ) as place:
        with database.write() as session:
            session.execute(
                text("UPDATE work SET tries = 5 WHERE work_id = (SELECT max(work_id) FROM work)")
            )
        assert draft_due(place.desk, place.arms, seconds=60) == Drafted(drafted=2, quarantined=1)
        assert place.server.heard == 2
        with database.read() as session:
            (reason,) = count_quarantined(session, place.desk.campaign_id)
        assert "claimed 5 times" in reason


def test_a_claim_taken_away_in_between_yields_no_second_draft(
    database: Database, tmp_path: Path
) -> None:
    with scene(database, tmp_path, lambda _: usable(), images=1, calls_in_flight=1) as place:

        def answer(_: int) -> Answer:
            with database.write() as session:
                session.execute(text("UPDATE work SET worker = 'another'"))
            return usable()

        place.server.answering = answer
        assert draft_due(place.desk, place.arms, seconds=60) == Drafted()
        assert outcomes(place) == {AttemptOutcome.REPLIED: 1}, "what was paid for is kept"
        assert column(place, "worker") == ["another"]
