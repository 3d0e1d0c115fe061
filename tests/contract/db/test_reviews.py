"""Corrections by experts, on both databases."""

from __future__ import annotations

from sqlalchemy import text

from core.records import Correction, Draft, TraceOutcome
from db.engine import Database
from db.reviews import corrections, next_version, save_correction, withdraw_corrections
from tests.campaigns import start_campaign, store_draft, store_images
from tests.unit.records import make_correction, make_finding


def store(database: Database, *saved: Correction) -> None:
    with database.write() as session:
        for correction in saved:
            assert save_correction(session, correction)


def counting(database: Database, draft: Draft) -> list[Correction]:
    with database.read() as session:
        return corrections(session, [draft.image_id]).get(draft.image_id, [])


def draft_in(database: Database) -> Draft:
    (image,) = store_images(database, 1)
    campaign_id = start_campaign(database, [image])
    return store_draft(database, campaign_id, image, make_finding(), make_finding("edges"))


def test_a_correction_is_read_back_with_its_outcomes(database: Database) -> None:
    draft = draft_in(database)
    saved = make_correction(
        draft,
        "expert-1",
        make_finding("texture"),
        make_finding("anatomy"),
        outcomes=(TraceOutcome.EDITED, TraceOutcome.REJECTED, TraceOutcome.ADDED),
        rejects_image=True,
    )
    store(database, saved)
    assert counting(database, draft) == [saved]
    with database.read() as session:
        assert corrections(session, ["img-none"]) == {}
        assert corrections(session, []) == {}


def test_saving_a_correction_again_changes_nothing(database: Database) -> None:
    draft = draft_in(database)
    saved = make_correction(draft, "expert-1", make_finding())
    store(database, saved)
    with database.write() as session:
        assert not save_correction(session, saved)
    assert counting(database, draft) == [saved]


def test_the_newest_version_counts_in_the_place_of_the_first(database: Database) -> None:
    draft = draft_in(database)
    first = make_correction(draft, "expert-1", make_finding())
    other = make_correction(draft, "expert-2", make_finding("edges"))
    second = make_correction(draft, "expert-1", version=2, correction_id="correction-second")
    store(database, first, other, second)
    assert counting(database, draft) == [second, other]


def test_versions_may_arrive_in_any_order(database: Database) -> None:
    draft = draft_in(database)
    first = make_correction(draft, "expert-1", make_finding())
    second = make_correction(draft, "expert-1", version=2, correction_id="correction-second")
    store(database, second, first)
    assert counting(database, draft) == [second]


def test_an_expert_who_went_on_to_a_newer_draft_speaks_about_that(database: Database) -> None:
    old = draft_in(database)
    (image,) = store_images(database, 1)
    new = store_draft(database, old.campaign_id, image, question="again")
    about_old = make_correction(old, "expert-1", version=3, correction_id="correction-old")
    about_new = make_correction(new, "expert-1", version=1, correction_id="correction-new")
    store(database, about_old, about_new)
    assert counting(database, old) == [about_new]


def test_an_adjudication_stands_beside_the_same_persons_correction(database: Database) -> None:
    draft = draft_in(database)
    said = make_correction(draft, "expert-1", make_finding())
    ruled = make_correction(
        draft, "expert-1", correction_id="correction-ruling", is_adjudication=True
    )
    store(database, said, ruled)
    assert counting(database, draft) == [said, ruled]


def test_nothing_is_ever_overwritten(database: Database) -> None:
    draft = draft_in(database)
    versions = [
        make_correction(draft, "expert-1", version=v, correction_id=f"correction-{v}")
        for v in range(1, 4)
    ]
    store(database, *versions)
    with database.read() as session:
        rows = session.execute(text("SELECT correction_id FROM corrections ORDER BY number"))
        assert [name for (name,) in rows] == [item.correction_id for item in versions]


def test_outcomes_can_be_counted_without_reading_corrections(database: Database) -> None:
    draft = draft_in(database)
    store(database, make_correction(draft, "expert-1"), make_correction(draft, "expert-2"))
    with database.read() as session:
        count = text("SELECT count(*) FROM trace_outcomes WHERE outcome = 'accepted'")
        assert session.execute(count).scalar_one() == 4


def test_a_withdrawn_correction_counts_no_longer_and_stays(database: Database) -> None:
    draft = draft_in(database)
    first = make_correction(draft, "expert-1")
    second = make_correction(draft, "expert-1", version=2, correction_id="correction-second")
    store(database, first, second)
    with database.write() as session:
        assert withdraw_corrections(session, [second.correction_id]) == 1
        assert withdraw_corrections(session, [second.correction_id]) == 0
    assert counting(database, draft) == [first]
    with database.write() as session:
        withdraw_corrections(session, [first.correction_id])
        assert next_version(session, draft.draft_id, "expert-1") == 3
    assert counting(database, draft) == []
    with database.read() as session:
        assert session.execute(text("SELECT count(*) FROM corrections")).scalar_one() == 2


def test_the_first_version_of_an_experts_work_is_1(database: Database) -> None:
    draft = draft_in(database)
    store(database, make_correction(draft, "expert-1"))
    with database.read() as session:
        assert next_version(session, draft.draft_id, "expert-2") == 1
