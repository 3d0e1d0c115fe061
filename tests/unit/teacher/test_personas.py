"""Rehearsal teachers that differ, name topics and word votes: all by stated rules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError, DataError
from core.recipe import RECIPES, load_recipe
from core.records import Authenticity, TeacherRequest
from generation.prompt import reply_schema
from teacher.conclusions import told_label
from teacher.personas import Persona
from teacher.rehearsal import MERGED, load_rehearsal
from teacher.request import schema_text
from tests.unit.teacher.scripted import make_request
from tests.unit.teacher.test_rehearsal import LATTICE, PHOTOGRAPH, about

FOLDER = RECIPES / "fakeclue"
RECIPE = load_recipe(FOLDER)
REHEARSAL = load_rehearsal(FOLDER)
HUMAN = next(topic for topic in RECIPE.topics if topic.id == "human")
TAXONOMY = HUMAN.taxonomy(RECIPE.taxonomy, Authenticity.FAKE)
SCHEMA = schema_text(reply_schema(TAXONOMY, glaring=True))


def said(request: TeacherRequest) -> dict[str, Any]:
    completion = REHEARSAL.complete(request)
    assert completion["model"] == request.model
    parsed: dict[str, Any] = json.loads(completion["choices"][0]["message"]["content"])
    return parsed


def inspect(image: bytes, model: str) -> dict[str, Any]:
    return said(about(image, model=model, reply_schema=SCHEMA))


def test_three_teachers_see_the_same_image_differently() -> None:
    seen = {
        model: {finding["category"] for finding in inspect(LATTICE, model)["findings"]}
        for model in ("rehearsal-careful", "rehearsal-coarse")
    }
    assert seen["rehearsal-careful"] != seen["rehearsal-coarse"]
    assert seen["rehearsal-careful"] & seen["rehearsal-coarse"]


def test_only_the_points_of_the_topic_are_named() -> None:
    findings = inspect(LATTICE, "rehearsal-careful")["findings"]
    assert findings and {finding["category"] for finding in findings} <= set(TAXONOMY.ids)
    assert all(isinstance(finding["glaring"], bool) for finding in findings)


def test_a_teacher_refuses_the_same_images_every_time() -> None:
    persona = Persona(refuses=0.1)
    refused = [key for key in map(str, range(2000)) if persona.turns_down(key)]
    assert 150 < len(refused) < 250
    assert refused == [key for key in map(str, range(2000)) if persona.turns_down(key)]
    assert not any(Persona().turns_down(key) for key in refused)


def test_the_topic_comes_from_the_first_rule_that_holds() -> None:
    schema = {"type": "object", "properties": {"topic": {"enum": ["object", "scene"]}}}
    request = about(PHOTOGRAPH, None, model="rehearsal", reply_schema=schema_text(schema))
    assert told_label(request.question) is None
    assert said(request)["topic"] in {topic.id for topic in RECIPE.topics}


def merging(question: str) -> TeacherRequest:
    schema = {"type": "object", "properties": {"findings": {}, "conclusion": {}}}
    return make_request(
        question=question, pictures=(), reply_schema=schema_text(schema), model="rehearsal"
    )


def test_kept_points_are_worded_by_what_was_said_first() -> None:
    point = {"category": "edges", "name": "edges", "points_to": "fake", "said": ["One.", "Two."]}
    task = json.dumps({"opening": "This is a fake image.", "points": [point]})
    completion = REHEARSAL.complete(merging(f"Known authenticity: fake\n{task}"))
    assert completion["simulated"] == MERGED
    assert json.loads(completion["choices"][0]["message"]["content"]) == {
        "findings": [{"category": "edges", "points_to": "fake", "evidence": "One."}],
        "conclusion": "This is a fake image. The evidence lies in edges.",
    }
    with pytest.raises(DataError, match="no points to word"):
        REHEARSAL.complete(merging('{"opening": "x", "points": [{"said": []}]}'))


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("rehearsal-coarse:", "gpt-coarse:", "must begin with `rehearsal-`"),
        ("[tied-grain,", "[tidy-grain,", "rehearsal-coarse overlooks tidy-grain"),
        ("bare_blocks: {above: 25}", "bear_blocks: {above: 25}", "no figure bear_blocks"),
        ("{topic: scene}", "{topic: scene, when: {grain: {above: 1}}}", "must hold always"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(
    tmp_path: Path, before: str, after: str, problem: str
) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "recipe")
    text = (copy / "rehearsal.yaml").read_text(encoding="utf-8")
    assert before in text
    (copy / "rehearsal.yaml").write_text(text.replace(before, after), encoding="utf-8")
    with pytest.raises(ConfigError, match=problem):
        load_rehearsal(copy)
