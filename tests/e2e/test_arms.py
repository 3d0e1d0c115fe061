"""Several arms in one campaign: thumbnails and crops, shares, a sample, a control; read again."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.recipe import DEFAULT_RECIPE, Recipe, load_recipe
from core.settings import load_settings
from db.engine import open_database
from db.ledger import drafts
from db.work import campaign_id_of
from generation.campaign import prepare
from imaging.store import ImageStore
from teacher.faults import Faults
from teacher.loopback import serve
from teacher.rehearsal import load_rehearsal
from tests.e2e.batches import fill
from tests.e2e.project import Project, clean_environment, make_project
from workers.drafting import run_campaign

VIEWS = {"thumbnail": 96, "crops": 2, "crop_size": 64}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The demo, small, drafted and built by four arms."""
    made = make_project(tmp_path_factory.mktemp("arms"), crops=64)
    path = made.recipe / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    arm = recipe["drafting"]["arms"][0]
    recipe["drafting"]["arms"] = [
        {**arm, "name": "cut", "share": 3, "views": VIEWS},
        {**arm, "name": "whole", "share": 1},
        {**arm, "name": "plain", "mode": "vanilla", "sample": 10},
        {**arm, "name": "control", "control": True, "sample": 20},
    ]
    recipe["drafting"]["chain_arms"] = ["cut", "whole"]
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    done = made.build_instruct("--min-review", "draft")
    assert done.code == 0, done
    return made


def rows(project: Project, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(project.home / "fakescope.db") as database:
        return database.execute(query).fetchall()


def in_recipe(project: Project, command: str, *arguments: str) -> Any:
    done = project.run("generation", command, *arguments, "--recipe", project.recipe)
    assert done.code == 0, done
    return json.loads(done.out)


def test_every_image_has_a_draft_and_a_chain_of_one_of_the_sharing_arms(project: Project) -> None:
    drafted = Counter(arm for (arm,) in rows(project, "SELECT arm FROM drafts"))
    assert (drafted["plain"], drafted["control"]) == (10, 20)
    assert drafted["cut"] > drafted["whole"] > 0
    images = rows(project, "SELECT image_id FROM images ORDER BY image_id")
    chained = rows(project, "SELECT image_id, arm FROM chains ORDER BY image_id")
    assert [(image_id,) for image_id, _ in chained] == images
    assert {arm for _, arm in chained} == {"cut", "whole"}
    assert project.run("instruct_builder", "verify", project.shards).code == 0


def test_drafts_record_what_their_teacher_was_shown(project: Project) -> None:
    found = rows(project, "SELECT arm, seen, bytes_sent, exemplar_ids, uncovered FROM drafts")
    names = {arm: [view["name"] for view in json.loads(seen)] for arm, seen, *_ in found}
    assert names["cut"] == ["thumbnail", "crop", "crop"]
    assert names["whole"] == names["plain"] == names["control"] == ["whole"]
    for arm, seen, sent, exemplar_ids, uncovered in found:
        assert sent == sum(view["num_bytes"] for view in json.loads(seen))
        assert len(json.loads(exemplar_ids)) == (0 if arm == "plain" else 2)
        assert json.loads(uncovered) == []


def test_the_prompt_of_every_arm_is_printed(project: Project) -> None:
    ((image_id,),) = rows(project, "SELECT image_id FROM images WHERE label = 'real' LIMIT 1")
    printed = in_recipe(project, "prompt", image_id)
    assert list(printed) == ["cut", "whole", "plain", "control"]
    pictures = {
        arm: [part["type"] for part in request["messages"][1]["content"]].count("image_url")
        for arm, request in printed.items()
    }
    assert pictures == {"cut": 3, "whole": 1, "plain": 1, "control": 1}
    told = {arm: "Known authenticity: real" in json.dumps(r) for arm, r in printed.items()}
    assert told == {"cut": True, "whole": True, "plain": True, "control": False}
    assert list(in_recipe(project, "prompt", image_id, "--arm", "plain")) == ["plain"]


def test_the_arms_stand_side_by_side(project: Project) -> None:
    figures = {row["arm"]: row for row in in_recipe(project, "compare", "--json")}
    assert list(figures) == ["cut", "whole", "plain", "control"]
    assert (figures["plain"]["drafts"], figures["plain"]["mode"]) == (10, "vanilla")
    prompts = {arm: row["prompt_tokens_per_reply"] for arm, row in figures.items()}
    assert prompts["plain"] < prompts["whole"] < prompts["cut"]


def test_the_control_counts_photographs_alone(project: Project) -> None:
    (control,) = in_recipe(project, "control", "--json")
    assert (control["arm"], control["photographs"]) == ("control", 20)
    rate = control["called_fake"]
    assert rate["low"] <= rate["share"] == rate["count"] / 20 <= rate["high"]
    labels = rows(
        project, "SELECT DISTINCT label FROM work JOIN images USING (image_id) WHERE arm='control'"
    )
    assert labels == [("real",)]


def test_replies_are_read_again_without_a_call(project: Project) -> None:
    asked = len(project.teacher_requests())
    done = in_recipe(project, "reparse", "--json")
    num_drafts = rows(project, "SELECT count(*) FROM drafts")[0][0]
    assert done == {
        "unchanged": num_drafts,
        "superseded": 0,
        "unreadable": 0,
        "corrected": 0,
        "rescued": 0,
        "still_aside": 0,
        "outdated": 0,
    }
    assert len(project.teacher_requests()) == asked


def test_a_recipe_without_a_control_says_how_to_add_one(project: Project, tmp_path: Path) -> None:
    done = make_project(tmp_path, crops=64).run("generation", "control")
    assert done.code == 2, done
    assert "control: true" in done.err


def test_two_servers_that_know_a_model_of_one_name_share_no_replies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in set(os.environ) - set(clean_environment()):
        monkeypatch.delenv(name)
    monkeypatch.setenv("FAKESCOPE_HOME", str(tmp_path / "home"))
    rehearsal = load_rehearsal(DEFAULT_RECIPE)
    logs = {name: tmp_path / f"{name}.jsonl" for name in ("right", "wrong")}
    with (
        serve(rehearsal, log=logs["right"]) as right,
        serve(rehearsal, log=logs["wrong"], faults=Faults(rate_wrong_verdict=1)) as wrong,
    ):
        settings = load_settings()
        database, store = open_database(settings), ImageStore(settings.image_store)
        fill(database, store, tmp_path / "pictures", 4)
        recipe = with_servers(tmp_path / "recipe", {"right": right, "wrong": wrong})
        end = run_campaign(settings, database, recipe, prepare(database, store, recipe))
        with database.read() as session:
            drafted = {arm: len(list(drafts(session, campaign_id_of(recipe), arm))) for arm in logs}
        database.dispose()
    assert drafted == {"right": 4, "wrong": 0}
    assert end.quarantined == 4
    asked = {
        name: {json.loads(line)["request_hash"] for line in log.read_text().splitlines()}
        for name, log in logs.items()
    }
    assert len(asked["right"]) == 4
    assert asked["right"] < asked["wrong"], "the same requests, and those that ask again"


def with_servers(folder: Path, servers: dict[str, str]) -> Recipe:
    """The default recipe with an arm for each server; all ask for the same."""
    shutil.copytree(DEFAULT_RECIPE, folder)
    values = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    arm = values["drafting"]["arms"][0]
    values["drafting"]["arms"] = [
        {**arm, "name": name, "teacher": url} for name, url in servers.items()
    ]
    values["drafting"]["chain_arms"] = [next(iter(servers))]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return load_recipe(folder)
