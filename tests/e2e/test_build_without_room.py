"""A full disk, or a process that is gone, leaves no shard under its final name; then it goes on."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.builds import build_command, project_of_chains
from tests.e2e.project import ROOT, Project, shard_bytes

ROWS = 2_000
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return project_of_chains(tmp_path_factory.mktemp("chains"), 60, rows_per_shard=400)


@pytest.fixture(scope="module")
def whole(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    out = tmp_path_factory.mktemp("whole") / "set"
    done = project.run("instruct_builder", *build_command(project, out, rows=ROWS))
    assert done.code == 0, done
    return shard_bytes(out)


def start(project: Project, out: Path) -> subprocess.Popen[str]:
    """A build with two processes."""
    return subprocess.Popen(
        project.command("instruct_builder", *build_command(project, out, rows=ROWS, workers=2)),
        cwd=ROOT,
        env=project.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def names_at(out: Path) -> list[str]:
    """What a reader of the set sees; nothing where the build ended before it made the folder."""
    return [path.name for path in out.glob("*") if not path.name.startswith(".")]


def assert_goes_on(project: Project, out: Path, whole: dict[str, bytes]) -> None:
    done = project.run("instruct_builder", *build_command(project, out, rows=ROWS))
    assert done.code == 0, done
    assert shard_bytes(out) == whole


@pytest.mark.parametrize("whose", [pytest.param("plan", marks=pytest.mark.full), "shards"])
def test_where_there_is_no_room_nothing_is_published(
    whose: str, project: Project, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """No file may grow beyond 8 KB: what is written meets that as it meets a full disk."""
    out = tmp_path / "set"
    build = start(project, out)
    helpers = wait_for_helpers(build, 2)
    for process in [build.pid] if whose == "plan" else helpers:
        resource.prlimit(process, resource.RLIMIT_FSIZE, (8_000, 8_000))
    _, complaint = build.communicate(timeout=PATIENCE_S)
    assert build.returncode == 2, complaint
    assert "the shards cannot be written" in complaint and "Traceback" not in complaint
    assert names_at(out) == []
    assert_goes_on(project, out, whole)


@pytest.mark.full
def test_where_a_process_is_gone_nothing_is_published(
    project: Project, whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "set"
    build = start(project, out)
    os.kill(wait_for_helpers(build, 1)[0], signal.SIGKILL)
    _, complaint = build.communicate(timeout=PATIENCE_S)
    assert build.returncode == 2, complaint
    assert "a process that made shards was ended: build again to go on" in complaint
    assert names_at(out) == []
    assert_goes_on(project, out, whole)


def wait_for_helpers(build: subprocess.Popen[str], number: int) -> list[int]:
    """The processes that the build started to make shards, once there are so many."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        children = Path(f"/proc/{build.pid}/task/{build.pid}/children").read_text().split()
        found = [
            int(name)
            for name in children
            if b"spawn_main" in Path(f"/proc/{name}/cmdline").read_bytes()
        ]
        if len(found) >= number:
            return found
        time.sleep(0.02)
    raise AssertionError("no process was started")
