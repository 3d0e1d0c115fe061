"""What `inspect` shows: counts, drawn rows, and a page of distributions."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from core.records import Message, Split
from instruct_builder.__main__ import app
from instruct_builder.inspection import draw_rows, read_aloud, read_aloud_in_full
from instruct_builder.plots import measure, render_plots, write_plots
from instruct_builder.shards import ShardSet, rows_table, write_shards
from tests.unit.instruct_builder.specimens import make_facts, make_pairs, place_all, write_set
from tests.unit.instruct_builder.test_documents import NASTY, Tags


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    folder = tmp_path_factory.mktemp("inspected") / "set"
    write_set(folder, make_pairs(40))
    return ShardSet.open(folder)


def row(*texts: str, **changes: Any) -> dict[str, Any]:
    roles = ("user", "assistant") * len(texts)
    values = {
        "instruction_id": "ins-1",
        "family": "discussion",
        "form": "dialogue",
        "label": "fake",
        "generator": "sim-nearest",
        "split": "train",
        "review_level": "expert",
        "target": None,
        "messages": [{"role": r, "content": t} for r, t in zip(roles, texts, strict=False)],
    }
    return {**values, **changes}


def test_a_sample_is_the_same_for_the_same_seed_and_of_all_rows(shards: ShardSet) -> None:
    drawn = draw_rows(shards, 30, seed=1)
    assert len({row["instruction_id"] for row in drawn}) == 30
    assert drawn == draw_rows(shards, 30, seed=1) != draw_rows(shards, 30, seed=2)
    assert {row["split"] for row in drawn} == {"train", "test"}
    everything = draw_rows(shards, 10**6, seed=1)
    assert len(everything) == shards.manifest.rows


def test_every_row_is_drawn_about_as_often(shards: ShardSet) -> None:
    drawn = [row["split"] for seed in range(60) for row in draw_rows(shards, 20, seed=seed)]
    share = shards.manifest.counts["split"]["test"] / shards.manifest.rows
    assert drawn.count("test") / len(drawn) == pytest.approx(share, abs=0.06)


def test_a_dialogue_is_read_turn_by_turn() -> None:
    text = read_aloud(row("What is odd?", "The edge.", "Sure?", "Yes."))
    assert text.splitlines() == [
        "discussion · dialogue · known to be fake, generator sim-nearest",
        "  Q: What is odd?",
        "  A: The edge.",
        "  Q: Sure?",
        "  A: Yes.",
    ]


def test_a_row_about_no_image_of_ours_says_so() -> None:
    text = read_aloud(row("Hi", "Hello", family="general", label=None, generator=None))
    assert text.startswith("general · dialogue · about no image of known origin")


def test_what_others_wrote_cannot_act_on_the_terminal() -> None:
    text = read_aloud_in_full(row("a\x1b[2Jb", "c\rd\ne\x07", generator="x\x1b]0;y\x07"))
    assert "\x1b" not in text and "\x07" not in text and "\r" not in text
    assert r"Q: a\u001b[2Jb" in text
    assert [line.strip() for line in text.splitlines()][2:5] == ["A: c", "d", r"e\u0007"]


def test_lengths_and_turns_are_counted(tmp_path: Path) -> None:
    (placed,) = place_all(make_pairs(1)[:1])[:1]
    instruction = placed.instructions[0]
    talk = tuple(
        Message(role=role, content="x" * length)
        for role, length in (("user", 10), ("assistant", 60), ("user", 99_999), ("assistant", 0))
    )
    placed = replace(placed, split=Split.TRAIN, instructions=[replace(instruction, messages=talk)])
    write_shards(
        tmp_path / "set",
        [rows_table([placed])],
        [(placed.image, placed.split)],
        make_facts(),
        rows_per_shard=100,
    )
    found = measure(ShardSet.open(tmp_path / "set"))
    family = instruction.family
    assert found.lengths[family, "question"].nonzero()[0].tolist() == [0, 23]
    assert found.lengths[family, "answer"].nonzero()[0].tolist() == [0, 1]
    assert dict(found.turns) == {4: 1}
    assert dict(found.per_image) == {1: 1}


def test_the_page_shows_every_row_in_every_chart(shards: ShardSet) -> None:
    found = measure(shards)
    rows = shards.manifest.rows
    assert sum(found.turns.values()) == rows
    assert all(sum(pairs.values()) == rows for pairs in found.crossed.values())
    assert sum(n * k for k, n in found.per_image.items()) == rows
    turns = sum(number * count for number, count in found.turns.items())
    assert sum(int(numbers.sum()) for numbers in found.lengths.values()) == turns > 2 * rows
    page = render_plots(shards).decode()
    assert page.count("<section>") == page.count("</section>") > 15
    for title in ("Instructions by family", "By form and target", "Turns of an instruction"):
        assert f"<h2>{title}</h2>" in page


def test_the_page_loads_nothing_and_names_are_text(shards: ShardSet) -> None:
    counts = {**shards.manifest.counts, "generator": {NASTY: 3}}
    named = ShardSet(shards.folder, shards.manifest.model_copy(update={"counts": counts}))
    page = render_plots(named).decode()
    assert "&lt;script&gt;" in page
    assert not {"script", "link", "img", "iframe"} & set(Tags(page).tags)
    assert Tags(page).addresses == []


def test_a_page_that_cannot_be_written_is_named(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere/page\.html: cannot be written"):
        write_plots(shards, tmp_path / "nowhere" / "page.html")


def test_the_command_shows_samples_and_writes_the_page(shards: ShardSet, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    command = ["inspect", str(shards.folder), "--sample", "3", "--seed", "7"]
    shown = CliRunner().invoke(app, [*command, "--plots", str(page)])
    assert shown.exit_code == 0, shown.output
    assert len(re.findall(r"ins-[0-9a-f]{20}", shown.output)) == 3
    assert page.read_bytes() == render_plots(shards)
    told = CliRunner().invoke(app, [*command, "--json"])
    assert json.loads(told.output)["rows"] == draw_rows(shards, 3, seed=7)
