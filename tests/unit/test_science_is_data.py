"""The platform is code, the science is data: no Python names what a recipe names."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from core.recipe import RECIPES, load_recipe

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
FOLDERS = {*PYPROJECT["tool"]["importlinter"]["root_packages"], "benchmarks", "scripts"}
HOMONYMS = {
    "alignment": {"training"},  # the first of its two stages
    "edge": {"imaging"},  # how numpy pads an array
    "human": {"benchmarks/contenders", "instruct_builder"},  # who speaks first in LLaVA's form
    "layout": {"benchmarks", "imaging/layouts", "training"},  # of a collection, of a training step
    "light": {"dashboard"},  # a theme of Streamlit
    "object": {  # a type of JSON schema, and what OpenAI's replies say they are
        "benchmarks",
        "generation",
        "instruct_builder",
        "teacher",
        "training",
    },
    "people": {"imaging/layouts"},  # whose frames are one group
    "person": {  # an icon of Streamlit, and the class of a photograph in a published set
        "dashboard/screens",
        "imaging/layouts",
    },
    "shape": {"dashboard", "training"},  # of marks in a chart, and the sizes of a model
    "theme": {"dashboard"},  # of Streamlit
}
"""words of libraries, formats and settings that recipes use too, and where they stand"""


def sources() -> list[Path]:
    """Every Python file of the platform, its scripts and benchmarks included."""
    return [*ROOT.glob("*.py"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))]


def named_by_recipes() -> tuple[set[str], set[str]]:
    """Ids of trace categories and topics and other words for these, and their names in words."""
    recipes = [load_recipe(path.parent) for path in RECIPES.glob("*/recipe.yaml")]
    assert {recipe.name for recipe in recipes} >= {"fakescope", "fakeclue"}
    topics = [topic for recipe in recipes for topic in recipe.topics]
    traces = [category for recipe in recipes for category in recipe.taxonomy.categories]
    ids = {each.id for each in (*topics, *traces)} | {word for t in topics for word in t.also}
    bare = {re.sub("^an? ", "", each.name) for each in (*topics, *traces)}
    names = {name for name in bare if " " in name}
    return ids, names


def texts_of(path: Path) -> Iterator[str]:
    """Strings and names of constants, with which a program works; parts of f-strings too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documented = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        name = getattr(node, "id", getattr(node, "attr", None))
        if isinstance(name, str) and name.isupper():
            yield name.lower()
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and id(node) not in documented:
            yield node.value


def found_in(text: str, ids: set[str], names: set[str]) -> set[str]:
    """What of a recipe a string names: keys and paths word by word, sentences by whole names."""
    words = set() if re.search(r"\s", text.strip()) else set(re.findall(r"\w+", text))
    return (words & ids) | {name for name in names if name in text.lower()}


def test_no_trace_category_and_no_topic_is_named_in_python() -> None:
    ids, names = named_by_recipes()
    found: dict[str, set[str]] = {}
    for path in sources():
        for text in texts_of(path):
            for word in found_in(text, ids, names):
                folder = path.parent.relative_to(ROOT).as_posix()
                found.setdefault(word, set()).add(folder)
    assert found == HOMONYMS


def test_the_search_finds_what_it_is_to_find() -> None:
    ids, names = {"satellite"}, {"physical logic"}
    assert found_in("fake/satellite/1.png", ids, names) == {"satellite"}
    assert found_in("look at the physical logic of it", ids, names) == {"physical logic"}
    assert found_in("a satellite of love", ids, names) == set()
