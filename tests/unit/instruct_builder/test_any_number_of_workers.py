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
from instruct_builder.build import build
from instruct_builder.making import Making, make_shard
from instruct_builder.plan import Turns
from instruct_builder.shards import verify
from instruct_builder.staging import Staging
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


def test_a_plan_is_the_same_however_many_threads_make_it() -> None:
    pairs = make_pairs(400)
    one, other = (plan_of(pairs, rows=6_000, threads=threads)[0] for threads in (1, 4))
    for name in ("chain", "unit", "first_turn", "upper", "lower"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    for name in Turns.__dataclass_fields__:
        assert np.array_equal(getattr(one.turns, name), getattr(other.turns, name))


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
