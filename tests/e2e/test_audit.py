"""The audit on real files: shortcuts and images of benchmarks are found where they were planted.

A build warns of them, a release stops, and normalised images have the shortcut no longer.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.e2e.project import Finished, Project, make_project, shard_bytes

EACH = 24


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("audit"), crops=64)


@pytest.fixture(scope="module")
def first_build(project: Project) -> Finished:
    folder = draw_with_shortcut(project.home.parent / "images")
    return project.build_instruct("--images", folder, "--source", "own")


def draw_with_shortcut(folder: Path) -> Path:
    """Photographs as JPEG of 96 x 96, fakes as PNG of 128 x 96: format and size alone tell."""
    chance = np.random.default_rng(1)
    for place, ending, width in (("real", "jpg", 96), ("fake/some-generator", "png", 128)):
        (folder / place).mkdir(parents=True)
        for number in range(EACH):
            patches = chance.integers(0, 256, (12, 16, 3), dtype=np.uint8)
            picture = Image.fromarray(patches).resize((width, 96))
            picture.save(folder / place / f"{number}.{ending}")
    return folder


def build(project: Project, *options: object, out: Path | None = None) -> Finished:
    place = out or project.shards
    command = ("build", "--out", place, "--min-review", "draft", "--source", "own")
    return project.run("instruct_builder", *command, "--recipe", project.recipe, *options)


def audit(project: Project, source: str) -> Any:
    done = project.run("generation", "audit", "--source", source, "--json")
    assert done.code == 0, done
    return json.loads(done.out)


def test_the_main_job_warns_and_goes_on(project: Project, first_build: Finished) -> None:
    assert first_build.code == 0, first_build
    assert "simulated teacher, no expert\nwarning: no expert has looked" in first_build.out
    assert "warning: metadata alone tells photographs from fakes" in first_build.out
    figures = json.loads((project.shards / "manifest.json").read_text())["checks"]["shortcuts"]
    assert figures["figures"]["low"] > 0.6
    assert "Warning: metadata alone" in (project.shards / "README.md").read_text()


def test_the_audit_names_the_telling_feature(project: Project, first_build: Finished) -> None:
    found = audit(project, "own")
    assert found["metadata"]["low"] > 0.6
    (warning,) = found["warnings"]
    assert "most of all format" in warning
    assert json.loads((project.home / "audit" / "audit.json").read_text()) == found
    assert "What to do about the shortcut" in (project.home / "audit" / "audit.html").read_text()


def test_a_release_stops_unless_the_shortcut_is_accepted(
    project: Project, first_build: Finished
) -> None:
    before = shard_bytes(project.shards)
    refused = build(project, "--release")
    assert refused.code == 2, refused
    assert "--accept-shortcuts" in refused.err
    accepted = build(project, "--release", "--accept-shortcuts")
    assert accepted.code == 0, accepted
    assert "nothing to do" in accepted.out
    assert shard_bytes(project.shards) == before


def test_an_unknown_source_is_named(project: Project, first_build: Finished) -> None:
    done = project.run("generation", "audit", "--source", "nowhere")
    assert done.code == 2, done
    assert "nowhere" in done.err


@pytest.mark.full
def test_normalised_images_have_the_shortcut_no_longer(
    project: Project, first_build: Finished
) -> None:
    done = project.run("generation", "normalise", "own", "--recipe", project.recipe)
    assert done.code == 0, done
    assert "own-normalised" in done.out
    found = audit(project, "own-normalised")
    assert (found["real"], found["fake"], found["warnings"]) == (EACH, EACH, [])
    assert found["metadata"]["low"] <= 0.5
    alone = found["metadata"]["alone"]
    for feature in ("format", "chroma subsampling", "aspect", "pixels", "width", "height"):
        assert alone[feature] == 0.5
    assert audit(project, "own")["metadata"]["low"] > 0.6


@pytest.mark.full
def test_the_main_job_works_on_normalised_images(project: Project, first_build: Finished) -> None:
    shards = project.home.parent / "normalised"
    options = ("--source", "own", "--normalise", "--min-review", "draft", "--out", shards)
    done = project.build_instruct(*options)
    assert done.code == 0, done
    manifest = json.loads((shards / "manifest.json").read_text())
    assert [source["name"] for source in manifest["sources"]] == ["own-normalised"]
    assert "warning" not in manifest["checks"]["shortcuts"]["figures"]
    assert "nothing to do" in project.build_instruct(*options).out


@pytest.mark.full
def test_images_of_a_benchmark_are_found_and_stop_a_release(
    project: Project, first_build: Finished, tmp_path: Path
) -> None:
    own, bench = project.home.parent / "images", tmp_path / "bench"
    project = Project(home=shutil.copytree(project.home, tmp_path / "home"), recipe=project.recipe)
    (bench / "real").mkdir(parents=True)
    (bench / "fake" / "some-generator").mkdir(parents=True)
    for number in range(8):
        shutil.copy(own / "real" / f"{number}.jpg", bench / "real")
        again = Image.open(own / "fake" / "some-generator" / f"{number}.png")
        again.save(bench / "fake" / "some-generator" / f"{number}.jpg", quality=70)
    for command in (
        ("normalise", "own", "--recipe", project.recipe),
        ("ingest", bench, "--source", "bench", "--evaluation-only"),
    ):
        done = project.run("generation", *command)
        assert done.code == 0, done

    found = audit(project, "own")
    (benchmark,) = found["benchmarks"]
    assert benchmark == {"name": "bench", "images": 16, "overlaps": {"exact": 8, "near": 8}}
    exact = [each for each in found["overlaps"] if each["kinship"] == "exact"]
    assert all(each["image_id"] == each["other"] for each in exact)
    crops = audit(project, "own-normalised")
    assert {each["kinship"] for each in crops["overlaps"]} >= {"by group"}
    assert len({each["image_id"] for each in crops["overlaps"]}) == 16

    out = tmp_path / "with-overlaps"
    refused = build(project, "--release", "--accept-shortcuts", out=out)
    assert refused.code == 2, refused
    assert "--accept-overlaps" in refused.err
    assert not out.exists() or not (out / "manifest.json").exists()
    warned = build(project, out=out)
    assert warned.code == 0, warned
    figures = json.loads((out / "manifest.json").read_text())["checks"]["overlaps"]["figures"]
    assert figures["images_exact"] > 0
    assert figures["images_near"] > 0
    assert "in registered benchmarks too" in (out / "README.md").read_text()
