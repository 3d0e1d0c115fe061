"""Every command that takes a recipe takes a folder, or the name of one in `recipes/`."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import typer

from core.errors import ConfigError
from core.recipe import RECIPES, find_recipe, load_recipe

ROOT = Path(__file__).resolve().parents[2]
MODULES = (
    "main_job",
    "generation.__main__",
    "annotation.__main__",
    "instruct_builder.__main__",
    "training.evaluate",
    "training.predict",
)


def recipe_options(command: Any) -> Iterator[tuple[Any, Any]]:
    """Commands with their option, of a group and of those below it."""
    yield from ((command, option) for option in command.params if option.name == "recipe")
    for below in getattr(command, "commands", {}).values():
        yield from recipe_options(below)


@pytest.mark.parametrize("module", MODULES)
def test_a_recipe_can_be_named(module: str, tmp_path: Path) -> None:
    if module.startswith("training"):
        pytest.importorskip("torch")
    found = list(recipe_options(typer.main.get_command(import_module(module).app)))
    assert found
    for command, option in found:
        with typer.Context(command) as context:
            assert option.process_value(context, "fakeclue") == RECIPES / "fakeclue"
            assert option.process_value(context, str(tmp_path)) == tmp_path


def test_a_recipe_below_the_working_folder_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "fakeclue").mkdir()  # a data set of that name is no recipe
    assert find_recipe("fakeclue") == RECIPES / "fakeclue"
    (tmp_path / "fakeclue" / "recipe.yaml").touch()
    assert find_recipe("fakeclue") == Path("fakeclue")


def test_a_recipe_that_is_nowhere_is_refused_with_those_there_are(tmp_path: Path) -> None:
    assert find_recipe("fakeclu") == Path("fakeclu")
    with pytest.raises(
        ConfigError, match=r"has no recipe\.yaml; name a folder, or one of fakeclue"
    ):
        load_recipe(tmp_path)


def test_make_hands_the_name_on() -> None:
    command = ["make", "--dry-run", "build-instruct", "RECIPE=fakeclue"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--recipe 'fakeclue'" in done.stdout
