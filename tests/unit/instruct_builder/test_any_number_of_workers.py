"""A set has the same bytes whoever makes its shards, and however many of them there are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from core.recipe import Recipe
from core.records import ReviewLevel
from db.engine import Database
from imaging.store import ImageStore
from instruct_builder import tasks
from instruct_builder.build import build
from instruct_builder.making import Making, make_shard
from instruct_builder.shards import verify
from instruct_builder.staging import FOLDER as STAGING
from instruct_builder.staging import Range, Staging
from instruct_builder.words import Words
from tests.unit.instruct_builder.specimens import (
    images_of,
    make_pairs,
    plan_of,
    recipe,
    templates,
)
from tests.unit.instruct_builder.stored import store_pairs


@pytest.fixture
def small_shards() -> Recipe:
    settings = recipe().settings
    small = settings.build.model_copy(update={"rows_per_shard": 150})
    return recipe().model_copy(update={"settings": settings.model_copy(update={"build": small})})


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_one_process_two_three_and_others_elsewhere_give_the_same_bytes(
    database: Database, store: ImageStore, small_shards: Recipe, tmp_path: Path
) -> None:
    store_pairs(database, make_pairs(60))

    def backwards(staging: Staging, tell: Callable[[], None]) -> None:
        """As workers on a cluster do: in any order, and some twice."""
        for number in [*reversed(staging.missing()), 0]:
            make_shard(str(staging.path), number)
            tell()

    found = {}
    for name, making in {
        "alone": Making(),
        "two": Making(workers=2),
        "three": Making(workers=3),
        "elsewhere": Making(hand_out=backwards),
    }.items():
        out = tmp_path / name
        summary = build(
            database, small_shards, store, out, min_review=ReviewLevel.DRAFT, rows=900,
            making=making,
        )  # fmt: skip
        assert set(summary.spent) == {"reading", "planning", "making", "checking", "publishing"}
        assert verify(out) == []
        found[name] = files_of(out)
    assert len([name for name in found["alone"] if name.startswith("rows-")]) > 4
    assert found["two"] == found["alone"]
    assert found["three"] == found["alone"]
    assert found["elsewhere"] == found["alone"]


def test_a_worker_of_a_cluster_tells_two_builds_of_one_folder_apart(
    database: Database, store: ImageStore, small_shards: Recipe, tmp_path: Path
) -> None:
    store_pairs(database, make_pairs(30))

    def elsewhere(staging: Staging, tell: Callable[[], None]) -> None:
        for number in staging.missing():
            make_shard(str(staging.path), number)

    def built(name: str, rows: int, making: Making) -> dict[str, bytes]:
        out, least = tmp_path / name, ReviewLevel.DRAFT
        build(database, small_shards, store, out, min_review=least, rows=rows, making=making)
        return files_of(out)

    first = built("again", 400, Making(hand_out=elsewhere))
    second = built("again", 300, Making(hand_out=elsewhere))
    assert first != second == built("alone", 300, Making())


def test_messages_of_a_worker_that_vanished_are_sent_again(
    database: Database,
    store: ImageStore,
    small_shards: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first of them are lost with it, as Redis loses them for an hour."""
    store_pairs(database, make_pairs(30))
    sent: list[int] = []

    def send(named: tuple[str, int], queue: str) -> None:
        sent.append(named[1])
        if sent.count(named[1]) > 1 or named[1] % 2:
            make_shard(*named)

    monkeypatch.setattr(tasks.make_shard_task, "apply_async", send)
    monkeypatch.setattr(tasks, "AGAIN_SECONDS", 0.3)
    out, alone = tmp_path / "cluster", tmp_path / "alone"
    for folder, making in ((out, Making(hand_out=tasks.hand_out)), (alone, Making())):
        least = ReviewLevel.DRAFT
        build(database, small_shards, store, folder, min_review=least, rows=400, making=making)
    assert files_of(out) == files_of(alone)
    assert sorted(sent) == sorted([*set(sent), *(number for number in set(sent) if not number % 2)])


def test_a_message_of_a_build_that_has_ended_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "begun anew").mkdir()
    for name in ("removed", "begun anew"):
        tasks.make_shard_task(str(tmp_path / name), 3)
        assert f"shard 3 of a build that has ended: {tmp_path / name}" in caplog.text
        assert not [*tmp_path.rglob("*.parquet")]


def test_a_build_that_ended_between_two_plans_goes_on(
    database: Database,
    store: ImageStore,
    small_shards: Recipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store_pairs(database, make_pairs(30))
    planned: list[int] = []
    plan_part = Staging.plan_part

    def ends(staging: Staging, number: int) -> list[Range]:
        if len(planned) == 1:
            raise KeyboardInterrupt
        planned.append(number)
        return plan_part(staging, number)

    def built(name: str) -> dict[str, bytes]:
        build(database, small_shards, store, tmp_path / name, min_review=ReviewLevel.DRAFT)
        return files_of(tmp_path / name)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Staging, "plan_part", ends)
        built("ended")
    (kept,) = (tmp_path / "ended" / STAGING).glob("plan-*")
    assert kept.name == f"plan-{planned[0]}"
    assert Staging(kept.parent).unplanned() == [n for n in (0, 1, 2) if n != planned[0]]
    assert built("ended") == built("whole")


def test_rows_are_worded_alike_in_any_company() -> None:
    pairs = make_pairs(40)
    plan, chains = plan_of(pairs)
    images, words = images_of(pairs), Words(templates(), recipe().taxonomy)
    together = words.table(plan, chains, images)
    rows = np.arange(3, len(plan), 7)
    assert words.table(plan.pick(rows), chains, images).equals(together.take(rows))
    for row in rows[::5].tolist():
        alone = words.table(plan.take(row, row + 1), chains, images)
        assert alone.equals(together.slice(row, 1))
