"""Campaigns and the state of the work, on both databases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from core.errors import StateError
from core.records import Claim, WorkState
from db.engine import Database
from db.work import (
    Running,
    add_work,
    campaign_ceiling,
    claim,
    claiming_workers,
    count_quarantined,
    employ,
    extend_claims,
    free_expired,
    is_due,
    mark_chained,
    open_campaign,
    quarantine,
    release,
    release_waiting,
    resume_campaign,
    running_campaigns,
    stop_campaign,
    stopped_because,
    take_turn,
    undrafted_image_ids,
    work_counts,
)
from tests.campaigns import NOON, make_recipe, mark_drafted, start_campaign, store_images

MINUTE = timedelta(minutes=1)


def take(
    database: Database, campaign_id: str, limit: int, *, worker: str = "worker", seconds: int = 60
) -> list[Claim]:
    with database.write() as session:
        return claim(
            session,
            campaign_id,
            arms=["main"],
            worker=worker,
            limit=limit,
            seconds=seconds,
            now=NOON,
        )


def counts(database: Database, campaign_id: str) -> dict[WorkState, int]:
    with database.read() as session:
        return work_counts(session, campaign_id)


def test_a_campaign_is_opened_once_and_keeps_its_ceiling(database: Database) -> None:
    with database.write() as session:
        first = open_campaign(session, make_recipe(), ceiling_usd=5)
        again = open_campaign(session, make_recipe(), ceiling_usd=None)
        other = open_campaign(session, make_recipe("other"), ceiling_usd=None)
        assert first == again != other
        assert campaign_ceiling(session, first) == 5
        assert campaign_ceiling(session, other) is None
        open_campaign(session, make_recipe(), ceiling_usd=7.25)
        assert campaign_ceiling(session, first) == 7.25


def test_a_stopped_campaign_says_why_until_it_is_resumed(database: Database) -> None:
    campaign_id = start_campaign(database, [])
    with database.write() as session:
        stop_campaign(session, campaign_id, "401")
        stop_campaign(session, campaign_id, "later")
        assert stopped_because(session, campaign_id) == "401"
        resume_campaign(session, campaign_id)
        assert stopped_because(session, campaign_id) is None


def test_work_is_added_once_per_image_and_arm(database: Database) -> None:
    images = store_images(database, 3)
    ids = [image.image_id for image in images]
    campaign_id = start_campaign(database, images[:2])
    with database.write() as session:
        assert add_work(session, campaign_id, "main", ids) == 1
        assert add_work(session, campaign_id, "other", ids) == 3
        assert work_counts(session, campaign_id) == {WorkState.NEW: 6}


def test_a_claim_takes_the_lowest_work_ids_first(database: Database) -> None:
    images = store_images(database, 10)
    campaign_id = start_campaign(database, images)
    claims = take(database, campaign_id, 4) + take(database, campaign_id, 100)
    assert [item.work_id for item in claims] == sorted(item.work_id for item in claims)
    assert {item.image_id for item in claims} == {image.image_id for image in images}
    assert take(database, campaign_id, 4) == []
    assert {(item.tries, item.worker, item.arm) for item in claims} == {(1, "worker", "main")}


def test_a_claim_stays_within_its_campaign(database: Database) -> None:
    images = store_images(database, 2)
    mine, other = start_campaign(database, images), start_campaign(database, images, name="other")
    assert len(take(database, mine, 10)) == 2
    assert counts(database, other) == {WorkState.NEW: 2}


def test_more_than_one_batch_is_claimed_and_given_back(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 1001))
    assert len(take(database, campaign_id, 1001)) == 1001
    with database.write() as session:
        assert release(session, "worker") == 1001
        assert work_counts(session, campaign_id) == {WorkState.NEW: 1001}


def test_an_expired_claim_returns_to_the_state_it_came_from(database: Database) -> None:
    images = store_images(database, 3)
    campaign_id = start_campaign(database, images)
    with database.write() as session:
        session.execute(
            text("UPDATE work SET state = 'guided' WHERE image_id = :i"),
            {"i": images[0].image_id},
        )
    take(database, campaign_id, 3, seconds=60)
    with database.write() as session:
        assert free_expired(session, campaign_id, NOON + MINUTE - timedelta(seconds=1)) == 0
        assert not is_due(session, campaign_id, NOON)
        assert is_due(session, campaign_id, NOON + MINUTE)
        assert free_expired(session, campaign_id, NOON + MINUTE) == 3
        assert work_counts(session, campaign_id) == {WorkState.GUIDED: 1, WorkState.NEW: 2}
    assert [item.tries for item in take(database, campaign_id, 3)] == [2, 2, 2]


def test_an_extended_claim_lives_longer(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 2))
    first, second = take(database, campaign_id, 2)
    ids = [first.work_id]
    with database.write() as session:
        assert extend_claims(session, "somebody else", ids, seconds=600, now=NOON) == 0
        assert extend_claims(session, "worker", ids, seconds=600, now=NOON) == 1
        assert free_expired(session, campaign_id, NOON + MINUTE) == 1
    assert [item.work_id for item in take(database, campaign_id, 2)] == [second.work_id]


def test_only_the_holder_gives_a_claim_back(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 2))
    first, second = take(database, campaign_id, 2)
    with database.write() as session:
        mark_drafted(session, first)
        assert release(session, "somebody else", [second.work_id]) == 0
        assert claiming_workers(session, campaign_id) == ["worker"]
        assert release(session, "worker", [first.work_id, second.work_id]) == 1
        assert claiming_workers(session, campaign_id) == []
        assert work_counts(session, campaign_id) == {WorkState.DRAFTED: 1, WorkState.NEW: 1}


def test_what_was_not_tried_counts_as_no_try(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 2))
    first, second = take(database, campaign_id, 2)
    with database.write() as session:
        assert release(session, "worker", [first.work_id], untried=True) == 1
        assert release(session, "worker", [second.work_id]) == 1
    tries = {item.work_id: item.tries for item in take(database, campaign_id, 2)}
    assert tries == {first.work_id: 1, second.work_id: 2}


def test_work_put_off_is_not_claimed_before_its_time(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 1))
    (item,) = take(database, campaign_id, 1)
    with database.write() as session:
        release(session, "worker", [item.work_id], due_at=NOON + MINUTE)
        assert not is_due(session, campaign_id, NOON)
        assert is_due(session, campaign_id, NOON + MINUTE)
    assert take(database, campaign_id, 1) == []
    with database.write() as session:
        (again,) = claim(
            session,
            campaign_id,
            arms=["main"],
            worker="worker",
            limit=1,
            seconds=60,
            now=NOON + MINUTE,
        )
        release(session, "worker", [again.work_id])
        assert is_due(session, campaign_id, NOON), "the delay held once"


def test_claims_keep_to_their_arms_in_order(database: Database) -> None:
    images = store_images(database, 3)
    campaign_id = start_campaign(database, images)
    for arm in ("second", "third"):
        with database.write() as session:
            add_work(session, campaign_id, arm, [image.image_id for image in images])
    with database.write() as session:
        claimed = claim(
            session,
            campaign_id,
            arms=["third", "main"],
            worker="worker",
            limit=5,
            seconds=60,
            now=NOON,
        )
        assert [item.arm for item in claimed] == ["third"] * 3 + ["main"] * 2
        assert is_due(session, campaign_id, NOON, arms=["second"])
        assert not is_due(session, campaign_id, NOON, arms=["third"])


def test_waiting_work_is_due_once_every_other_arm_has_ended(database: Database) -> None:
    # given two images in two arms, and an arm that waits for both
    images = [image.image_id for image in store_images(database, 2)]
    with database.write() as session:
        campaign_id = open_campaign(session, make_recipe(), ceiling_usd=None)
        for arm in ("first", "second"):
            add_work(session, campaign_id, arm, images)
        add_work(session, campaign_id, "merging", images, state=WorkState.WAITING)

    def claimed(arm: str) -> list[Claim]:
        with database.write() as session:
            release_waiting(session, campaign_id, "merging", waits_for=["first", "second"])
            return claim(
                session, campaign_id, arms=[arm], worker="w", limit=9, seconds=60, now=NOON
            )

    # when one image is drafted in the first arm and set aside in the second
    assert claimed("merging") == []
    first = next(item for item in claimed("first") if item.image_id == images[0])
    second = next(item for item in claimed("second") if item.image_id == images[0])
    with database.write() as session:
        mark_drafted(session, first)
        assert (
            claim(session, campaign_id, arms=["merging"], worker="w", limit=9, seconds=60, now=NOON)
            == []
        )
        quarantine(session, second.work_id, "the teacher refused")

    # then it alone is due in the arm that waited, and the other still counts as undrafted
    assert [item.image_id for item in claimed("merging")] == [images[0]]
    with database.read() as session:
        assert undrafted_image_ids(session, campaign_id, "merging") == set(images)


def test_one_janitor_at_a_time_has_its_turn(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 1))
    with database.write() as session:
        assert take_turn(session, campaign_id, now=NOON, every=MINUTE)
        assert not take_turn(session, campaign_id, now=NOON, every=MINUTE)
        assert take_turn(session, campaign_id, now=NOON + MINUTE, every=MINUTE)


def test_a_campaign_runs_from_its_first_command_until_it_is_stopped_or_done(
    database: Database,
) -> None:
    campaign_id = start_campaign(database, store_images(database, 1))
    running = Running(campaign_id, "/recipes/one", "http://127.0.0.1:1/v1")
    with database.write() as session:
        assert running_campaigns(session) == []
        employ(session, campaign_id, recipe_folder=running[1], rehearsal_url=running[2])
        assert running_campaigns(session) == [running]
        stop_campaign(session, campaign_id, "no money")
        assert running_campaigns(session) == []
        resume_campaign(session, campaign_id)
        assert running_campaigns(session) == [running]
    (item,) = take(database, campaign_id, 1)
    with database.write() as session:
        assert running_campaigns(session) == [running], "a claim may still be given back"
        mark_drafted(session, item)
        assert running_campaigns(session) == []


def test_a_lost_claim_cannot_be_marked_as_drafted(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 1))
    (lost,) = take(database, campaign_id, 1)
    with database.write() as session:
        free_expired(session, campaign_id, NOON + MINUTE)
    (held,) = take(database, campaign_id, 1)  # the same worker, once more
    with database.write() as session, pytest.raises(StateError, match=lost.image_id):
        mark_drafted(session, lost)
    with database.write() as session:
        mark_drafted(session, held)
        with pytest.raises(StateError):
            mark_drafted(session, held)


def test_a_quarantined_image_keeps_its_reason(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 2))
    first, second = take(database, campaign_id, 2)
    with database.write() as session:
        quarantine(session, first.work_id, "refused <b>twice</b>")
        mark_drafted(session, second)
        with pytest.raises(StateError):
            quarantine(session, second.work_id, "too late")
        assert count_quarantined(session, campaign_id) == {"refused <b>twice</b>": 1}
        assert undrafted_image_ids(session, campaign_id, "main") == set()
        assert free_expired(session, campaign_id, NOON + MINUTE) == 0


def test_only_drafted_images_become_chained(database: Database) -> None:
    images = store_images(database, 3)
    campaign_id = start_campaign(database, images)
    (held,) = take(database, campaign_id, 1)
    ids = [image.image_id for image in images]
    with database.write() as session:
        mark_drafted(session, held)
        assert mark_chained(session, campaign_id, "main", ids) == 1
        assert mark_chained(session, campaign_id, "main", ids) == 0
        assert work_counts(session, campaign_id) == {WorkState.CHAINED: 1, WorkState.NEW: 2}
        assert undrafted_image_ids(session, campaign_id, "main") == {*ids} - {held.image_id}


def test_claims_use_the_index_over_due_work(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 2))
    with database.write() as session:
        explain = "EXPLAIN QUERY PLAN" if database.dialect == "sqlite" else "EXPLAIN"
        if database.dialect == "postgresql":
            session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = session.execute(
            text(
                f"{explain} SELECT work_id FROM work WHERE campaign_id = :c "
                "AND arm = 'main' AND state IN ('new', 'guided') ORDER BY work_id LIMIT 2"
            ),
            {"c": campaign_id},
        ).all()
    assert "work_due" in str(plan)
    assert "SORT" not in str(plan).upper()


class Claiming(RuleBasedStateMachine):
    """Two workers take, keep and lose claims; a plain dictionary says what must be true."""

    database: Database
    examples = 0

    @initialize(guided=st.sets(st.integers(0, 5)))
    def open(self, guided: set[int]) -> None:
        type(self).examples += 1
        images = store_images(self.database, 6)
        name = f"example {self.examples}"
        self.campaign_id = start_campaign(self.database, images, name=name)
        self.workers = {letter: f"{name} {letter}" for letter in "ab"}
        self.now = NOON
        self.state = {image.image_id: WorkState.NEW for image in images}
        self.held: dict[str, Claim] = {}
        with self.database.write() as session:
            for number in guided:
                image_id = images[number].image_id
                self.state[image_id] = WorkState.GUIDED
                session.execute(
                    text(
                        "UPDATE work SET state = 'guided' WHERE image_id = :i AND campaign_id = :c"
                    ),
                    {"i": image_id, "c": self.campaign_id},
                )

    @rule(worker=st.sampled_from("ab"), limit=st.integers(1, 4))
    def claims(self, worker: str, limit: int) -> None:
        name = self.workers[worker]
        with self.database.write() as session:
            got = claim(
                session,
                self.campaign_id,
                arms=["main"],
                worker=name,
                limit=limit,
                seconds=60,
                now=self.now,
            )
        due = [i for i, state in self.state.items() if i not in self.held and state in DUE]
        assert len(got) == min(limit, len(due))
        assert not {item.image_id for item in got} & self.held.keys()
        self.held |= {item.image_id: item for item in got}

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def drafts(self, data: st.DataObject) -> None:
        item = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        with self.database.write() as session:
            mark_drafted(session, item)
        self.state[item.image_id] = WorkState.DRAFTED

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def sets_aside(self, data: st.DataObject) -> None:
        item = self.held.pop(data.draw(st.sampled_from(sorted(self.held))))
        with self.database.write() as session:
            quarantine(session, item.work_id, "hard")
        self.state[item.image_id] = WorkState.QUARANTINED

    @rule(worker=st.sampled_from("ab"))
    def gives_back(self, worker: str) -> None:
        name = self.workers[worker]
        mine = [i for i, item in self.held.items() if item.worker == name]
        with self.database.write() as session:
            assert release(session, name) == len(mine)
        for image_id in mine:
            del self.held[image_id]

    @rule()
    def time_passes(self) -> None:
        self.now += 2 * MINUTE
        with self.database.write() as session:
            assert free_expired(session, self.campaign_id, self.now) == len(self.held)
        self.held.clear()

    @invariant()
    def the_database_agrees(self) -> None:
        if not hasattr(self, "state"):
            return
        with self.database.read() as session:
            rows = session.execute(
                text("SELECT image_id, state, worker FROM work WHERE campaign_id = :c"),
                {"c": self.campaign_id},
            ).all()
        for image_id, state, worker in rows:
            holder = self.held.get(image_id)
            assert state == (WorkState.DRAFTING if holder else self.state[image_id])
            assert worker == (holder.worker if holder else None)


DUE = (WorkState.NEW, WorkState.GUIDED)


def test_claims_obey_their_model_whatever_happens(database: Database) -> None:
    machine = type("ClaimingHere", (Claiming,), {"database": database})
    run_state_machine_as_test(
        machine,
        settings=hypothesis_settings(
            max_examples=15,
            stateful_step_count=15,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
