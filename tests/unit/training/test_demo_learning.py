from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.demo_learning import SHUFFLED, Trained, as_json, render, shuffle_labels, tabulate
from core.records import Split
from instruct_builder.shards import ShardSet, verify
from tests.unit.training.toys import ToySet, make_config
from training.inputs import read_inputs


def test_shuffling_deals_out_the_pixels_of_the_training_images_anew(
    toy: ToySet, tmp_path: Path
) -> None:
    shuffle_labels(toy.shards, tmp_path / "shuffled")
    assert verify(tmp_path / "shuffled") == []
    before, after = (
        {image["image_id"]: image for image in ShardSet.open(folder).images().to_pylist()}
        for folder in (toy.shards, tmp_path / "shuffled")
    )
    assert {image["sha256"] for image in before.values()} == {
        image["sha256"] for image in after.values()
    }
    moved = [name for name in before if before[name]["sha256"] != after[name]["sha256"]]
    assert len(moved) > 60
    assert {before[name]["split"] for name in moved} == {Split.TRAIN}
    assert all(before[name]["label"] == after[name]["label"] for name in before)
    read_inputs(make_config(), tmp_path / "shuffled", toy.images)


def make_rows(*, sign: float) -> list[dict[str, Any]]:
    return [
        {
            "label": "real" if generator is None else "fake",
            "generator": generator,
            "group": f"photograph-{group}",
            "log_odds": sign * strength,
            "others": {"metadata only": 0.0},
        }
        for group in range(3)
        for generator, strength in ((None, 0.0), ("sim-seen", 2.0), ("sim-held", -1.0))
    ]


@pytest.fixture
def trained() -> Trained:
    return Trained(
        predictions=make_rows(sign=1),
        shuffled=make_rows(sign=-1),
        held_out=frozenset({"sim-held"}),
        seconds=12.0,
    )


def test_seen_and_held_out_generators_are_kept_apart(trained: Trained) -> None:
    table = tabulate([trained, trained])
    assert table["model"]["seen"].value == 1
    assert table["model"]["held_out"].value == 0
    assert table[SHUFFLED]["seen"].value == 0
    assert table["metadata only"]["seen"].value == 0.5
    assert as_json(table, [trained])["table"]["model"]["seen"] == {
        "value": 1.0, "low": 1.0, "high": 1.0,
    }  # fmt: skip


@pytest.mark.full
def test_a_model_that_loses_is_said_to_lose(trained: Trained) -> None:
    winning = render(tabulate([trained]), [trained])
    assert "loses" not in winning
    losing = Trained(trained.shuffled, trained.shuffled, trained.held_out, trained.seconds)
    assert "The model loses to: metadata only." in render(tabulate([losing]), [losing])
