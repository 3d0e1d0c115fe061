"""Topics of images: who says them, and which points they have inspected."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE, RECIPES, Recipe, configured_recipe, load_recipe
from core.records import Authenticity
from core.settings import load_settings
from core.topics import COLLECTION, topic_among

RECIPE = load_recipe(RECIPES / "fakeclue")


def test_each_topic_has_its_own_points_for_either_label() -> None:
    thing = topic_among(RECIPE.topics, {COLLECTION: "object"})
    assert thing is not None
    fake = thing.taxonomy(RECIPE.taxonomy, Authenticity.FAKE)
    real = thing.taxonomy(RECIPE.taxonomy, Authenticity.REAL)
    assert (len(fake.ids), len(real.ids)) == (5, 6)
    assert fake["texture"].fake_hint == "Material and texture."
    assert real["texture"].real_hint == "Texture of the surface."
    assert set(thing.taxonomy(RECIPE.taxonomy, None).ids) == {*fake.ids, *real.ids}


def test_the_word_of_the_collection_counts_most() -> None:
    said = {"a-model": "scene", COLLECTION: "People"}
    topic = topic_among(RECIPE.topics, said)
    assert topic is not None and "people" in topic.also
    assert topic_among(RECIPE.topics, {COLLECTION: "art", "a-model": "scene"}) != topic
    assert topic_among(RECIPE.topics, {COLLECTION: "art"}) is None


def test_arms_wait_for_those_that_they_build_on() -> None:
    waits = {arm.name: RECIPE.waits_for(arm) for arm in RECIPE.arms}
    assert waits["topic"] == ()
    assert waits["first"] == ("topic",)
    assert waits["consensus"] == ("first", "second", "third")
    assert {load_recipe().waits_for(arm) for arm in load_recipe().arms} == {()}


def test_fakes_of_which_little_can_be_seen_have_a_prompt_of_their_own() -> None:
    first, consensus = RECIPE.arm("first"), RECIPE.arm("consensus")
    assert RECIPE.mode_of(first, "chameleon") == "inspect-hard"
    assert RECIPE.mode_of(first, "another") == RECIPE.mode_of(first, None) == "inspect"
    assert RECIPE.mode_of(consensus, "chameleon") == "merge"


def changed(folder: Path, **changes: dict[str, Any]) -> Recipe:
    """The recipe with other values in its arms."""
    copy = shutil.copytree(RECIPES / "fakeclue", folder / "recipe")
    values = yaml.safe_load((copy / "recipe.yaml").read_text(encoding="utf-8"))
    for arm in values["drafting"]["arms"]:
        arm.update(changes.get(arm["name"], {}))
    (copy / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    return load_recipe(copy)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"second": {"model": "rehearsal-careful"}}, "first and second ask the same model"),
        ({"first": {"sample": 5}}, "first does not draft every image"),
        ({"third": {"name": "fourth"}}, "merges 'third', no arm before it"),
        ({"consensus": {"control": True}}, "exclude one another"),
        ({"first": {"mode": "inspekt"}}, "no prompts/inspekt.jinja"),
    ],
)
def test_arms_that_cannot_be_merged_are_refused(
    tmp_path: Path, changes: dict[str, dict[str, Any]], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        changed(tmp_path, **changes)


def test_one_configured_teacher_cannot_stand_in_for_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_MODEL", "one")
    with pytest.raises(ConfigError, match="ask the same model, which has one vote"):
        configured_recipe(RECIPES / "fakeclue", load_settings())


def test_a_point_that_the_taxonomy_lacks_is_named(tmp_path: Path) -> None:
    copy = shutil.copytree(RECIPES / "fakeclue", tmp_path / "recipe")
    text = (copy / "topics.yaml").read_text(encoding="utf-8")
    (copy / "topics.yaml").write_text(text.replace("nostrils:", "nostril:"), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"topics.yaml: deepfake.*'nostril', did you mean nos"):
        load_recipe(copy)


def test_recipes_without_topics_keep_their_campaigns() -> None:
    drafting = load_recipe(DEFAULT_RECIPE).drafting_digest
    assert drafting == "46e0561a8b8b38e7396ca0d5eec15ec02f0622fd235445973ef317ca6299301b"
