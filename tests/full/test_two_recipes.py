"""Both recipes through the same commands: nothing but the folder differs."""

from __future__ import annotations

import json
import shutil
import sqlite3
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from core.recipe import RECIPES
from tests.e2e.project import Project

pytestmark = pytest.mark.full

CROPS = 96


@pytest.fixture(scope="module", params=["fakescope", "fakeclue"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A small demo, drafted, chained and built."""
    folder = tmp_path_factory.mktemp(request.param)
    recipe = shutil.copytree(RECIPES / request.param, folder / "recipe")
    path = recipe / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["demo"]["crops"] = CROPS
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    made = Project(home=folder / "home", recipe=recipe)
    done = made.build_instruct()
    assert done.code == 0, done
    return made


def rows(project: Project, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(project.home / "fakescope.db") as database:
        return database.execute(query).fetchall()


def ask(project: Project, *command: str) -> Any:
    done = project.run("generation", *command, "--json", "--recipe", project.recipe)
    assert done.code == 0, done
    return json.loads(done.out)


def trace(project: Project, image_id: str) -> Any:
    columns = ["instruction_id", "image_id"]
    tables = [pq.read_table(path, columns=columns) for path in project.shards.glob("rows-*")]
    rows = [row for table in tables for row in table.to_pylist()]
    ids = [row["instruction_id"] for row in rows if row["image_id"] == image_id]
    done = project.run("instruct_builder", "trace", ids[0], "--shards", project.shards, "--json")
    assert done.code == 0, done
    return json.loads(done.out)


def test_every_image_is_chained_and_the_set_verifies(project: Project) -> None:
    assert rows(project, "SELECT count(*) FROM chains") == [(CROPS,)]
    assert project.run("instruct_builder", "verify", project.shards).code == 0
    again = project.build_instruct()
    assert "nothing to do" in again.out, again


def test_status_compare_and_costs_know_every_arm(project: Project) -> None:
    recipe = yaml.safe_load((project.recipe / "recipe.yaml").read_text(encoding="utf-8"))
    arms = [arm["name"] for arm in recipe["drafting"]["arms"]]
    assert [row["arm"] for row in ask(project, "compare")] == arms
    assert [row["arm"] for row in ask(project, "costs")["arms"]] == arms
    assert sum(ask(project, "status")["chains"].values()) == CROPS
    assert project.run("generation", "compare", "--recipe", project.recipe).code == 0


def test_a_row_leads_to_its_replies_and_votes(project: Project) -> None:
    ((image_id,),) = rows(project, "SELECT image_id FROM chains ORDER BY chain_id LIMIT 1")
    found = trace(project, image_id)["lineage"]
    (chain,) = rows(project, f"SELECT merged_teachers FROM chains WHERE image_id = '{image_id}'")
    assert len(found["merged"]) == len(json.loads(chain[0]))
    assert len(found["merged_replies"]) == len(found["merged"])


def test_two_of_two_decide_where_a_teacher_refused(project: Project) -> None:
    refused = rows(project, "SELECT image_id, arm, reason FROM work WHERE state = 'quarantined'")
    for image_id, arm, reason in refused:
        assert "refused" in reason
        ((teachers,),) = rows(
            project, f"SELECT merged_teachers FROM chains WHERE image_id = '{image_id}'"
        )
        assert len(json.loads(teachers)) == 2
        assert trace(project, image_id)["lineage"]["set_aside"] == {arm: reason}
    manifest = json.loads((project.shards / "manifest.json").read_text(encoding="utf-8"))
    assert bool(refused) is (manifest["recipe"]["name"] == "fakeclue")
    assert manifest["simulated"] is True
