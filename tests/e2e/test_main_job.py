"""`make build-instruct`, small: from nothing to verified shards, then nothing twice."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tests.e2e.project import Project, make_project, shard_bytes


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return make_project(tmp_path_factory.mktemp("main-job"))


@pytest.fixture(scope="module")
def first_run(project: Project) -> str:
    done = project.build_instruct()
    assert done.code == 0, done
    return done.out


def test_the_summary_counts_everything_and_says_what_is_simulated(first_run: str) -> None:
    for word in ("images", "drafts", "chains", "instructions", "seconds", "simulated"):
        assert word in first_run
    for family in ("verdict", "holistic", "fine_grained", "discussion"):
        assert family in first_run
    assert "fakes with no trace" in first_run
    assert "photographs with a trace" in first_run


def test_every_image_of_the_demo_has_one_draft_and_one_chain(
    project: Project, first_run: str
) -> None:
    with sqlite3.connect(project.home / "fakescope.db") as database:
        counts = [
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("images", "drafts", "chains")
        ]
    assert counts == [160, 160, 160]


def test_the_shards_verify_and_carry_a_preview(project: Project, first_run: str) -> None:
    assert project.run("instruct_builder", "verify", project.shards).code == 0
    preview = (project.shards / "preview.html").read_text(encoding="utf-8")
    assert "simulated teacher, no expert" in preview
    assert "http://" not in preview.replace("http://www.w3.org", "")
    assert preview.count("data:image/") == 24


def test_a_second_run_does_nothing_twice_and_says_so(project: Project, first_run: str) -> None:
    before, asked = shard_bytes(project.shards), len(project.teacher_requests())
    done = project.build_instruct()
    assert done.code == 0, done
    assert "nothing to do" in done.out
    assert shard_bytes(project.shards) == before
    assert len(project.teacher_requests()) == asked


@pytest.mark.full
def test_the_demo_is_left_out_once_other_images_are_there(
    project: Project, first_run: str, tmp_path: Path
) -> None:
    folder = draw_labelled_folder(tmp_path / "own images")
    done = project.build_instruct(
        "--images", folder, "--source", "own", "--min-review", "draft", "--out", tmp_path / "own"
    )
    assert done.code == 0, done
    manifest = (tmp_path / "own" / "manifest.json").read_text(encoding="utf-8")
    assert '"demo"' not in manifest
    again = project.build_instruct("--source", "demo", "--min-review", "draft")
    assert again.code == 0, again
    assert "nothing to do" in again.out


def draw_labelled_folder(folder: Path) -> Path:
    """Ten photographs and ten simulated fakes of them, in real/ and fake/<generator>/."""
    from imaging.simulate import GENERATORS, demo_images

    images = demo_images(
        seed=7,
        crops=320,
        crop_size=96,
        generators=list(GENERATORS),
        jpeg_quality=(90, 90),
        holdout=(),
        test_photographs=frozenset(),
    )
    for image in list(images)[:20]:
        place = folder / (f"fake/{image.generator}" if image.generator else "real")
        place.mkdir(parents=True, exist_ok=True)
        (place / image.name).write_bytes(image.data)
    return folder
