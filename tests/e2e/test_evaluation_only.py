"""A benchmark whose owners forbid training on it: taken in, and no build trains on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.recipe import DEFAULT_RECIPE
from tests.e2e.project import Project
from tests.odd_files import encode, jpeg, picture


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(home=tmp_path / "home", recipe=DEFAULT_RECIPE)


def write_fakebench(root: Path) -> Path:
    """Four images that lie on disk as those of FakeBench do."""
    rows = []
    for number in range(2):
        fake, photo = f"sd-{number:05}.png", f"{number:012}.jpg"
        files = {
            f"fake_images/{fake}": encode(picture(number), "PNG"),
            f"real_images/{photo}": jpeg(9 + number),
        }
        for name, data in files.items():
            path = root / "FakeBench_images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        rows += [{"image_id": fake, "authenticity": 0}, {"image_id": photo, "authenticity": 1}]
    (root / "Evaluation").mkdir()
    (root / "Evaluation/FakeClass.json").write_text(json.dumps(rows))
    return root


def test_no_build_trains_on_fakebench(project: Project, tmp_path: Path) -> None:
    # given FakeBench, and nothing that says on the command line that it is for evaluation only
    folder = write_fakebench(tmp_path / "FakeBench")

    # when the main job runs on it, and when a build alone is asked for it
    job = project.build_instruct("--images", folder, "--source", "bench", "--min-review", "draft")
    build = project.run(
        "instruct_builder", "build", "--out", project.shards, "--source", "bench",
        "--min-review", "draft",
    )  # fmt: skip

    # then its images are there for evaluation, both are refused, and nothing is published
    assert "for evaluation only, no build will train on it" in job.out
    for done in (job, build):
        assert done.code == 2
        assert "source 'bench' may not be used for training" in done.err
    assert not (project.shards / "manifest.json").exists()
