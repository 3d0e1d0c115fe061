"""The review form: complete, unambiguous, and strict about what it is asked to show."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from annotation.interface import ADDED, SPARE_KEYS, Form, review_form
from core.errors import DataError
from core.recipe import load_recipe
from core.taxonomy import Taxonomy

TAXONOMY = load_recipe().taxonomy
FORM = review_form(TAXONOMY)


def result(name: str, kind: str, value: dict[str, Any], to_name: str = "image") -> dict[str, Any]:
    return {"from_name": name, "to_name": to_name, "type": kind, "value": value}


def test_the_form_offers_every_category_and_nothing_else() -> None:
    controls = FORM.controls(traces=0)
    for number in range(1, ADDED + 1):
        assert controls[f"added_category_{number}"].options == set(TAXONOMY.ids)


def test_there_is_one_block_for_each_trace() -> None:
    blocks = {name for name in FORM.controls(traces=3) if name.startswith("verdict_")}
    assert blocks == {"verdict_0", "verdict_1", "verdict_2"}


def test_no_key_is_left_for_label_studio_to_hand_out() -> None:
    hotkeys = [element.get("hotkey") for element in ET.fromstring(FORM.config).iter()]
    assert [key for key in hotkeys if key] == list(SPARE_KEYS)


def test_another_taxonomy_makes_another_form() -> None:
    fewer = Taxonomy(categories=TAXONOMY.categories[1:])
    assert review_form(fewer).form_id != FORM.form_id
    assert review_form(TAXONOMY).form_id == FORM.form_id


def test_a_category_of_any_name_is_text_in_the_form() -> None:
    odd = TAXONOMY.categories[0].model_copy(update={"name": '"><script>&', "id": "odd"})
    form = review_form(Taxonomy(categories=(odd,)))
    assert "<script>" not in form.config
    assert form.controls(0)["added_category_1"].options == {"odd"}


@pytest.mark.parametrize(
    "wrong",
    [
        result("verdict_2", "choices", {"choices": ["accept"]}),
        result("verdict_0", "choices", {"choices": ["maybe"]}),
        result("verdict_0", "textarea", {"text": ["accept"]}),
        result("verdict_0", "choices", {"choices": ["accept"]}, to_name="picture"),
        result("box_0", "rectanglelabels", {"rectanglelabels": ["polygon"]}),
    ],
    ids=["block", "choice", "type", "target", "label"],
)
def test_a_prediction_that_would_not_show_is_refused(wrong: dict[str, Any]) -> None:
    FORM.check([result("verdict_0", "choices", {"choices": ["accept"]})], traces=2)
    with pytest.raises(DataError):
        FORM.check([wrong], traces=2)


def test_two_controls_of_one_name_are_a_mistake() -> None:
    config = '<View><TextArea name="a" toName="b"/><TextArea name="a" toName="b"/></View>'
    with pytest.raises(ValueError, match="two controls are called a"):
        Form(config, "").controls(0)
