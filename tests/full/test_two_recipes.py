"""Both recipes through the same commands: nothing but the folder differs."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
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


COMMANDS = [
    "generation audit --source demo --recipe RECIPE",
    "generation draft --plan --source demo --recipe RECIPE",
    "generation status --recipe RECIPE",
    "generation compare --recipe RECIPE",
    "generation costs --recipe RECIPE",
    "generation reparse --recipe RECIPE",
    "annotation status --recipe RECIPE",
    "annotation chain --recipe RECIPE",
    "annotation agreement --recipe RECIPE",
    "annotation quality --recipe RECIPE",
    "annotation export --recipe RECIPE --source demo --min-review draft --out HOME/fakechain",
    "instruct_builder inspect SHARDS",
    "instruct_builder verify SHARDS",
    "instruct_builder export SHARDS --format fakeclue --out HOME/fakeclue",
    "instruct_builder export SHARDS --format llava --out HOME/llava",
]


def rows(project: Project, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(project.home / "fakescope.db") as database:
        return database.execute(query).fetchall()


def ask(project: Project, *command: str) -> Any:
    done = project.run("generation", *command, "--json", "--recipe", project.recipe)
    assert done.code == 0, done
    return json.loads(done.out)


def shard_columns(project: Project, *columns: str) -> list[tuple[Any, ...]]:
    tables = [pq.read_table(path, columns=list(columns)) for path in project.shards.glob("rows-*")]
    return [tuple(row.values()) for table in tables for row in table.to_pylist()]


def trace(project: Project, image_id: str) -> Any:
    rows = shard_columns(project, "instruction_id", "image_id")
    ids = [name for name, shown in rows if shown == image_id]
    done = project.run("instruct_builder", "trace", ids[0], "--shards", project.shards, "--json")
    assert done.code == 0, done
    return json.loads(done.out)


def test_every_image_is_chained_and_the_set_verifies(project: Project) -> None:
    assert rows(project, "SELECT count(*) FROM chains") == [(CROPS,)]
    assert project.run("instruct_builder", "verify", project.shards).code == 0
    again = project.build_instruct()
    assert "nothing to do" in again.out, again


@pytest.mark.parametrize("command", COMMANDS)
def test_one_command_serves_both(project: Project, command: str) -> None:
    places = {"RECIPE": project.recipe, "SHARDS": project.shards, "HOME": project.home}
    for name, place in places.items():
        command = command.replace(name, str(place))
    done = project.run(*command.split())
    assert done.code == 0, done


def test_an_export_in_fakevlms_layout_is_read_back_whole(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "export"
    done = project.run(
        "instruct_builder", "export", project.shards, "--format", "fakeclue", "--out", out
    )
    assert done.code == 0, done
    records = [r for path in out.glob("data_json/*.json") for r in json.loads(path.read_text())]
    reader = Project(home=tmp_path / "home", recipe=project.recipe)
    done = reader.run("generation", "ingest", out, "--source", "again", "--json")
    assert done.code == 0, done
    found = rows(reader, "SELECT label, generator FROM images")
    wanted = {
        r["image"]: ("real" if r["label"] == 1 else "fake", r["generator"] or None) for r in records
    }
    assert sorted(found, key=str) == sorted(wanted.values(), key=str)


def test_wordings_have_the_shares_that_the_recipe_sets(project: Project) -> None:
    counted = Counter(form for (form,) in shard_columns(project, "form"))
    told = (project.recipe / "instructions").glob("*.yaml")
    forms = [yaml.safe_load(path.read_text(encoding="utf-8"))["forms"] for path in told]
    wanted = {
        name: form["rows"] * CROPS
        for some in forms
        for name, form in some.items()
        if form["scope"] == "image" and form.get("rows")
    }
    assert wanted
    assert {name: counted[name] for name in wanted} == wanted


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
