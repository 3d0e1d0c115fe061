"""Leaks planted in a build: each stops it with a clear line, and nothing is published."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.errors import PermanentError
from core.records import Authenticity, ReviewLevel, Split
from core.split import assign_splits
from db.engine import Database
from imaging.store import ImageStore
from instruct_builder.build import build
from instruct_builder.columns import Positions
from instruct_builder.shards import ROW_SCHEMA
from instruct_builder.staging import Staging
from tests.unit.instruct_builder.specimens import make_pairs, recipe
from tests.unit.instruct_builder.stored import store_pairs

Row = dict[str, Any]


def reworded(row: Row, turn: int, text: str) -> Row:
    messages = [dict(each) for each in row["messages"]]
    messages[turn]["content"] = text
    return {**row, "messages": messages}


def tell(row: Row) -> Row:
    """Questions about fakes end in another way."""
    asked = row["messages"][0]["content"]
    is_told = row["form"].startswith("verdict_") and row["label"] == Authenticity.FAKE
    return reworded(row, 0, f"{asked} Hm.") if is_told else row


def name_generator(row: Row) -> Row:
    return reworded(row, -1, f"{row['messages'][-1]['content']} It looks like Sim-Nearest.")


def turn_answer(row: Row) -> Row:
    said = {"yes": "No, it is not.", "no": "Yes, it is."}.get(str(row["target"]))
    return reworded(row, -1, said) if said else row


def state_verdict_first(row: Row) -> Row:
    if row["form"] != "dialogue_checks_first":
        return row
    return reworded(row, 1, f"The image is {row['label']}. {row['messages'][1]['content']}")


def say_again(rows: list[Row]) -> list[Row]:
    return [*rows, {**rows[0], "instruction_id": "ins-another"}]


def each_row(change: Callable[[Row], Row]) -> Callable[[list[Row]], list[Row]]:
    return lambda rows: [change(row) for row in rows]


@pytest.mark.parametrize(
    ("plant", "check", "names"),
    [
        (each_row(tell), "text_only", r"form verdict_\w+: AUC (?:1\.000|0\.9).*threshold"),
        (each_row(name_generator), "names", r"instruction ins-\w+ names sim-nearest"),
        (each_row(turn_answer), "polarity", r"instruction ins-\w+ of form \w+"),
        (each_row(state_verdict_first), "verdict_before", r"of dialogue_checks_first"),
        (say_again, "unique", "instruction ins-another"),
    ],
    ids=["tell", "name", "polarity", "verdict", "twice"],
)
def test_a_leak_in_the_words_stops_a_build(
    database: Database,
    store: ImageStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    plant: Callable[[list[Row]], list[Row]],
    check: str,
    names: str,
) -> None:
    rows_of = Staging.picked_rows

    def leaking(staging: Staging, places: Positions) -> pa.Table:
        rows = plant(rows_of(staging, places).to_pylist())
        return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)

    store_pairs(database, make_pairs(300 if check == "text_only" else 24))
    monkeypatch.setattr(Staging, "picked_rows", leaking)
    with pytest.raises(PermanentError, match=rf"check '{check}' failed, nothing was.*{names}"):
        build(database, recipe(), store, tmp_path / "set", min_review=ReviewLevel.DRAFT)
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_a_photograph_in_two_splits_stops_a_build(
    database: Database, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parting(images: Any, plan: Any) -> dict[str, Split]:
        splits = assign_splits(images, plan)
        in_train = next(name for name, split in splits.items() if split is Split.TRAIN)
        return {**splits, in_train: Split.TEST}

    store_pairs(database, make_pairs(24))
    monkeypatch.setattr("instruct_builder.selection.assign_splits", parting)
    with pytest.raises(PermanentError, match=r"check 'splits' failed.*group .*in test and train"):
        build(database, recipe(), store, tmp_path / "set", min_review=ReviewLevel.DRAFT)
    assert not (tmp_path / "set" / "manifest.json").exists()
