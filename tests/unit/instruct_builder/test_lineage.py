"""From a row back to its image file, and what is said where something is not known."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from core.ids import image_id_of, sha256_bytes
from core.records import AnnotationFate, ReviewLevel, TaskKind, TraceOutcome
from core.settings import load_settings
from db.chains import newest_chains, save_chains
from db.engine import Database, open_database
from db.ledger import drafts
from db.reviews import save_correction
from db.studio import (
    AnnotationVersion,
    StudioProject,
    StudioTask,
    save_project,
    save_tasks,
    save_version,
    set_task_ids,
)
from db.tombstones import withdraw
from db.work import campaign_id_of
from imaging.store import ImageStore
from instruct_builder.__main__ import app
from instruct_builder.build import build
from instruct_builder.lineage import Trace, as_text, trace
from instruct_builder.shards import ShardSet
from tests.campaigns import make_chain
from tests.unit.instruct_builder.exports import with_general_row
from tests.unit.instruct_builder.specimens import Pair, make_pairs, recipe
from tests.unit.instruct_builder.stored import store_pairs
from tests.unit.records import make_correction, make_tombstone

PICTURE = b"the bytes of a picture"


@pytest.fixture
def folder(database: Database, store: ImageStore, tmp_path: Path) -> Path:
    """A set with one image whose file is there, and whose chain was checked by an expert."""
    (chain, image), *others = make_pairs(12)
    digest = sha256_bytes(PICTURE)
    image = replace(
        image, image_id=image_id_of(digest), sha256=digest, path=store.add(PICTURE, ".jpg")
    )
    pairs: list[Pair] = [(replace(chain, image_id=image.image_id), image), *others]
    store_pairs(database, pairs)
    campaign_id = campaign_id_of(recipe())
    with database.write() as session:
        (draft,) = drafts(session, campaign_id, "main", image_ids=[image.image_id])
        outcomes = tuple(TraceOutcome.EDITED for _ in draft.reasoning.findings)
        correction = make_correction(
            draft, "expert-1", outcomes=outcomes, reasoning=draft.reasoning
        )
        save_correction(session, correction)
        ids = (correction.correction_id,)
        save_chains(
            session, [make_chain(draft, review_level=ReviewLevel.EXPERT, correction_ids=ids)]
        )
    build(database, recipe(), store, tmp_path / "set", min_review=ReviewLevel.DRAFT)
    return tmp_path / "set"


def row_of_expert(folder: Path, **wanted: Any) -> dict[str, Any]:
    rows = [row for rows in ShardSet.open(folder).rows() for row in rows.to_pylist()]
    chosen = {"review_level": "expert", **wanted}
    return next(row for row in rows if all(row[name] == value for name, value in chosen.items()))


def shown(found: Trace) -> str:
    return "\n".join(as_text(found))


def test_a_row_is_followed_back_to_its_file(
    database: Database, store: ImageStore, folder: Path
) -> None:
    row = row_of_expert(folder)
    found = trace(row["instruction_id"], folder, database, store)
    assert found.row == row
    assert found.missing == ()
    assert found.file_state == "there"
    lineage = found.lineage
    assert lineage is not None
    assert lineage.chain is not None and lineage.chain.chain_id == row["chain_id"]
    assert [correction.expert for correction in lineage.corrections] == ["expert-1"]
    assert lineage.draft is not None and lineage.attempt is not None
    assert lineage.draft.attempt_id == lineage.attempt.attempt_id
    assert lineage.recipe == recipe().name
    assert len(found.patterns) == len(row["messages"])


def test_it_fits_on_one_screen_and_names_each_step(
    database: Database, store: ImageStore, folder: Path
) -> None:
    for row in (row_of_expert(folder), row_of_expert(folder, family="holistic")):
        lines = shown(trace(row["instruction_id"], folder, database, store)).splitlines()
        assert len(lines) <= 50
        heads = [line.split()[0] for line in lines if not line.startswith(" ")]
        for step in ("pattern", "chain", "correction", "draft", "prompt", "attempt", "image"):
            assert step in heads


def test_a_correction_is_followed_to_the_annotation_that_it_was(
    database: Database, store: ImageStore, folder: Path
) -> None:
    row = row_of_expert(folder)
    known = trace(row["instruction_id"], folder, database, store).lineage
    assert known is not None and known.draft is not None and known.given_in == {}
    (correction,) = known.corrections
    project = StudioProject(
        project_key="a-project", server="own", campaign_id=known.draft.campaign_id,
        form_id="form", kind=TaskKind.REVIEW, number=1, project_id=4,
    )  # fmt: skip
    task = StudioTask(
        task_key="a-task", project_key="a-project", subject_id=known.draft.draft_id,
        image_id=row["image_id"], task_id=5,
    )  # fmt: skip
    version = AnnotationVersion(
        version_id="a-version", task_key="a-task", annotation_id=6, number=2,
        fate=AnnotationFate.COUNTED, record_id=correction.correction_id, raw="{}",
    )  # fmt: skip
    with database.write() as session:
        save_project(session, project)
        save_tasks(session, [task])
        save_version(session, version)
    line = "annotation 6, version 2, of task 5 in project 4, Label Studio own"
    assert line in shown(trace(row["instruction_id"], folder, database, store))
    with database.write() as session:
        set_task_ids(session, {"a-task": None})
    line = "annotation 6, version 2, of a task that is gone in project 4, Label Studio own"
    assert line in shown(trace(row["instruction_id"], folder, database, store))


def test_without_a_database_set_and_store_tell_what_they_know(
    store: ImageStore, folder: Path
) -> None:
    row = row_of_expert(folder)
    found = trace(row["instruction_id"], folder, ConfigError("no server answers"), store)
    assert found.lineage is None
    assert found.missing == ("everything before the chain: no server answers",)
    assert f"image {row['image_id']}" in shown(found)


def test_a_row_about_no_image_has_nothing_behind_it(
    database: Database, store: ImageStore, folder: Path, tmp_path: Path
) -> None:
    mixed = tmp_path / "mixed"
    with_general_row(mixed, ShardSet.open(folder))
    found = trace("ins-general", mixed, database, store)
    assert (found.lineage, found.file_state) == (None, "none")
    assert "missing: a chain: the row is of the general instruction set" in shown(found)
    assert "image None" not in shown(found)


def test_a_set_of_another_database_says_so(store: ImageStore, folder: Path, tmp_path: Path) -> None:
    other = open_database(load_settings(fakescope_home=tmp_path / "other"))
    found = trace(row_of_expert(folder)["instruction_id"], folder, other, store)
    other.dispose()
    assert [what.split()[0] for what in found.missing] == ["image", "chain"]


def test_a_lost_or_changed_file_and_a_lost_recipe_are_named(
    database: Database, store: ImageStore, folder: Path
) -> None:
    row = row_of_expert(folder)
    store.path(row["image_path"]).write_bytes(b"something else")
    (folder / "recipe.json").unlink()
    found = trace(row["instruction_id"], folder, database, store)
    assert found.file_state == "CHANGED: another SHA-256"
    assert "recipe.json of the set cannot tell (No such file" in found.missing[0]
    store.remove(row["image_sha256"])
    assert trace(row["instruction_id"], folder, database, store).file_state == (
        "not in the image store"
    )


def test_a_superseded_chain_and_a_withdrawn_image_are_marked(
    database: Database, store: ImageStore, folder: Path
) -> None:
    row = row_of_expert(folder)
    campaign_id = campaign_id_of(recipe())
    with database.write() as session:
        chains = newest_chains(
            session, campaign_id=campaign_id, arms=["main"], min_review=ReviewLevel.EXPERT
        )
        ((chain, image),) = list(chains)
        save_chains(session, [replace(chain, chain_id="chain-newer", correction_ids=())])
    withdraw(database, make_tombstone(image, reason="bad\x1b[2J"))
    text = shown(trace(row["instruction_id"], folder, database, store))
    assert "superseded by chain-newer" in text
    assert r"WITHDRAWN on 2026-03-01: bad\u001b[2J" in text
    assert "\x1b" not in text


def test_the_command_says_it_as_json_too(database: Database, folder: Path) -> None:
    row = row_of_expert(folder)
    command = ["trace", row["instruction_id"], "--shards", str(folder)]
    done = CliRunner().invoke(app, [*command, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert told["row"]["chain_id"] == told["lineage"]["chain"]["chain_id"]
    assert told["lineage"]["corrections"][0]["expert"] == "expert-1"
    text = CliRunner().invoke(app, command).output
    assert text.startswith(row["instruction_id"])


def test_an_unknown_instruction_is_one_clear_line(folder: Path) -> None:
    done = CliRunner().invoke(app, ["trace", "ins-none", "--shards", str(folder)])
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"error: {folder} holds no instruction ins-none\n"


def test_a_database_that_is_not_there_is_not_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKESCOPE_HOME", str(tmp_path / "elsewhere"))
    row = row_of_expert(folder)
    done = CliRunner().invoke(app, ["trace", row["instruction_id"], "--shards", str(folder)])
    assert done.exit_code == 0, done.output
    assert "missing: everything before the chain: database" in done.output
    assert not (tmp_path / "elsewhere").exists()


def test_the_patterns_of_any_kind_of_row_are_those_that_made_it(
    database: Database, store: ImageStore, folder: Path
) -> None:
    rows = [row for rows in ShardSet.open(folder).rows() for row in rows.to_pylist()]
    kinds = {row["form"]: row for row in rows}.values()
    assert {len(row["messages"]) for row in kinds} >= {2, 4, 8}
    without_slots = 0
    for row in kinds:
        patterns = trace(row["instruction_id"], folder, database, store).patterns
        for pattern, turn in zip(patterns, row["messages"], strict=True):
            literals = re.split(r"\{\w+\}", pattern)
            assert re.fullmatch(".*".join(map(re.escape, literals)), turn["content"], re.DOTALL)
            without_slots += len(literals) == 1
    assert without_slots > len(kinds), "most are the very text"
