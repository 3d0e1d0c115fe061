"""The use case on a real database: what enters a set, what does not, and why."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from core.errors import ConfigError
from core.recipe import RECIPES, Recipe, TeacherTerms, load_recipe
from core.records import (
    Authenticity,
    BenchmarkImage,
    ImageRecord,
    ImageTopic,
    ReviewLevel,
    Source,
    Split,
)
from core.settings import load_settings
from core.split import assign_splits
from db.benchmarks import save_benchmark_hashes
from db.engine import Database, open_database
from db.images import save_source
from db.tombstones import withdraw
from db.topics import save_topics
from imaging.store import ImageStore
from instruct_builder.__main__ import app
from instruct_builder.build import BuildSummary, build
from instruct_builder.manifest import warnings_of
from instruct_builder.shards import ShardSet, verify
from instruct_builder.topics import read_topics
from tests.unit.instruct_builder.specimens import Pair, make_pair, make_pairs, recipe
from tests.unit.instruct_builder.stored import store_pairs
from tests.unit.records import make_image, make_tombstone

LOW = ReviewLevel.DRAFT


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "set"


@pytest.fixture
def small_recipe() -> Recipe:
    """Small shards, so that there are several."""
    settings = recipe().settings
    small = settings.build.model_copy(update={"rows_per_shard": 200})
    return recipe().model_copy(update={"settings": settings.model_copy(update={"build": small})})


def from_source(name: str, number: int) -> list[Pair]:
    return [
        make_pair(f"{name} {n}", list(Authenticity)[n % 2], source=name, group=f"{name} {n // 2}")
        for n in range(number)
    ]


def sources_of(summary: BuildSummary) -> set[str]:
    return {source.name for source in summary.manifest.sources}


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_set_is_built_checked_and_verified(
    database: Database, store: ImageStore, small_recipe: Recipe, out: Path, tmp_path: Path
) -> None:
    store_pairs(database, make_pairs(60))
    summary = build(database, small_recipe, store, out, min_review=LOW)
    assert not summary.unchanged
    assert verify(out) == []
    manifest = summary.manifest
    assert manifest.chains == manifest.images == 60
    assert set(manifest.checks) == {
        "splits", "unique", "polarity", "options", "names", "balance", "shortcuts", "overlaps",
        "text_only", "near_duplicates", "variety", "verdict_before",
    }  # fmt: skip
    assert manifest.statement == "simulated teacher, no expert"
    assert {file.path for file in manifest.files} >= {
        "README.md",
        "croissant.json",
        "preview.html",
        "recipe.json",
    }
    assert len([file for file in manifest.files if file.split is Split.TRAIN]) > 1
    assert str(tmp_path) not in (out / "recipe.json").read_text()


def test_the_splits_are_those_of_the_recipe(
    database: Database, store: ImageStore, out: Path
) -> None:
    pairs = make_pairs(80)
    store_pairs(database, pairs)
    build(database, recipe(), store, out, min_review=LOW)
    images = [image for _, image in pairs]
    wanted = assign_splits(images, recipe().settings.split.plan())
    rows = ShardSet.open(out).images().to_pylist()
    assert {row["image_id"]: row["split"] for row in rows} == wanted


def test_a_second_build_changes_nothing_and_says_so(
    database: Database, store: ImageStore, small_recipe: Recipe, out: Path
) -> None:
    store_pairs(database, make_pairs(30))
    build(database, small_recipe, store, out, min_review=LOW)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = build(database, small_recipe, store, out, min_review=LOW)
    assert again.unchanged
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before


def test_the_same_chains_give_the_same_bytes_wherever_they_come_from(
    home: Path, database: Database, store: ImageStore, small_recipe: Recipe, tmp_path: Path
) -> None:
    pairs = make_pairs(60)
    store_pairs(database, pairs)
    build(database, small_recipe, store, tmp_path / "one", min_review=LOW)
    other = open_database(load_settings(fakescope_home=home / "other"))
    store_pairs(other, pairs[30:][::-1])
    store_pairs(other, pairs[:30])
    build(other, small_recipe, store, tmp_path / "two", min_review=LOW)
    other.dispose()
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")


def test_terms_of_sources_and_teachers_reach_the_manifest(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, make_pairs(30), terms="name the photographer")
    facts = build(database, recipe(), store, out, min_review=LOW).manifest
    (source,), (teacher,) = facts.sources, facts.teachers
    assert source.terms == "name the photographer"
    assert (teacher.name, teacher.licence) == ("rehearsal", "Apache-2.0")
    assert facts.licence.statement == "Apache-2.0"
    assert facts.licence.conditions == ("source demo: name the photographer",)
    assert "name the photographer" in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("teachers", "statement"),
    [
        ({}, "unknown: nobody said under which terms teacher rehearsal may be used"),
        ({"rehearsal": TeacherTerms(licence="CC-BY-NC-4.0")}, "CC-BY-NC-4.0"),
    ],
)
def test_the_terms_of_a_teacher_are_the_recipes_and_never_guessed(
    database: Database,
    store: ImageStore,
    out: Path,
    teachers: dict[str, TeacherTerms],
    statement: str,
) -> None:
    store_pairs(database, make_pairs(30))
    chosen = with_teachers(teachers)
    manifest = build(database, chosen, store, out, min_review=LOW).manifest
    assert manifest.licence.statement == statement


def test_a_teacher_whose_words_may_not_be_trained_on_stops_a_build(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, make_pairs(30))
    chosen = with_teachers({"rehearsal": TeacherTerms(licence="all rights", may_train=False)})
    with pytest.raises(ConfigError, match="words of teacher rehearsal may not be used"):
        build(database, chosen, store, out, min_review=LOW)
    assert not out.exists()


def with_teachers(teachers: dict[str, TeacherTerms]) -> Recipe:
    settings = recipe().settings.model_copy(update={"teachers": teachers})
    return recipe().model_copy(update={"settings": settings})


def test_a_withdrawn_image_is_left_out_and_named(
    database: Database, store: ImageStore, small_recipe: Recipe, out: Path
) -> None:
    pairs = make_pairs(30)
    store_pairs(database, pairs)
    build(database, small_recipe, store, out, min_review=LOW)
    image = pairs[7][1]
    for gone in (image, make_image("never drafted")):
        withdraw(database, make_tombstone(gone))
    again = build(database, small_recipe, store, out, min_review=LOW)
    assert again.manifest.tombstones == (image.image_id,)
    assert again.manifest.chains == again.manifest.images == 29
    assert verify(out) == []
    assert build(database, small_recipe, store, out, min_review=LOW).unchanged


def test_a_set_is_built_again_when_another_topic_is_said_of_an_image(
    database: Database, store: ImageStore, small_recipe: Recipe, out: Path
) -> None:
    known = small_recipe.model_copy(update={"topics": load_recipe(RECIPES / "fakeclue").topics})
    pairs = make_pairs(30)
    store_pairs(database, pairs)
    image_id = pairs[7][1].image_id
    for topic in ("animal", "scene"):
        said = ImageTopic(image_id=image_id, said_by="collection", topic=topic)
        with database.write() as session:
            save_topics(session, [said])
        assert not build(database, known, store, out, min_review=LOW).unchanged
        assert read_topics(out) == {image_id: topic}
    assert build(database, known, store, out, min_review=LOW).unchanged


def test_a_damaged_or_outdated_set_is_built_again(
    database: Database, store: ImageStore, small_recipe: Recipe, out: Path
) -> None:
    store_pairs(database, make_pairs(30))
    build(database, small_recipe, store, out, min_review=LOW)
    (out / "rows-00000.parquet").write_bytes(b"")
    assert not build(database, small_recipe, store, out, min_review=LOW).unchanged
    assert verify(out) == []
    assert not build(database, small_recipe, store, out, min_review=LOW, seed=9).unchanged
    store_pairs(database, from_source("demo", 6))
    changed = build(database, small_recipe, store, out, min_review=LOW, seed=9)
    assert changed.manifest.chains == 36
    assert verify(out) == []


def test_the_demo_is_left_out_once_other_chains_are_there(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, from_source("demo", 20))
    assert sources_of(build(database, recipe(), store, out, min_review=LOW)) == {"demo"}
    store_pairs(database, from_source("own", 20))
    assert sources_of(build(database, recipe(), store, out, min_review=LOW)) == {"own"}
    asked = build(database, recipe(), store, out, min_review=LOW, source="demo")
    assert sources_of(asked) == {"demo"}


def test_too_high_a_review_level_says_what_there_is(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, make_pairs(12))
    with pytest.raises(ConfigError, match=r"12 are at draft; .*--min-review draft .*MIN_REVIEW="):
        build(database, recipe(), store, out)
    assert not (out).exists()


def test_an_empty_database_and_an_unknown_source_are_named(
    database: Database, store: ImageStore, out: Path
) -> None:
    with pytest.raises(ConfigError, match="there is no chain yet"):
        build(database, recipe(), store, out, min_review=LOW)
    store_pairs(database, make_pairs(4))
    with pytest.raises(ConfigError, match="there is no source 'onw'; ingested so far: demo"):
        build(database, recipe(), store, out, min_review=LOW, source="onw")


def test_a_source_that_may_not_be_trained_on_stays_out(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, from_source("bench", 8), may_train=False, licence="CC-BY-NC-4.0")
    with pytest.raises(ConfigError, match=r"source 'bench' may not be used for training \(licence"):
        build(database, recipe(), store, out, min_review=LOW)
    store_pairs(database, from_source("own", 8))
    summary = build(database, recipe(), store, out, min_review=LOW)
    assert sources_of(summary) == {"own"}
    assert summary.manifest.left_out == {"of source bench, which may not be used for training": 8}
    with pytest.raises(ConfigError, match="'bench' may not be used for training"):
        build(database, recipe(), store, out, min_review=LOW, source="bench")


def test_a_chain_that_names_its_generator_is_set_aside_and_the_rest_goes_on(
    database: Database, store: ImageStore, out: Path
) -> None:
    chain, image = make_pair("named", generator="midjourney", group="named")
    reasoning = replace(chain.reasoning, conclusion="Typical of Midjourney.")
    store_pairs(database, [*make_pairs(20), (replace(chain, reasoning=reasoning), image)])
    summary = build(database, recipe(), store, out, min_review=LOW)
    assert summary.manifest.chains == 20
    assert summary.manifest.left_out == {
        "with a text that names a generator, source, teacher or file": 1
    }


def test_a_held_out_generator_is_in_the_test_split_only(
    database: Database, store: ImageStore, out: Path
) -> None:
    held = [
        make_pair(f"held {n}", generator="sim-damped", group=f"group {n % 8}") for n in range(16)
    ]
    store_pairs(database, [*make_pairs(64), *held])
    summary = build(database, recipe(), store, out, min_review=LOW)
    rows = ShardSet.open(out).images().to_pylist()
    kept = [row["split"] for row in rows if row["generator"] == "sim-damped"]
    assert set(kept) == {"test"}
    reason = "held-out generator outside the test groups"
    assert summary.manifest.left_out == {reason: 16 - len(kept)}


def store_picture(store: ImageStore, image: ImageRecord, shade: int) -> ImageRecord:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 90, 90)).save(buffer, "PNG")
    return replace(image, path=store.add(buffer.getvalue(), ".png"), format="PNG")


def test_the_commands_build_inspect_and_verify(
    database: Database, store: ImageStore, out: Path
) -> None:
    pairs = [
        (chain, store_picture(store, image, n)) for n, (chain, image) in enumerate(make_pairs(30))
    ]
    store_pairs(database, pairs)
    run = CliRunner().invoke
    built = run(app, ["build", "--out", str(out), "--min-review", "draft", "--json"])
    assert built.exit_code == 0, built.output
    assert json.loads(built.stdout)["images"] == 30
    assert (out / "preview.html").read_text().count("data:image/png") == 24
    again = run(app, ["build", "--out", str(out), "--min-review", "draft"])
    assert "nothing to do" in again.stdout
    inspected = run(app, ["inspect", str(out)])
    assert "simulated teacher, no expert" in inspected.stdout
    assert inspected.stdout.count("  A: ") >= inspected.stdout.count("  Q: ") > 0
    assert run(app, ["verify", str(out)]).exit_code == 0
    (out / "images.parquet").unlink()
    spoilt = run(app, ["verify", str(out), "--json"])
    assert spoilt.exit_code == 1
    assert json.loads(spoilt.stdout)["problems"] == ["images.parquet: missing"]


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_what_is_no_shard_set_ends_with_one_line_and_code_2(command: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [command, str(tmp_path)])
    assert done.exit_code == 2
    assert done.stderr.count("\n") == 1
    assert "is no shard set" in done.stderr


def test_the_hub_loader_finds_the_splits_through_the_card(
    database: Database,
    store: ImageStore,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="needs the extra `dev`")
    store_pairs(database, make_pairs(64))
    build(database, recipe(), store, out, min_review=LOW)
    loaded = datasets.load_dataset(str(out), cache_dir=str(tmp_path / "cache"))
    counts = ShardSet.open(out).manifest.counts["split"]
    found = {name: split.num_rows for name, split in loaded.items()}
    assert found == {"train": counts["train"], "validation": counts["val"], "test": counts["test"]}


# Shortcuts


def with_shortcut(number: int = 60) -> list[Pair]:
    """Pairs of a photograph and a fake in one group; the fakes are wider."""
    labels = list(Authenticity)
    return [
        make_pair(
            f"shortcut {n}", labels[n % 2], group=f"pair {n // 2}", width=640 if n % 2 else 512
        )
        for n in range(number)
    ]


def with_audit(**changes: object) -> Recipe:
    settings = recipe().settings
    audit = settings.audit.model_copy(update=changes)
    return recipe().model_copy(update={"settings": settings.model_copy(update={"audit": audit})})


def test_a_shortcut_is_warned_of_in_manifest_card_and_preview(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, with_shortcut())
    summary = build(database, recipe(), store, out, min_review=LOW)
    (warning,) = warnings_of(summary.manifest)
    figures = summary.manifest.checks["shortcuts"].figures
    assert figures["low"] > 0.6 == figures["threshold"]
    assert "most of all aspect" in warning
    assert f"AUC {figures['metadata_auc']:.2f}" in warning
    for file in ("README.md", "preview.html"):
        assert "a model may learn this instead of traces" in (out / file).read_text()


def test_without_a_shortcut_nothing_is_warned_of(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, make_pairs(96))
    summary = build(database, recipe(), store, out, min_review=LOW, release=True)
    assert warnings_of(summary.manifest) == []
    assert summary.manifest.checks["shortcuts"].figures["metadata_auc"] == 0.5


def test_too_few_images_are_no_reason_to_warn(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, with_shortcut(12))
    summary = build(database, recipe(), store, out, min_review=LOW, release=True)
    assert "6 real images" in str(summary.manifest.checks["shortcuts"].figures["too_few"])


def test_a_release_with_a_shortcut_is_refused_unless_it_is_accepted(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, with_shortcut())
    with pytest.raises(ConfigError, match="--accept-shortcuts"):
        build(database, recipe(), store, out, min_review=LOW, release=True)
    assert not (out / "manifest.json").exists()
    build(database, recipe(), store, out, min_review=LOW, release=True, accept_shortcuts=True)
    before = files_of(out)
    with pytest.raises(ConfigError, match="--accept-shortcuts"):
        build(database, recipe(), store, out, min_review=LOW, release=True)
    assert build(database, recipe(), store, out, min_review=LOW).unchanged
    assert files_of(out) == before


@pytest.mark.parametrize(
    "audit", [{"on_shortcut": "ignore"}, {"metadata_auc": 1.0}], ids=["ignore", "threshold"]
)
def test_the_recipe_decides_what_is_a_shortcut(
    database: Database, store: ImageStore, out: Path, audit: dict[str, object]
) -> None:
    store_pairs(database, with_shortcut())
    summary = build(database, with_audit(**audit), store, out, min_review=LOW, release=True)
    assert warnings_of(summary.manifest) == []
    assert summary.manifest.checks["shortcuts"].figures["low"] > 0.6


def test_a_recipe_may_stop_every_build_with_a_shortcut(
    database: Database, store: ImageStore, out: Path
) -> None:
    store_pairs(database, with_shortcut())
    strict = with_audit(on_shortcut="stop")
    with pytest.raises(ConfigError, match="metadata alone tells"):
        build(database, strict, store, out, min_review=LOW)
    assert not build(database, strict, store, out, min_review=LOW, accept_shortcuts=True).unchanged


def test_a_build_with_a_warning_gives_the_same_bytes_anywhere(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    store_pairs(database, with_shortcut())
    for name in ("a", "b"):
        build(database, recipe(), store, tmp_path / name, min_review=LOW)
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")


# Overlaps with benchmarks


def register(database: Database, images: Sequence[ImageRecord], benchmark: str = "bench") -> None:
    """List the files of these images as a benchmark's."""
    listed = [
        BenchmarkImage(
            benchmark=benchmark, name=image.image_id, sha256=image.original_sha256, phash=None
        )
        for image in images
    ]
    with database.write() as session:
        save_source(session, Source(name=benchmark, licence="unknown", may_train=False))
        save_benchmark_hashes(session, listed)


def of_split(pairs: Sequence[Pair], *wanted: Split) -> list[ImageRecord]:
    images = [image for _, image in pairs]
    splits = assign_splits(images, recipe().settings.split.plan())
    return [image for image in images if splits.get(image.image_id) in wanted]


def overlaps_of(summary: BuildSummary) -> dict[str, int | float | str]:
    return summary.manifest.checks["overlaps"].figures


def test_an_image_of_a_benchmark_is_warned_of_in_manifest_and_card(
    database: Database, store: ImageStore, out: Path
) -> None:
    pairs = make_pairs(60)
    store_pairs(database, pairs)
    register(database, [of_split(pairs, Split.TRAIN)[0], of_split(pairs, Split.VAL)[0]])
    summary = build(database, recipe(), store, out, min_review=LOW)
    (warning,) = warnings_of(summary.manifest)
    assert "(bench: 2 exact" in warning
    assert overlaps_of(summary)["images_exact"] == 2
    assert "are in registered benchmarks too" in (out / "README.md").read_text()


def test_images_of_the_test_split_may_be_in_a_benchmark(
    database: Database, store: ImageStore, out: Path
) -> None:
    pairs = make_pairs(60)
    store_pairs(database, pairs)
    register(database, of_split(pairs, Split.TEST))
    summary = build(database, recipe(), store, out, min_review=LOW, release=True)
    assert warnings_of(summary.manifest) == []
    assert overlaps_of(summary)["benchmarks"] == 1


def test_a_release_with_images_of_a_benchmark_is_refused_unless_it_is_accepted(
    database: Database, store: ImageStore, out: Path
) -> None:
    pairs = make_pairs(60)
    store_pairs(database, pairs)
    register(database, of_split(pairs, Split.TRAIN)[:1])
    with pytest.raises(ConfigError, match="--accept-overlaps"):
        build(database, recipe(), store, out, min_review=LOW, release=True)
    assert not (out / "manifest.json").exists()
    build(database, recipe(), store, out, min_review=LOW, release=True, accept_overlaps=True)
    with pytest.raises(ConfigError, match="--accept-overlaps"):
        build(database, recipe(), store, out, min_review=LOW, release=True)
    assert build(database, recipe(), store, out, min_review=LOW).unchanged


def test_a_benchmark_that_is_registered_later_makes_the_set_anew(
    database: Database, store: ImageStore, out: Path
) -> None:
    pairs = make_pairs(60)
    store_pairs(database, pairs)
    assert warnings_of(build(database, recipe(), store, out, min_review=LOW).manifest) == []
    register(database, of_split(pairs, Split.TRAIN)[:1])
    summary = build(database, recipe(), store, out, min_review=LOW)
    assert not summary.unchanged
    assert len(warnings_of(summary.manifest)) == 1
    assert build(database, recipe(), store, out, min_review=LOW).unchanged


def test_a_recipe_may_leave_images_of_benchmarks_out(
    database: Database, store: ImageStore, out: Path
) -> None:
    pairs = make_pairs(60)
    store_pairs(database, pairs)
    images = of_split(pairs, Split.TRAIN)[:3]
    register(database, images)
    lenient = with_audit(on_overlap="leave_out")
    summary = build(database, lenient, store, out, min_review=LOW, release=True)
    kept = set(ShardSet.open(out).images().column("image_id").to_pylist())
    assert kept.isdisjoint(image.image_id for image in images)
    reasons = summary.manifest.left_out
    assert reasons["in a registered benchmark too"] >= 3
    assert len(kept) == 60 - reasons["in a registered benchmark too"]
    assert warnings_of(summary.manifest) == []


def test_a_recipe_may_stop_every_build_with_an_overlap_or_none(
    database: Database, store: ImageStore, out: Path
) -> None:
    pairs = make_pairs(60)
    store_pairs(database, pairs)
    register(database, of_split(pairs, Split.TRAIN)[:1])
    with pytest.raises(ConfigError, match="in registered benchmarks too"):
        build(database, with_audit(on_overlap="stop"), store, out, min_review=LOW)
    ignoring = with_audit(on_overlap="ignore")
    summary = build(database, ignoring, store, out, min_review=LOW, release=True)
    assert warnings_of(summary.manifest) == []
    assert overlaps_of(summary)["images_exact"] == 1
