"""Each how-to page: its commands, run in their order in a copy of the project, all succeed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import pytest
import yaml

from annotation.server import INSTALL, is_installed
from tests.brokers import skip_or_fail
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
    for environment in (".venv", ".venv-label-studio"):
        (folder / environment).symlink_to(ROOT / environment)
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


@contextmanager
def label_studio(folder: Path) -> Iterator[None]:
    """`make annotate`, as the page has it running in another terminal."""
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    environment = {**clean_environment(), "MAKEFLAGS": "SETUP=true", "PYTHONPATH": str(folder)}
    command = ["make", "annotate", "SOURCE=demo", "LIMIT=12"]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as annotate:
        assert annotate.stdout is not None
        said = []
        for line in annotate.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        assert "password" in "".join(said), said
        try:
            yield
        finally:
            os.killpg(annotate.pid, signal.SIGINT)
            assert "stopped" in annotate.stdout.read()


RUNNING_BESIDE: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "label-studio": label_studio
}
"""what a page says to have running in another terminal"""


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_succeed(copy: Path, page: str) -> None:
    assert not set(OURS) & set(clean_environment())
    script = script_of(page)
    assert script.strip(), f"docs/howto/{page}.md has no command"
    with RUNNING_BESIDE.get(page, nullcontext)(copy):
        run(copy, script)
