"""A shard set does not tell whether its drafts came in batches or one by one."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.records import Authenticity
from tests.e2e.project import Project, make_project, shard_bytes
from tests.unit.teacher.scripted import draw_jpeg


@pytest.mark.full
def test_batches_and_single_calls_lead_to_the_same_bytes(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    for number in range(16):
        path = pictures / list(Authenticity)[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_jpeg(number))
    project = make_project(tmp_path)
    online = build(project, tmp_path / "online", pictures)
    in_batches = build(project, tmp_path / "batches", pictures, "--batch", "--wait")
    assert any(name.startswith("rows-") for name in online)
    assert in_batches == online


def build(project: Project, home: Path, pictures: Path, *options: str) -> dict[str, bytes]:
    """Ingest, draft, chain and build in a home of its own; returns the shard set."""
    project.home = home
    recipe = ("--recipe", project.recipe)
    shards = home / "shards"
    for command in (
        ("generation", "ingest", pictures, "--source", "noise", "--licence", "CC0-1.0"),
        ("generation", "draft", *options, *recipe),
        ("annotation", "chain", *recipe),
        ("instruct_builder", "build", "--out", shards, "--min-review", "draft", *recipe),
    ):
        done = project.run(*command)
        assert done.code == 0, done
    return shard_bytes(shards)
