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

import httpx2
import pytest
import yaml

from annotation.server import INSTALL, is_installed
from tests.brokers import free_port, skip_or_fail
from tests.e2e.project import OURS, ROOT, clean_environment

READ_ONLY = {"general"}
"""pages whose commands need files that only their reader has"""
SERVING = {"dashboard"}
"""pages whose command serves until Ctrl-C"""
PAGES = sorted({path.stem for path in (ROOT / "docs" / "howto").glob("*.md")} - READ_ONLY - SERVING)
QUICK = {"quality"}
"""pages whose commands `make test` runs too"""


def script_of(page: str) -> str:
    text = (ROOT / "docs" / "howto" / f"{page}.md").read_text(encoding="utf-8")
    return "\n".join(re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL))


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with demos of few crops, one built; the environment is shared."""
    folder = tmp_path_factory.mktemp("howto") / "project"
    ignored = shutil.ignore_patterns(".git", ".venv*", "data", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, folder, ignore=ignored)
    for environment in (".venv", ".venv-label-studio"):
        (folder / environment).symlink_to(ROOT / environment)
    for path in (folder / "recipes").glob("*/recipe.yaml"):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        recipe["demo"]["crops"] = 256
        path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    run(folder, "make build-instruct")
    return folder


def environment_of(folder: Path) -> dict[str, str]:
    """Of a copy of the project; `.venv` is taken as it is."""
    return {**clean_environment(), "MAKEFLAGS": "SETUP=true", "PYTHONPATH": str(folder)}


def run(folder: Path, script: str) -> None:
    """Run a script that stops at its first failure."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment_of(folder),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"


@contextmanager
def started(folder: Path, script: str, until: str, *, last: str, **variables: str) -> Iterator[str]:
    """Run what serves until Ctrl-C; gives what it printed up to a line with `until`.

    `last`: the line that it prints on the way out.
    """
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**environment_of(folder), **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as server:
        assert server.stdout is not None
        said = []
        for line in server.stdout:
            said.append(line)
            if until in line:
                break
        try:
            yield "".join(said)
        finally:
            os.killpg(server.pid, signal.SIGINT)
            rest = server.stdout.read()
        assert last in map(str.strip, rest.splitlines()), rest


@contextmanager
def label_studio(folder: Path) -> Iterator[None]:
    """`make annotate`, as the page has it running in another terminal."""
    if not is_installed():
        skip_or_fail("Label Studio", f".venv/bin/{INSTALL}")
    annotate = "make annotate SOURCE=demo LIMIT=12"
    with started(folder, annotate, until="Ctrl-C", last="stopped") as said:
        assert "password" in said
        yield


RUNNING_BESIDE: dict[str, Callable[[Path], AbstractContextManager[None]]] = {
    "exemplars": label_studio,
    "from-images-to-model": label_studio,
    "label-studio": label_studio,
    "quality": label_studio,
}
"""what a page says to have running in another terminal"""


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, marks=[] if page in QUICK else [pytest.mark.full]) for page in PAGES],
)
def test_the_commands_of_a_page_succeed(copy: Path, page: str) -> None:
    assert not set(OURS) & set(clean_environment())
    script = script_of(page)
    assert script.strip(), f"docs/howto/{page}.md has no command"
    with RUNNING_BESIDE.get(page, nullcontext)(copy):
        run(copy, script)


def test_the_command_of_the_dashboard_page_serves_until_it_is_stopped(copy: Path) -> None:
    port = free_port()
    serving = started(
        copy, script_of("dashboard"), until="You can now view", last="Stopping...", PORT=str(port)
    )
    with serving as said:
        assert f"http://127.0.0.1:{port}" in said
        assert httpx2.get(f"http://127.0.0.1:{port}/_stcore/health", timeout=60).text == "ok"
