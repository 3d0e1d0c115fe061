"""FakeChain records: one newest per image, whatever is saved when; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sqlalchemy import event, text

from core.records import Authenticity, Draft, ImageRecord, ReasoningChain, ReviewLevel
from db.chains import count_chains, count_chains_by_level, newest_chains, save_chains
from db.engine import Database
from db.ledger import DatabaseLedger, save_drafts
from db.reviews import save_correction
from tests.campaigns import ask, make_chain, start_campaign, store_draft, store_images
from tests.unit.records import make_correction, make_draft, make_finding


def save(database: Database, *chains: ReasoningChain) -> int:
    with database.write() as session:
        return save_chains(session, chains)


def read(
    database: Database, campaign_id: str, min_review: ReviewLevel = ReviewLevel.DRAFT
) -> list[tuple[ReasoningChain, ImageRecord]]:
    with database.read() as session:
        return list(
            newest_chains(session, campaign_id=campaign_id, arms=["main"], min_review=min_review)
        )


@contextmanager
def counted_statements(database: Database) -> Iterator[list[str]]:
    """Every SELECT that is sent while the block runs."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if statement.startswith("SELECT"):
            sent.append(statement)

    engine = database._engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def store_drafts(database: Database, images: list[ImageRecord]) -> list[Draft]:
    """One draft per image, all from one call."""
    campaign_id = start_campaign(database, images)
    reply = ask(DatabaseLedger(database, campaign_id, teacher="rehearsal"), images[0])
    saved = [
        make_draft(
            image,
            make_finding(),
            make_finding("edges"),
            make_finding("colour", Authenticity.REAL),
            campaign_id=campaign_id,
            attempt_id=reply.attempt_id,
        )
        for image in images
    ]
    with database.write() as session:
        for draft in saved:
            save_drafts(session, [draft])
    return saved


def test_chains_are_read_back_with_their_images(database: Database) -> None:
    images = store_images(database, 3)
    drafts = store_drafts(database, images)
    chains = [make_chain(draft) for draft in drafts]
    assert save(database, *reversed(chains)) == 3
    campaign_id = drafts[0].campaign_id
    assert read(database, campaign_id) == list(zip(chains, images, strict=True))


def test_saving_chains_again_changes_nothing(database: Database) -> None:
    drafts = store_drafts(database, store_images(database, 3))
    chains = [make_chain(draft) for draft in drafts]
    save(database, *chains)
    assert save(database, *chains) == 0
    assert save(database) == 0
    assert [chain for chain, _ in read(database, drafts[0].campaign_id)] == chains


def test_two_thousand_chains_take_few_queries(database: Database) -> None:
    images = store_images(database, 2000)
    (draft,) = store_drafts(database, images[:1])
    chains = [
        replace(make_chain(draft), chain_id=f"chain-{image.image_id}", image_id=image.image_id)
        for image in images
    ]
    with counted_statements(database) as sent:
        assert save(database, *chains) == 2000
        assert [chain for chain, _ in read(database, draft.campaign_id)] == chains
    assert len(sent) <= 40


def test_a_corrected_image_gets_a_chain_that_supersedes_the_old_one(database: Database) -> None:
    (draft,) = store_drafts(database, store_images(database, 1))
    old = make_chain(draft)
    said = [make_correction(draft, expert, make_finding()) for expert in ("b", "a")]
    with database.write() as session:
        for correction in said:
            save_correction(session, correction)
    new = make_chain(
        draft,
        review_level=ReviewLevel.AGREED,
        correction_ids=tuple(correction.correction_id for correction in said),
    )
    assert (save(database, old), save(database, new)) == (1, 1)
    assert [chain for chain, _ in read(database, draft.campaign_id)] == [new]
    with database.read() as session:
        rows = session.execute(text("SELECT chain_id, superseded_by FROM chains")).all()
    assert dict(rows) == {old.chain_id: new.chain_id, new.chain_id: None}


def test_a_chain_is_the_newest_again_when_its_correction_is_gone(database: Database) -> None:
    (draft,) = store_drafts(database, store_images(database, 1))
    old, new = make_chain(draft), make_chain(draft, review_level=ReviewLevel.EXPERT)
    save(database, old)
    save(database, new)
    assert save(database, old) == 1
    assert [chain for chain, _ in read(database, draft.campaign_id)] == [old]


def test_the_last_of_several_chains_of_one_image_wins(database: Database) -> None:
    (draft,) = store_drafts(database, store_images(database, 1))
    chains = [make_chain(draft, review_level=level) for level in ReviewLevel]
    assert save(database, *chains) == 4
    assert [chain for chain, _ in read(database, draft.campaign_id)] == chains[-1:]


def test_only_chains_that_were_checked_enough_are_read(database: Database) -> None:
    drafts = store_drafts(database, store_images(database, 4))
    levels = list(ReviewLevel)
    chains = [
        make_chain(draft, review_level=level) for draft, level in zip(drafts, levels, strict=True)
    ]
    save(database, *chains)
    campaign_id = drafts[0].campaign_id
    for level in levels:
        wanted = chains[level.rank :]
        assert [c for c, _ in read(database, campaign_id, level)] == wanted
        with database.read() as session:
            count = count_chains(session, campaign_id=campaign_id, arms=["main"], min_review=level)
        assert count == len(wanted)
    with database.read() as session:
        by_level = count_chains_by_level(session, campaign_id)
    assert list(by_level.items()) == [(level, 1) for level in levels]


def test_sources_arms_and_campaigns_do_not_mix(database: Database) -> None:
    demo, own = store_images(database, 2), store_images(database, 3, source="own")
    drafts = store_drafts(database, [*demo, *own])
    other = store_draft(database, start_campaign(database, demo, name="other"), demo[0])
    save(database, *map(make_chain, drafts), make_chain(other))
    campaign_id = drafts[0].campaign_id

    def found(**chosen: Any) -> set[str]:
        with database.read() as session:
            pairs = list(
                newest_chains(
                    session,
                    campaign_id=campaign_id,
                    arms=["main"],
                    min_review=ReviewLevel.DRAFT,
                    **chosen,
                )
            )
            count = count_chains(session, campaign_id=campaign_id, arms=["main"], **chosen)
        assert count == len(pairs)
        return {image.image_id for _, image in pairs}

    assert found() == {image.image_id for image in [*demo, *own]}
    assert found(sources=["own"]) == {image.image_id for image in own}
    assert found(exclude_sources=["own"]) == {image.image_id for image in demo}
    assert found(sources=[]) == set()
    assert len(read(database, other.campaign_id)) == 1


saves = st.lists(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(ReviewLevel)), min_size=1, max_size=5),
    min_size=1,
    max_size=6,
)


@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(saves=saves)
def test_exactly_one_chain_per_image_is_newest_and_it_is_the_last_one_saved(
    database: Database, saves: list[list[tuple[int, ReviewLevel]]]
) -> None:
    drafts = store_drafts(database, store_images(database, 3))
    last: dict[str, ReasoningChain] = {}
    for batch in saves:
        chains = [make_chain(drafts[number], review_level=level) for number, level in batch]
        save(database, *chains)
        last |= {chain.image_id: chain for chain in chains}
    found = {chain.image_id: chain for chain, _ in read(database, drafts[0].campaign_id)}
    assert found.items() >= last.items()
    with database.read() as session:
        newest = "SELECT image_id FROM chains WHERE superseded_by IS NULL"
        ids = [image_id for (image_id,) in session.execute(text(newest))]
    assert len(ids) == len(set(ids)) == len(found)
