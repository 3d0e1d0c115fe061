"""Experts correct what three teachers voted on, in a real Label Studio, and it is told everywhere.

Of all drafts that are pushed one is corrected: its first trace is rejected, and a point that the
votes had dropped is added. Every other chain stays a draft at which no human looked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from playwright.sync_api import expect

from annotation.desk import Desk
from annotation.server import INSTALL, OWN, is_installed, own_server
from annotation.studio import Studio
from core.consensus import Vote, votes_behind
from core.recipe import RECIPES
from core.records import Draft, ReviewLevel, TaskKind
from db.images import images_by_id
from db.ledger import drafts as drafts_of
from db.studio import drafts_by_id
from instruct_builder.shards import ShardSet
from tests.brokers import skip_or_fail
from tests.dashboards import Viewer, running_browser, running_dashboard
from tests.e2e.project import Finished, Project
from tests.label_studio import Account, Server, Workplace, answer, desk_of, sign_up

pytestmark = pytest.mark.full

CROPS = 96
ARMS = ["first", "second", "third"]
SEEN = "A seam of the kind qwrtz runs through the picture."
LEFT = "It is judged by what is left of the traces."


@dataclass(frozen=True)
class Panel:
    """The project after the correction, and the draft that was corrected."""

    project: Project
    work: Workplace
    corrected: Draft
    votes: tuple[Vote, ...]
    """behind it"""
    added: Vote
    """the dropped one that the expert adds"""
    task_id: int

    @property
    def rejected(self) -> Vote:
        first = self.corrected.reasoning.findings[0]
        return next(v for v in self.votes if v.point == (first.category, first.points_to))

    def run(self, module: str, *arguments: object) -> Finished:
        done = self.project.run(module, *arguments, timeout=1200)
        assert done.code == 0, done
        return done

    def in_recipe(self, module: str, command: str, *arguments: object) -> Any:
        recipe = ("--recipe", self.project.recipe)
        return json.loads(self.run(module, command, *recipe, *arguments, "--json").out)

    def rows(self) -> list[dict[str, Any]]:
        tables = ShardSet.open(self.project.shards).rows()
        return [row for table in tables for row in table.to_pylist()]

    def trace(self, image_id: str, *options: str) -> str:
        name = next(r["instruction_id"] for r in self.rows() if r["image_id"] == image_id)
        shards = ("--shards", self.project.shards)
        return self.run("instruct_builder", "trace", name, *shards, *options).out


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Panel]:
    """All steps up to the shards that the correction has changed."""
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    project = make_project(tmp_path_factory.mktemp("panel"))
    done = project.build_instruct()
    assert done.code == 0, done
    with own_server(project.home) as access, Studio(access.url, access.api_key, server=OWN) as edge:
        server = Server(access.url, access.token)
        made = push_and_choose(project, server, edge)
        correct(made, sign_up(server))
        done = project.build_instruct("--min-review", "draft")
        assert done.code == 0, done
        yield made
        made.work.desk.database.dispose()


def make_project(folder: Path) -> Project:
    recipe = shutil.copytree(RECIPES / "fakeclue", folder / "recipe")
    path = recipe / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["demo"]["crops"] = CROPS
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return Project(home=folder / "home", recipe=recipe)


def push_and_choose(project: Project, server: Server, studio: Studio) -> Panel:
    """Push every merged draft; choose one of three voices, with points both kept and dropped."""
    desk = desk_of(project.home, studio, project.recipe)
    arguments = ("--recipe", project.recipe, "--source", "demo", "--json")
    pushed = json.loads(project.run("annotation", "push", *arguments).out)
    assert (pushed["made"], pushed["refused"]) == (CROPS, {})
    with desk.database.read() as session:
        merged = list(drafts_of(session, desk.campaign_id, "consensus"))
        labels = {
            image_id: image.label
            for image_id, image in images_by_id(session, [d.image_id for d in merged]).items()
        }
    work = Workplace(project.home, server, desk, merged)
    tasks = dict(work.tasks_of(TaskKind.REVIEW))
    assert set(tasks) == {draft.draft_id for draft in merged}
    for draft in merged:
        votes = votes_of(desk, draft)
        dropped = [v for v in votes if not v.is_kept and v.points_to is labels[draft.image_id]]
        if len(draft.merged) == len(ARMS) and len(draft.reasoning.findings) > 1 and dropped:
            task_id = tasks[draft.draft_id]["id"]
            return Panel(project, work, draft, votes, dropped[0], task_id)
    raise AssertionError("no draft of three voices has two points kept and one dropped")


def votes_of(desk: Desk, draft: Draft) -> tuple[Vote, ...]:
    with desk.database.read() as session:
        voters = drafts_by_id(session, draft.merged)
    return votes_behind(draft, [voters[name] for name in draft.merged])


def correct(panel: Panel, expert: Account) -> None:
    task = dict(panel.work.tasks_of(TaskKind.REVIEW))[panel.corrected.draft_id]
    assert len(task["data"]["traces"]) == len(panel.corrected.reasoning.findings)
    answer(
        panel.work,
        expert,
        task,
        verdict_0=["reject"],
        added_category_1=[panel.added.category],
        added_text_1=[SEEN],
        conclusion=[LEFT],
    )
    assert panel.in_recipe("annotation", "pull")["new"] == {"counted": 1}


def test_one_chain_is_reviewed_and_the_others_are_drafts(panel: Panel) -> None:
    found = panel.in_recipe("annotation", "chain")
    assert found["new_chains"] == 0, "the build has made it"
    assert found["by_level"] == {ReviewLevel.DRAFT: CROPS - 1, ReviewLevel.EXPERT: 1}
    levels = {row["image_id"]: row["review_level"] for row in panel.rows()}
    reviewed = {image_id for image_id, level in levels.items() if level != ReviewLevel.DRAFT}
    assert reviewed <= {panel.corrected.image_id}
    manifest = json.loads((panel.project.shards / "manifest.json").read_text(encoding="utf-8"))
    votes = "3 simulated teachers whose votes were counted"
    assert manifest["statement"] == f"{votes}, some chains checked by experts"


def test_a_row_of_the_corrected_image_shows_replies_votes_and_the_correction(panel: Panel) -> None:
    found = json.loads(panel.trace(panel.corrected.image_id, "--json"))["lineage"]
    assert [draft["arm"] for draft in found["merged"]] == ARMS
    replies = found["merged_replies"]
    assert {draft["attempt_id"] for draft in found["merged"]} == set(replies)
    assert all(json.loads(reply["raw"])["choices"] for reply in replies.values())
    (correction,) = found["corrections"]
    assert correction["outcomes"][0] == "rejected"
    assert found["given_in"][correction["correction_id"]]["task_id"] == panel.task_id
    said = {
        finding["category"]: finding["evidence"]
        for finding in found["chain"]["reasoning"]["findings"]
    }
    assert said[panel.added.category] == SEEN

    lines = panel.trace(panel.corrected.image_id).splitlines()
    assert any(f"of task {panel.task_id} in project" in line for line in lines)
    assert "votes of 3 drafts, counted by a program" in lines
    for vote in (panel.rejected, panel.added):
        begins = f"  {vote.category} ({vote.points_to}): {', '.join(vote.arms)}"
        (line,) = [line for line in lines if line.startswith(begins)]
        ruled = "kept, denied by" if vote.is_kept else "dropped, upheld by"
        assert f"; {ruled} {correction['expert']}" in line
    for arm in ARMS:
        (line,) = [line for line in lines if line.startswith(f"arm {arm}: draft-")]
        assert line.endswith("characters stored")
    assert not [line for line in lines if "no human looked" in line]


def test_other_rows_say_that_three_models_and_no_human_looked(panel: Panel) -> None:
    uncorrected = (draft for draft in panel.work.drafts if draft != panel.corrected)
    heard = next(draft for draft in uncorrected if len(draft.merged) == len(ARMS))
    assert "no correction: 3 teachers voted, and no human looked" in panel.trace(heard.image_id)


def test_votes_stand_beside_the_experts_verdict(panel: Panel) -> None:
    (counted,) = [row["panel"] for row in panel.in_recipe("generation", "compare") if row["panel"]]
    kept = [vote for vote in panel.votes if vote.is_kept]
    upheld = [vote for vote in kept if vote != panel.rejected] + [panel.added]
    assert counted["checked"] == 1
    for arm in ARMS:
        voter = counted["voters"][arm]
        assert voter["upheld"] == sum(arm in vote.arms for vote in upheld)
        assert voter["denied"] == (arm in panel.rejected.arms)
    assert counted["points"][panel.rejected.category]["denied"] == 1
    assert counted["points"][panel.added.category]["upheld"] >= 1
    recipe = ("--recipe", panel.project.recipe)
    assert "checked by experts: 1" in panel.run("generation", "compare", *recipe).out


def test_the_dashboard_shows_votes_beside_the_correction(panel: Panel, tmp_path: Path) -> None:
    with running_browser() as browser, running_dashboard(panel.project.home) as address:
        viewer = Viewer.with_browser(browser, address, tmp_path)
        viewer.look_at(f"drafts?draft={panel.corrected.draft_id}&arm=consensus", "votes")
        assert "3 drafts, whose votes a program has counted" in viewer.text()
        expect(viewer.page.get_by_label("Table: votes").first).to_be_visible()
        assert SEEN in viewer.text()
        assert not viewer.complaints


def test_the_exported_chains_say_who_looked(panel: Panel) -> None:
    out = panel.project.home / "fakechain"
    panel.in_recipe(
        "annotation", "export", "--out", out, "--min-review", "draft", "--source", "demo"
    )
    (file,) = out.glob("fakechain-*.parquet")
    rows = {row["image_id"]: row for row in pq.read_table(file).to_pylist()}
    mine = rows.pop(panel.corrected.image_id)
    assert (mine["review_level"], len(mine["corrections"])) == (ReviewLevel.EXPERT, 1)
    assert len(mine["merged_teachers"]) == len(ARMS)
    assert {row["review_level"] for row in rows.values()} == {ReviewLevel.DRAFT}
    assert not [row for row in rows.values() if row["corrections"]]
    card = (out / "README.md").read_text(encoding="utf-8")
    assert f"At {CROPS - 1} of these records no human has looked: up to 3 teachers voted" in card
