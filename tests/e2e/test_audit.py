"""The audit on real files: found where planted, a warning in a build, a stop in a release."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.e2e.project import Finished, Project, make_project, shard_bytes

EACH = 24


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("audit"), crops=64)


@pytest.fixture(scope="module")
def first_build(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = draw_with_shortcut(tmp_path_factory.mktemp("images"))
    return project.build_instruct("--images", folder, "--source", "own", "--min-review", "draft")


def draw_with_shortcut(folder: Path) -> Path:
    """Photographs as JPEG, fakes as PNG: the format alone tells."""
    for place, ending in (("real", "jpg"), ("fake/some-generator", "png")):
        (folder / place).mkdir(parents=True)
        for number in range(EACH):
            noise = Image.effect_noise((24, 24), 90).resize((96, 96)).convert("RGB")
            noise.save(folder / place / f"{number}.{ending}")
    return folder


def build(project: Project, *options: object) -> Finished:
    command = ("build", "--out", project.shards, "--min-review", "draft", "--source", "own")
    return project.run("instruct_builder", *command, "--recipe", project.recipe, *options)


def test_the_main_job_warns_and_goes_on(project: Project, first_build: Finished) -> None:
    assert first_build.code == 0, first_build
    assert "warning: metadata alone tells photographs from fakes" in first_build.out
    figures = json.loads((project.shards / "manifest.json").read_text())["checks"]["shortcuts"]
    assert figures["figures"]["low"] > 0.6
    assert "Warning: metadata alone" in (project.shards / "README.md").read_text()


def test_the_audit_names_the_telling_feature(project: Project, first_build: Finished) -> None:
    done = project.run("generation", "audit", "--source", "own", "--json")
    assert done.code == 0, done
    found = json.loads(done.out)
    assert found["metadata"]["low"] > 0.6
    assert "most of all format" in found["warning"]
    assert (project.home / "audit" / "audit.json").read_text() == done.out
    assert "Shortcut." in (project.home / "audit" / "audit.html").read_text()


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
