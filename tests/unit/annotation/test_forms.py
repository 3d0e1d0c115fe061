"""The smaller forms, and the texts that they show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from annotation.answers import Answers
from annotation.forms import blind_form, exemplar_form, preference_form
from annotation.interface import SPARE_KEYS, Form
from annotation.kinds import Answer
from annotation.mapping import annotation_of
from annotation.preference import SEPARATOR, preference_from
from annotation.texts import description_of
from core.errors import DataError
from core.recipe import load_recipe
from core.records import Authenticity
from core.taxonomy import Taxonomy
from db.studio import StudioTask
from tests.unit.records import make_finding, make_reasoning

TAXONOMY = load_recipe().taxonomy
FORMS: list[Callable[[Taxonomy], Form]] = [
    blind_form,
    exemplar_form,
    lambda _: preference_form(),
]
names = pytest.mark.parametrize("make", FORMS, ids=["blind", "exemplar", "preference"])


@names
def test_no_key_is_left_for_label_studio_to_hand_out(make: Callable[[Taxonomy], Form]) -> None:
    found = ET.fromstring(make(TAXONOMY).config).iter()
    keys = [key for element in found if (key := element.get("hotkey"))]
    assert sorted(keys) == sorted(SPARE_KEYS)


@names
def test_a_category_of_any_name_is_text(make: Callable[[Taxonomy], Form]) -> None:
    odd = TAXONOMY.categories[0].model_copy(update={"name": '"><script>&', "id": "odd"})
    form = make(Taxonomy(categories=(odd,)))
    assert "<script>" not in form.config
    assert form.controls(0).get("categories", None) is None or (
        form.controls(0)["categories"].options == {"odd"}
    )


def test_the_blind_form_asks_for_aspects_after_either_verdict() -> None:
    """What follows a verdict must not tell whether it is right."""
    root = ET.fromstring(blind_form(TAXONOMY).config)
    (shown,) = (element for element in root.iter() if element.get("visibleWhen"))
    assert shown.get("whenTagName") == "verdict"
    assert shown.get("whenChoiceValue") is None


def test_a_reasoning_as_text_is_the_verdict_then_because_then_points() -> None:
    reasoning = make_reasoning(
        make_finding("texture", evidence="the wall repeats"),
        make_finding("edge", points_to=Authenticity.REAL),
        make_finding("theme", evidence="Fish\nin the sky."),
    )
    assert description_of(reasoning).split("\n") == [
        "This image is fake, because:",
        "1. The wall repeats.",
        "2. Fish in the sky.",
        "The picture was generated.",
    ]


def test_a_reasoning_without_a_trace_says_so() -> None:
    said = description_of(make_reasoning(conclusion=""))
    assert said == "This image is fake, although nothing visible shows it."


def answer(*results: dict[str, Any]) -> Answer:
    raw = {
        "id": 1, "completed_by": 2, "updated_by": 2, "was_cancelled": False, "lead_time": 1.5,
        "updated_at": "2026-03-01T12:00:00.000000Z", "result": list(results),
    }  # fmt: skip
    return Answer(annotation=annotation_of(raw), expert="expert-1", key="version-1")


def preferred(*sides: str) -> dict[str, Any]:
    return {"from_name": "preferred", "type": "choices", "value": {"choices": list(sides)}}


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_preference_is_for_the_draft_on_that_side(side: str) -> None:
    task = StudioTask(
        task_key="key", project_key="project", subject_id=SEPARATOR.join("ab"), image_id="img"
    )
    said = preference_from(answer(preferred(side)), task, version=1)
    assert (said.preferred, said.other) == (("a", "b") if side == "left" else ("b", "a"))
    assert said.preferred_first == (side == "left")
    for nothing in (answer(), answer(preferred()), answer(preferred("left", "right"))):
        with pytest.raises(DataError):
            preference_from(nothing, task, version=1)


def test_answers_hold_what_stands_in_each_control_and_no_relations() -> None:
    said = Answers([preferred("left"), {"type": "relation", "from_id": "a", "to_id": "b"}, "odd"])
    assert said.choice("preferred") == "left"
    assert said.text("preferred") == ""
    assert said.choices("other") == []
