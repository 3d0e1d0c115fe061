"""Kill a build and its processes at some moments, run it again, and compare."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.builds import build_command
from tests.e2e.project import ROOT, Project, shard_bytes


def assert_killed_builds_end_alike(
    project: Project, folder: Path, moments: Sequence[float], *, rows: int
) -> None:
    """`kill -9` after each of these seconds; at no moment is a set there that does not verify."""
    whole, killed = folder / "whole", folder / "killed"
    done = project.run("instruct_builder", *build_command(project, whole, rows=rows, workers=2))
    assert done.code == 0, done
    command = build_command(project, killed, rows=rows, workers=2)
    kills = sum(_run_and_kill(project, command, after, killed) for after in moments)
    done = project.run("instruct_builder", *command)
    assert done.code == 0, done
    assert kills, "no build was killed"
    assert shard_bytes(killed) == shard_bytes(whole)


def _run_and_kill(project: Project, command: list[str], after: float, out: Path) -> bool:
    process = subprocess.Popen(
        project.command("instruct_builder", *command),
        cwd=ROOT,
        env=project.variables(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    if process.returncode != -signal.SIGKILL:
        return False
    if (out / "manifest.json").exists():
        verified = project.run("instruct_builder", "verify", out)
        assert verified.code == 0, verified
    return True
