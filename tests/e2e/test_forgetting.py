"""What a teacher holds of a withdrawn image is deleted there, and what it says is not kept."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.recipe import DEFAULT_RECIPE, BatchSettings
from core.records import ImageRecord, WorkState
from db.images import labelled_images
from db.ledger import replies_about
from db.remains import remains_of
from db.tombstones import withdraw
from db.work import work_counts
from generation.batch_desk import open_batch_desk
from generation.forgetting import Forgotten, forget
from teacher.faults import Faults
from teacher.rehearsal import Rehearsal, load_rehearsal
from tests.e2e.batches import Bench, open_bench
from tests.e2e.project import clean_environment
from tests.unit.records import make_tombstone

IMAGES = 8


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    return load_rehearsal(DEFAULT_RECIPE)


@pytest.fixture(autouse=True)
def no_settings_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)


def image_of_first_batch(bench: Bench) -> ImageRecord:
    """The rehearsal teacher works on one batch at a time, the oldest first."""
    first = bench.batches()[0].batch_id
    with bench.database.read() as session:
        return next(
            image
            for image in labelled_images(session)
            if [batch.batch_id for batch in remains_of(session, image.image_id).batches] == [first]
        )


def run_forget(bench: Bench) -> Forgotten:
    campaign_id = bench.prepare().campaign_id
    with open_batch_desk(
        bench.settings, bench.database, bench.recipe, campaign_id, tell=bench.told.append
    ) as desk:
        return forget(desk)


def assert_nothing_is_kept_of(bench: Bench, image: ImageRecord, files: Path) -> None:
    campaign_id = bench.prepare().campaign_id
    with bench.database.read() as session:
        assert replies_about(session, campaign_id, "main", [image.image_id]) == {}
        assert remains_of(session, image.image_id).batches == ()
        assert work_counts(session, campaign_id)[WorkState.WITHDRAWN] == 1
    assert image.image_id not in {draft.image_id for draft in bench.drafts()}
    assert [path.name for path in files.iterdir()] == []


def test_a_batch_that_has_ended_is_read_for_the_others_and_deleted(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    with open_bench(tmp_path, rehearsal, images=IMAGES, faults=Faults(batch_seconds=0)) as bench:
        bench.run(wait=False)
        image = image_of_first_batch(bench)
        withdraw(bench.database, make_tombstone(image))
        while run_forget(bench).under_way:
            pass
        bench.run()
        assert len(bench.drafts()) == IMAGES - 1
        assert_nothing_is_kept_of(bench, image, tmp_path / "batches" / "files")
        assert run_forget(bench) == Forgotten(deleted=0, under_way=0)


def test_a_batch_under_way_is_asked_to_end_early_and_others_go_on(
    rehearsal: Rehearsal, tmp_path: Path
) -> None:
    slow = Faults(batch_seconds=3600)
    with open_bench(tmp_path, rehearsal, images=IMAGES, faults=slow) as bench:
        small = bench.with_drafting(batch=BatchSettings(lines=4))
        small.run(wait=False)
        image = image_of_first_batch(small)
        withdraw(bench.database, make_tombstone(image))
        for _ in range(100):
            if not run_forget(small).under_way:
                break
        untouched = [batch for batch in small.batches() if batch.deleted_at is None]
        assert len(untouched) == 1, "the batch that does not ask about it goes on"
        names = {untouched[0].input_file_id}
        left = {path.stem for path in (tmp_path / "batches" / "files").iterdir()}
        assert left == names
