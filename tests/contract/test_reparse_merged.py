"""What happens to a merged draft when one of the drafts behind it is read otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from core.recipe import RECIPES, load_recipe
from core.records import Draft, ImageRecord, WorkState
from db.engine import Database
from db.reviews import save_correction
from db.work import add_work, claim, mark_chained, open_campaign, quarantine, work_counts
from generation.brief import briefs_for
from generation.reparse import Reparsed, reparse
from imaging.store import ImageStore
from tests.campaigns import NOON, mark_drafted, store_draft, store_images
from tests.databases import (  # noqa: F401
    database,
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)
from tests.unit.records import make_correction, make_finding
from tests.unit.teacher.scripted import draw_jpeg

RECIPE = load_recipe(RECIPES / "fakeclue")
MERGING = RECIPE.arm("consensus")
ARMS = ("first", "second", "third")


class Voting:
    """One image before the merging arm, which has claimed it, in an open database."""

    def __init__(self, opened: Database, folder: Path) -> None:
        self.database = opened
        self.store = ImageStore(folder)
        (self.image,) = store_images(opened, 1, path=self.store.add(draw_jpeg(), ".jpg"))
        with opened.write() as session:
            self.campaign_id = open_campaign(session, RECIPE, ceiling_usd=None)
            add_work(session, self.campaign_id, MERGING.name, [self.image.image_id])
            (self.work,) = claim(
                session,
                self.campaign_id,
                arms=[MERGING.name],
                worker="w",
                limit=1,
                seconds=60,
                now=NOON,
            )

    def draft(self, arm: str, *categories: str, reading: int = 1, **changes: Any) -> Draft:
        """What an arm says, in some reading of its reply."""
        findings = [make_finding(category=name) for name in categories]
        named = f"{arm} {reading}"
        return store_draft(
            self.database,
            self.campaign_id,
            self.image,
            *findings,
            question=named,
            arm=arm,
            **changes,
        )

    def merge(self) -> Draft:
        """Drafts of all three arms, and the merged one, chained."""
        votes = [self.draft(arm, "texture") for arm in ARMS]
        merged = self.draft(
            MERGING.name, "texture", merged=tuple(draft.draft_id for draft in votes)
        )
        with self.database.write() as session:
            mark_drafted(session, self.work)
            mark_chained(session, self.campaign_id, MERGING.name, [self.image.image_id])
        return merged

    def reparse(self) -> Reparsed:
        return reparse(self.database, self.store, RECIPE)

    def states(self) -> dict[WorkState, int]:
        with self.database.read() as session:
            return work_counts(session, self.campaign_id)


@pytest.fixture
def voting(database: Database, tmp_path: Path) -> Voting:  # noqa: F811
    return Voting(database, tmp_path / "images")


def votes_now(voting: Voting, image: ImageRecord) -> tuple[str, ...]:
    brief = briefs_for(voting.database, RECIPE, MERGING, [image])[image.image_id]
    return tuple(draft.draft_id for draft in brief.drafts)


def test_an_image_is_merged_again_once_a_draft_behind_it_is_another(voting: Voting) -> None:
    merged = voting.merge()
    assert voting.reparse().outdated == 0
    assert voting.states() == {WorkState.CHAINED: 1}
    voting.draft("second", "edges", reading=2)
    assert votes_now(voting, voting.image) != merged.merged
    assert voting.reparse().outdated == 1
    assert voting.states() == {WorkState.NEW: 1}
    assert voting.reparse().outdated == 0


def test_what_an_expert_corrected_is_not_merged_again(voting: Voting) -> None:
    merged = voting.merge()
    with voting.database.write() as session:
        save_correction(session, make_correction(merged, "anna"))
    voting.draft("second", "edges", reading=2)
    done = voting.reparse()
    assert (done.outdated, done.corrected) == (0, 1)
    assert voting.states() == {WorkState.CHAINED: 1}


def test_an_image_that_lacked_votes_is_due_once_it_has_them(voting: Voting) -> None:
    voting.draft("first", "texture")
    with voting.database.write() as session:
        quarantine(session, voting.work.work_id, "1 of the arms has drafted it")
    assert voting.reparse().still_aside == 1
    voting.draft("third", "texture")
    done = voting.reparse()
    assert (done.outdated, done.still_aside) == (1, 0)
    assert voting.states() == {WorkState.NEW: 1}
