"""Builds from drawn chains, run as a user runs them, in many small shards."""

from __future__ import annotations

from pathlib import Path

import yaml

from benchmarks.drawn_chains import store_drawn_chains
from core.recipe import load_recipe
from core.settings import load_settings
from db.engine import open_database
from tests.e2e.project import Project, make_project


def project_of_chains(
    folder: Path, number: int, *, rows_per_shard: int, **environment: str
) -> Project:
    """A project whose database holds so many drawn chains."""
    project = make_project(folder, **environment)
    path = project.recipe / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["build"]["rows_per_shard"] = rows_per_shard
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    database = open_database(load_settings(fakescope_home=project.home))
    store_drawn_chains(database, load_recipe(project.recipe), number)
    database.dispose()
    return project


def build_command(project: Project, out: Path | str, *, rows: int, workers: int = 1) -> list[str]:
    """The arguments of one build, to a folder or an address."""
    return ["build", "--recipe", str(project.recipe), "--min-review", "draft", "--out", str(out),
            "--rows", str(rows), "--workers", str(workers)]  # fmt: skip
