"""What a takedown does to the rows of an image, on both databases."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.errors import StateError
from core.ids import sha256_text
from core.records import ImageRecord, ReviewLevel, TaskKind, WorkState
from db.chains import count_chains, count_chains_by_level, newest_chains, save_chains
from db.engine import Database
from db.images import (
    ImportedFile,
    ImportOutcome,
    copies_of,
    count_images,
    kin_of,
    labelled_images,
    save_images,
    save_imported_files,
)
from db.ledger import DatabaseLedger, attempts, drafts, spent
from db.provenance import provenance_of, save_provenance
from db.remains import Remains, remains_of
from db.reports import status
from db.results import keep_results
from db.reviews import save_correction
from db.studio import (
    StudioProject,
    StudioTask,
    Subject,
    save_project,
    save_tasks,
    undelivered_drafts,
    withdrawn_tasks,
)
from db.tombstones import (
    LetGo,
    tombstones,
    tombstones_by_hash,
    withdraw,
    withdrawn_among,
    withdrawn_chains,
)
from db.work import add_work, claim, is_due, work_counts
from tests.campaigns import (
    NOON,
    ask,
    make_chain,
    make_reply,
    start_campaign,
    store_draft,
    store_images,
)
from tests.unit.records import make_correction, make_draft, make_image, make_tombstone


def open_call(ledger: DatabaseLedger, image: ImageRecord) -> str:
    return ledger.open_attempt(
        request_hash=sha256_text(image.image_id),
        image_id=image.image_id,
        arm="main",
        model="rehearsal",
        reserved_usd=0.5,
    )


def test_a_tombstone_is_read_back_and_the_first_one_stands(database: Database) -> None:
    images = store_images(database, 2)
    first, second = make_tombstone(images[0]), make_tombstone(images[1], reason="a minor is shown")
    withdraw(database, second)
    withdraw(database, first)
    withdraw(database, make_tombstone(images[0], reason="again", withdrawn_at=datetime.now(UTC)))
    with database.read() as session:
        assert tombstones(session) == [first, second]
        assert withdrawn_among(session, {images[0].image_id, "img-none"}) == {images[0].image_id}
        assert withdrawn_among(session, ()) == set()


def test_an_image_that_only_a_shard_set_knows_may_have_one(database: Database) -> None:
    tombstone = make_tombstone(make_image("elsewhere"))
    assert withdraw(database, tombstone) == LetGo(work=0, replies=0, provenance=0)
    with database.read() as session:
        assert tombstones(session) == [tombstone]


def test_it_is_found_by_either_hash(database: Database) -> None:
    tombstone = make_tombstone(make_image("one", original_sha256="f" * 64))
    withdraw(database, tombstone)
    asked = {tombstone.sha256, "f" * 64, "0" * 64}
    with database.read() as session:
        found = tombstones_by_hash(session, asked)
        assert found == {tombstone.sha256: tombstone, "f" * 64: tombstone}
        assert tombstones_by_hash(session, ()) == {}


def test_all_work_on_it_ends_and_its_replies_and_metadata_go(database: Database) -> None:
    images = store_images(database, 3)
    campaign_id = start_campaign(database, images)
    start_campaign(database, images, arm="other")
    draft = store_draft(database, campaign_id, images[0])
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    kept = ask(ledger, images[1])
    with database.write() as session:
        save_provenance(session, {images[0].image_id: {"camera": "Lens 1", "artist": "A. Person"}})
    assert withdraw(database, make_tombstone(images[0])) == LetGo(work=2, replies=1, provenance=2)
    assert withdraw(database, make_tombstone(images[0])) == LetGo(work=0, replies=0, provenance=0)
    with database.read() as session:
        assert work_counts(session, campaign_id) == {WorkState.NEW: 4, WorkState.WITHDRAWN: 2}
        assert provenance_of(session, images[0].image_id) == {}
        assert [a.attempt_id for a in attempts(session, image_id=images[0].image_id)] == [
            draft.attempt_id
        ]
        assert spent(session, campaign_id).spent_usd == 0.002
    assert ledger.stored_reply(kept.request_hash) == kept
    assert ledger.stored_reply(sha256_text("why" + images[0].image_id)) is None


def test_nothing_reads_it_on(database: Database) -> None:
    images = store_images(database, 2)
    campaign_id = start_campaign(database, images)
    made = [store_draft(database, campaign_id, image) for image in images]
    with database.write() as session:
        save_chains(session, [make_chain(draft) for draft in made])
    withdraw(database, make_tombstone(images[0]))
    arms: dict[str, Any] = {"campaign_id": campaign_id, "arms": ["main"]}
    with database.read() as session:
        found = newest_chains(session, **arms, min_review=ReviewLevel.DRAFT)
        assert [image for _, image in found] == [images[1]]
        assert count_chains(session, **arms) == 1
        assert count_chains_by_level(session, campaign_id) == {ReviewLevel.DRAFT: 1}
        assert list(labelled_images(session)) == [images[1]]
        assert list(drafts(session, campaign_id, "main")) == [made[1]]
        assert count_images(session).total == 1
        assert sum(status(session, campaign_id).drafts.values()) == 1
        assert withdrawn_chains(session, campaign_id, ["main"]) == [images[0].image_id]
        assert withdrawn_chains(session, campaign_id, ["other"]) == []


def test_label_studio_is_shown_it_no_more(database: Database) -> None:
    images = store_images(database, 2)
    campaign_id = start_campaign(database, images)
    made = [store_draft(database, campaign_id, image) for image in images]
    project = StudioProject(
        project_key="project-1",
        server="https://studio.example",
        campaign_id=campaign_id,
        form_id="form-1",
        kind=TaskKind.REVIEW,
        number=1,
        project_id=5,
    )
    task = StudioTask(
        task_key="task-1",
        project_key="project-1",
        subject_id=made[0].draft_id,
        image_id=made[0].image_id,
        task_id=9,
    )
    withdraw(database, make_tombstone(images[0]))
    asked: dict[str, Any] = {"form_id": "form-1", "sources": ["demo"], "limit": None}
    with database.write() as session:
        assert undelivered_drafts(
            session, server=project.server, campaign_id=campaign_id, arms=["main"], **asked
        ) == [Subject(subject_id=made[1].draft_id, image_id=made[1].image_id)]
        save_project(session, project)
        save_tasks(session, [task])
    with database.read() as session:
        assert withdrawn_tasks(session, project.server) == [(project, task)]
        assert withdrawn_tasks(session, "https://elsewhere.example") == []


def test_a_claimed_image_is_lost_to_its_worker(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    with database.write() as session:
        (taken,) = claim(
            session, campaign_id, arms=["main"], worker="w", limit=1, seconds=60, now=NOON
        )
    draft = store_draft(database, campaign_id, image)
    withdraw(database, make_tombstone(image))
    with database.write() as session:
        (lost,) = keep_results(session, [(taken, make_draft(image, attempt_id=draft.attempt_id))])
        assert isinstance(lost, StateError)
        assert work_counts(session, campaign_id) == {WorkState.WITHDRAWN: 1}


def test_no_further_call_is_made_about_it(database: Database) -> None:
    images = store_images(database, 2)
    campaign_id = start_campaign(database, images)
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    withdraw(database, make_tombstone(images[0]))
    with pytest.raises(StateError, match=f"{images[0].image_id} was withdrawn"):
        open_call(ledger, images[0])
    rows = [
        {
            "request_hash": sha256_text(image.image_id),
            "image_id": image.image_id,
            "campaign_id": campaign_id,
            "arm": "main",
            "model": "m",
            "outcome": "unknown",
            "reserved_usd": 0.25,
        }
        for image in images
    ]
    with database.write() as session:
        refused, opened = ledger.open_attempts(session, rows)
        assert isinstance(refused, StateError)
        assert isinstance(opened, str)
        assert spent(session, campaign_id).reserved_usd == 0.25


def test_a_reply_that_was_on_its_way_is_paid_for_and_not_kept(database: Database) -> None:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    ledger = DatabaseLedger(database, campaign_id, teacher="rehearsal")
    attempt_id = open_call(ledger, image)
    withdraw(database, make_tombstone(image))
    request_hash = sha256_text(image.image_id)
    ledger.store_reply(attempt_id, make_reply(request_hash), 0.125)
    assert ledger.stored_reply(request_hash) is None
    with database.read() as session:
        money = spent(session, campaign_id)
    assert (money.spent_usd, money.reserved_usd) == (0.125, 0.0)


def test_work_that_is_added_too_late_is_never_due(database: Database) -> None:
    images = store_images(database, 2)
    withdraw(database, make_tombstone(images[0]))
    campaign_id = start_campaign(database, images[:1])
    with database.write() as session:
        assert add_work(session, campaign_id, "main", [image.image_id for image in images]) == 1
        assert work_counts(session, campaign_id) == {WorkState.NEW: 1, WorkState.WITHDRAWN: 1}
        assert is_due(session, campaign_id, NOON)


def test_work_that_is_added_at_the_same_moment_is_never_due(database: Database) -> None:
    """The takedown holds the image; whoever adds work waits, and sees the tombstone then."""
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [])
    about_to_add, added = threading.Event(), threading.Event()

    def add() -> None:
        with database.write() as session:
            about_to_add.set()
            add_work(session, campaign_id, "main", [image.image_id])
        added.set()

    thread = threading.Thread(target=add)
    thread.start()
    about_to_add.wait(10)
    withdraw(database, make_tombstone(image))
    thread.join(10)
    assert added.is_set()
    with database.read() as session:
        assert work_counts(session, campaign_id) == {WorkState.WITHDRAWN: 1}


def test_copies_and_kin_are_found(database: Database) -> None:
    (image,) = store_images(database, 1, group="group-1")
    copy, namesake = make_image("copy", group="group-1"), make_image("namesake")
    twin = make_image("twin", cluster=image.cluster)
    files = {f"{image.image_id}-96x96-q90.jpg": copy, f"{image.image_id}-x.jpg": namesake}
    with database.write() as session:
        save_images(session, [copy, namesake, twin])
        save_imported_files(
            session,
            [
                ImportedFile(
                    source="demo",
                    name=name,
                    outcome=ImportOutcome.ACCEPTED,
                    reason=None,
                    image_id=made.image_id,
                    size=1,
                    mtime_ns=1,
                )
                for name, made in files.items()
            ],
        )
    with database.read() as session:
        assert copies_of(session, image) == [copy]
        assert {kin.image_id for kin in kin_of(session, image)} == {copy.image_id, twin.image_id}
    withdraw(database, make_tombstone(twin))
    with database.read() as session:
        assert kin_of(session, image) == [copy]


@hypothesis_settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text(max_size=40))
def test_any_reason_can_be_given(database: Database, reason: str) -> None:
    image = make_image(f"about {sha256_text(reason)}")
    withdraw(database, make_tombstone(image, reason=reason))
    with database.read() as session:
        assert image.image_id in withdrawn_among(session, [image.image_id])


def test_what_remains_is_named(database: Database) -> None:
    images = store_images(database, 2)
    campaign_id = start_campaign(database, images)
    made = [store_draft(database, campaign_id, image) for image in images]
    correction = make_correction(made[0], "expert-1")
    file = ImportedFile(
        source="demo",
        name="a.jpg",
        outcome=ImportOutcome.ACCEPTED,
        reason=None,
        image_id=images[0].image_id,
        size=1,
        mtime_ns=1,
    )
    with database.write() as session:
        save_chains(session, [make_chain(draft) for draft in made])
        save_correction(session, correction)
        save_imported_files(session, [file])
    with database.read() as session:
        assert remains_of(session, images[0].image_id) == Remains(
            files=("demo: a.jpg",),
            attempts=1,
            drafts=1,
            corrections=1,
            annotation_versions=0,
            chains=1,
            tasks={},
            batches=(),
        )
        assert remains_of(session, "img-none").attempts == 0
