"""Each how-to page: its commands, run in their order in a copy of the project, all succeed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.e2e.project import OURS, ROOT, clean_environment

PAGES = sorted(path.stem for path in (ROOT / "docs" / "howto").glob("*.md"))


def script_of(page: str) -> str:
    text = (ROOT / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with a demo of few crops, built; the environment is shared."""
    folder = tmp_path_factory.mktemp("howto") / "project"
    ignored = shutil.ignore_patterns(".git", ".venv*", "data", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=ignored)
    (folder / ".venv").symlink_to(ROOT / ".venv")
    path = folder / "recipes" / "fakescope" / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe["demo"]["crops"] = 320
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run(folder, "make build-instruct")
    return folder


def run(folder: Path, script: str) -> None:
    """Run a script that stops at its first failure; `.venv` is taken as it is."""
    environment = {**clean_environment(), "MAKEFLAGS": "SETUP=true", "PYTHONPATH": str(folder)}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_succeed(copy: Path, page: str) -> None:
    assert not set(OURS) & set(clean_environment())
    script = script_of(page)
    assert script.strip(), f"docs/howto/{page}.md has no command"
    run(copy, script)
