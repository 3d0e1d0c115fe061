"""A general set mixed in: its share, its place, its terms, and what it may not bring with it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import ConfigError
from core.recipe import General, Recipe
from core.records import BenchmarkImage, ReviewLevel, Source, Split
from core.split import assign_splits
from db.benchmarks import save_benchmark_hashes
from db.engine import Database
from db.images import save_source
from db.tombstones import withdraw
from imaging.decode import Limits
from imaging.hashes import perceptual_hash
from imaging.intake import Intake, Job, take_in
from imaging.store import ImageStore
from instruct_builder.build import BuildSummary, build
from instruct_builder.difference import compare
from instruct_builder.export import Format, export
from instruct_builder.general import spread
from instruct_builder.inspection import read_aloud_in_full
from instruct_builder.lineage import as_text, trace
from instruct_builder.llava_list import conversations_of
from instruct_builder.shards import ShardSet, verify
from instruct_builder.takedown import take_down
from tests.unit.instruct_builder.specimens import Pair, make_pairs, recipe
from tests.unit.instruct_builder.stored import store_pairs
from tests.unit.records import make_image, make_tombstone
from training.data import ImageFolder, Rows, open_shards, plan_visits, read_images

LOW = ReviewLevel.DRAFT
CHAINS = 24
Entry = dict[str, Any]


def draw(folder: Path, name: str) -> Path:
    """A picture unlike all others."""
    rng = np.random.default_rng(int(name.partition(".")[0]))
    pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    path = folder / name
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(path)
    return path


def entry(image: str, number: int = 0, **changes: Any) -> Entry:
    turns = [
        {"from": "human", "value": f"<image>\nWhat is thing {number} in this picture?"},
        {"from": "gpt", "value": f"Thing {number} is a lamp."},
    ]
    return {"id": f"{image}-{number}", "image": image, "conversations": turns, **changes}


def say(question: str, answer: str = "A lamp.") -> Entry:
    return {
        "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(20):
        draw(folder, f"{number}.png")
    return folder


@pytest.fixture
def pairs(database: Database) -> list[Pair]:
    made = make_pairs(CHAINS)
    store_pairs(database, made)
    return made


def entries() -> list[Entry]:
    return [entry(f"{number % 20}.png", number) for number in range(100)]


def mixing(pictures: Path, told: list[Entry], **changes: Any) -> Recipe:
    """The recipe with a general set, in small shards."""
    file = pictures.parent / "general.json"
    file.write_text(json.dumps(told), encoding="utf-8")
    values = {"file": file, "images": pictures, "share": 0.2, "licence": "CC-BY-NC-4.0"}
    chosen = General(**{**values, **changes})
    all_settings = recipe().settings
    small = all_settings.build.model_copy(update={"rows_per_shard": 200, "general": chosen})
    return recipe().model_copy(
        update={"settings": all_settings.model_copy(update={"build": small})}
    )


def run(database: Database, store: ImageStore, out: Path, chosen: Recipe) -> BuildSummary:
    return build(database, chosen, store, out, min_review=LOW)


def rows_of(folder: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    return [row for t in ShardSet.open(folder).rows(columns=columns) for row in t.to_pylist()]


def general_rows(folder: Path) -> list[dict[str, Any]]:
    return [row for row in rows_of(folder) if row["family"] == "general"]


@pytest.mark.usefixtures("pairs")
def test_a_share_of_the_training_rows_is_general_and_says_nothing_of_authenticity(
    database: Database, store: ImageStore, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    summary = run(database, store, out, mixing(pictures, entries()))
    assert verify(out) == []
    train = [row for row in rows_of(out) if row["split"] == Split.TRAIN]
    general = general_rows(out)
    assert len(general) / len(train) == pytest.approx(0.2, abs=0.002)
    for row in general:
        for name in ("label", "generator", "target", "aspect", "chain_id", "review_level"):
            assert row[name] is None
        assert (row["split"], row["source"]) == ("train", "general")
        assert "<image>" not in row["messages"][0]["content"]
        assert store.holds(row["image_path"])
    manifest = summary.manifest
    assert manifest.chains == CHAINS
    assert manifest.families()["general"] == len(general)
    assert manifest.checks["general"].figures["rows"] == len(general)
    assert manifest.licence.statement == "CC-BY-NC-4.0"
    assert "the licence of source general" in manifest.licence.because
    assert str(tmp_path) not in (out / "recipe.json").read_text()
    assert run(database, store, out, mixing(pictures, entries())).unchanged


@pytest.mark.usefixtures("pairs")
def test_the_rest_of_the_set_is_what_it_would_be_without(
    database: Database, store: ImageStore, pictures: Path, tmp_path: Path
) -> None:
    run(database, store, tmp_path / "plain", recipe())
    run(database, store, tmp_path / "mixed", mixing(pictures, entries()))
    own = [row for row in rows_of(tmp_path / "mixed") if row["family"] != "general"]
    assert own == rows_of(tmp_path / "plain")
    plain, mixed = (ShardSet.open(tmp_path / name).manifest for name in ("plain", "mixed"))
    for name in set(plain.checks) - {"splits"}:
        assert plain.checks[name] == mixed.checks[name]
    found = compare(tmp_path / "plain", tmp_path / "mixed")
    assert "general" in found.facts


@pytest.mark.usefixtures("pairs")
def test_general_rows_stand_among_the_others_or_before_them(
    database: Database, store: ImageStore, pictures: Path, tmp_path: Path
) -> None:
    for order in ("mix", "after"):
        run(database, store, tmp_path / order, mixing(pictures, entries(), order=order))
        assert verify(tmp_path / order) == []
        images = [row["image_id"] for row in rows_of(tmp_path / order, ["image_id"])]
        assert len([*groupby(images)]) == len({*images})  # rows of one image are neighbours
    in_turn = {
        order: [
            f == "general" for f in (r["family"] for r in rows_of(tmp_path / order, ["family"]))
        ]
        for order in ("mix", "after")
    }
    first = in_turn["after"].index(False)
    assert all(in_turn["after"][:first])
    assert not any(in_turn["after"][first:])
    mixed = in_turn["mix"][: ShardSet.open(tmp_path / "mix").manifest.counts["split"]["train"]]
    quarters = np.array_split(np.array(mixed), 4)
    assert [part.mean() for part in quarters] == pytest.approx([0.2] * 4, abs=0.1)


@pytest.mark.usefixtures("pairs")
def test_which_images_are_drawn_does_not_depend_on_the_order_of_the_file(
    database: Database, store: ImageStore, pictures: Path, tmp_path: Path
) -> None:
    run(database, store, tmp_path / "one", mixing(pictures, entries()))
    run(database, store, tmp_path / "turned", mixing(pictures, entries()[::-1]))
    one, turned = (
        {row["image_id"] for row in general_rows(tmp_path / name)} for name in ("one", "turned")
    )
    assert one == turned


@pytest.mark.usefixtures("pairs")
def test_training_reads_general_rows_and_scores_no_general_image(
    database: Database, store: ImageStore, pictures: Path, tmp_path: Path
) -> None:
    run(database, store, tmp_path / "set", mixing(pictures, entries()))
    shards = open_shards(tmp_path / "set")
    scored = {image.ref.image_id for image in read_images(shards)}
    rows = Rows.read(shards, Split.TRAIN)
    visits = islice(plan_visits(rows, {"general": 1, "verdict": 0}, branches=2, seed=1), 4)
    learnt = [row for visit in visits for row in rows.take(visit.places)]
    assert not {row.image.image_id for row in learnt} & scored
    assert len(scored) == CHAINS
    folder = ImageFolder(store.folder)
    assert {folder.read(row.image).size for row in learnt} == {(64, 64)}


def test_images_of_val_test_and_benchmarks_and_withdrawn_ones_stay_out(
    database: Database,
    store: ImageStore,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("instruct_builder.general.SPARE", 2)  # all of them are looked at
    pairs = make_pairs(CHAINS)
    splits = assign_splits([image for _, image in pairs], recipe().settings.split.plan())
    place = next(n for n, (_, i) in enumerate(pairs) if splits[i.image_id] is Split.TEST)
    near = perceptual_hash(Image.open(pictures / "0.png").convert("RGB"))
    pairs[place] = (pairs[place][0], replace(pairs[place][1], phash=near))
    store_pairs(database, pairs)
    taken = {n: take(store, pictures / f"{n}.png") for n in (1, 2)}
    with database.write() as session:
        save_source(session, Source(name="b", licence="MIT", may_train=False))
        save_benchmark_hashes(
            session,
            [BenchmarkImage(benchmark="b", name="n", sha256=taken[1].original_sha256, phash=None)],
        )
    stone = replace(make_image("gone"), sha256=taken[2].sha256)
    withdraw(database, make_tombstone(stone))
    summary = run(database, store, tmp_path / "set", mixing(pictures, entries()))
    figures = summary.manifest.checks["general"].figures
    assert figures["left out: whose image is, or is nearly, one of val, test or a benchmark"] == 10
    assert figures["left out: whose image was withdrawn"] == 5
    named = {row["image_sha256"] for row in general_rows(tmp_path / "set")}
    assert not named & {take(store, pictures / f"{n}.png").sha256 for n in range(3)}


def take(store: ImageStore, path: Path) -> Intake:
    taken = take_in(Job(str(path), path.name), store, Limits())
    assert isinstance(taken, Intake)
    return taken


@pytest.mark.usefixtures("pairs")
def test_what_cannot_be_taken_is_counted_by_its_reason(
    database: Database, store: ImageStore, pictures: Path, tmp_path: Path
) -> None:
    (pictures / "20.png").write_bytes(b"no picture")
    (pictures / "21.png").symlink_to("/etc/passwd")
    spoilt = [
        {**entry("0.png"), "image": None},
        entry("20.png", 1),
        entry("21.png", 1),
        entry("../general.json", 1),
        entry("0.png", 0),
        "nothing",
        {**entry("1.png"), **say("<image>\nIs this image real or fake?")},
        {**entry("1.png"), **say("<image>\nWho made it?", "The rehearsal did.")},
        {**entry("1.png"), **say("<image>\nTwo <image>?")},
        {**entry("1.png"), **say("<image>")},
        {**entry("1.png"), "conversations": [{"from": "gpt", "value": "Hello."}]},
    ]
    summary = run(
        database, store, tmp_path / "set", mixing(pictures, entries() + spoilt, share=0.27)
    )
    figures = summary.manifest.checks["general"].figures
    reasons = {name.removeprefix("left out: ") for name in figures if name.startswith("left out")}
    assert {
        "without one image",
        "said twice of one image",
        "that ask whether the image is real or fake",
        "with a text that names a generator, source, teacher or file",
        "whose text holds <image>, which trainers take for an image",
        "with a turn that says nothing",
        "whose turns are not question and answer in turn",
        "whose image cannot be taken in: leads out of the folder, not followed",
    } <= reasons


@pytest.mark.usefixtures("pairs")
@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"share": 0.9}, r"a share of 0\.9 of \d+ training .* has 100 that can be taken, enough"),
        ({"file": Path("nowhere.json")}, r"build\.general\.file: nowhere\.json: No such file"),
        ({"images": Path("nowhere")}, r"build\.general\.images: nowhere is no folder"),
        ({"name": "demo"}, "'demo' is a source of images already"),
    ],
)
def test_a_set_that_cannot_be_had_stops_the_build_with_one_line(
    database: Database,
    store: ImageStore,
    pictures: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    problem: str,
) -> None:
    with pytest.raises(ConfigError, match=problem):
        run(database, store, tmp_path / "set", mixing(pictures, entries(), **changes))
    assert not (tmp_path / "set" / "manifest.json").exists()


@pytest.mark.parametrize("text", ["", "{}", '[{"image": "a"', "[1, 2", "\udcff"])
def test_a_file_that_is_no_list_of_conversations_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "general.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError, match=r"general\.json: no JSON list of conversations"):
        list(conversations_of(file))


def test_lists_and_lines_of_any_layout_are_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instruct_builder.llava_list.BLOCK", 7)
    told = entries()[:20]
    lines = "\n".join(json.dumps(each) for each in told)
    texts = {"a.json": json.dumps(told), "b.json": json.dumps(told, indent=3), "c.jsonl": lines}
    read = []
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        unread: Counter[str] = Counter()
        read.append([*conversations_of(tmp_path / name, unread)])
        assert not unread
    assert read[0] == read[1] == read[2]
    assert read[0][0] == ("0.png", ("What is thing 0 in this picture?", "Thing 0 is a lamp."))


@pytest.mark.usefixtures("pairs")
def test_general_rows_can_be_read_traced_exported_and_taken_down(
    database: Database, store: ImageStore, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "set"
    run(database, store, out, mixing(pictures, entries()))
    row = general_rows(out)[0]
    assert "about no image of known origin" in read_aloud_in_full(row)
    told = "\n".join(as_text(trace(row["instruction_id"], out, database, store)))
    assert "missing: a chain: the row is of the general instruction set general" in told
    assert f"{row['image_path']}: there" in told
    for format in Format:
        if not format.holds_images:
            done = export(ShardSet.open(out), tmp_path / format, format=format, store=store)
            assert done.rows == len(rows_of(out))
    done = take_down(
        database,
        store,
        row["image_id"],
        reason="asked",
        now=datetime(2026, 3, 1, tzinfo=UTC),
        work=tmp_path / "uploads",
        shards=[out],
    )
    assert done.is_done
    assert verify(out) == []
    assert row["image_id"] not in {each["image_id"] for each in general_rows(out)}
    again = run(database, store, tmp_path / "again", mixing(pictures, entries()))
    assert again.manifest.checks["general"].figures["left out: whose image was withdrawn"] == 5


@given(st.lists(st.integers(1, 5), max_size=12), st.lists(st.integers(1, 5), max_size=12))
@settings(deadline=None)
def test_spreading_keeps_every_row_and_the_order_of_each_part(
    own: list[int], general: list[int]
) -> None:
    def part(name: str, counts: list[int]) -> pa.Table:
        ids = [f"{name}{image}" for image, count in enumerate(counts) for _ in range(count)]
        table = {"image_id": pa.array(ids, pa.string()), "n": pa.array(range(len(ids)), pa.int64())}
        return pa.table(table)

    parts = part("own", own), part("general", general)
    both = spread(*parts).to_pylist()
    for name, each in zip(("own", "general"), parts, strict=True):
        assert [row for row in both if row["image_id"].startswith(name)] == each.to_pylist()
    assert len([*groupby(row["image_id"] for row in both)]) == len(own) + len(general)
