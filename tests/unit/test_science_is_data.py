"""The platform is code, the science is data: no Python names what a recipe names."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from core.recipe import RECIPES, load_recipe

ROOT = Path(__file__).resolve().parents[2]
HOMONYMS = {
    "alignment": "the first of two stages of training",
    "edge": "how numpy pads an array",
    "human": "who speaks first in LLaVA's conversations",
    "object": "a type of JSON schema",
    "shape": "the sizes of a model that a training file names",
}
"""words of libraries, formats and settings that a recipe happens to use too"""


def named_by_recipes() -> set[str]:
    recipes = [load_recipe(path.parent) for path in RECIPES.glob("*/recipe.yaml")]
    assert {recipe.name for recipe in recipes} >= {"fakescope", "fakeclue"}
    return {
        name
        for recipe in recipes
        for name in (*recipe.taxonomy.ids, *(topic.id for topic in recipe.topics))
    }


def texts_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_no_trace_category_and_no_topic_is_named_in_python() -> None:
    names = named_by_recipes() - set(HOMONYMS)
    packages = [path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name != "tests"]
    sources = [*ROOT.glob("*.py"), *(path for each in packages for path in each.rglob("*.py"))]
    found = {(path.name, text) for path in sources for text in texts_of(path) if text in names}
    assert not found
