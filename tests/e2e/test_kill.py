"""The main job killed at any moment and run again ends as if nothing had happened."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.kills import assert_ends_as_undisturbed, undisturbed_project
from tests.e2e.project import make_project, shard_bytes

CROPS = 128


def test_killed_and_run_again_equals_undisturbed(tmp_path: Path) -> None:
    undisturbed = undisturbed_project(tmp_path / "undisturbed", crops=CROPS)
    assert_ends_as_undisturbed(undisturbed, tmp_path / "killed", [1.5, 2.5, 3.5, 5.0], crops=CROPS)


@pytest.mark.full
def test_ctrl_c_ends_with_exit_code_130_and_loses_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path, crops=CROPS)
    running = subprocess.Popen(
        ["env", "--default-signal=INT", *project.command("main_job", "--recipe", project.recipe)],
        env=project.variables(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while running.poll() is None and len(project.teacher_requests()) < 20:
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert errors.splitlines()[-1] == "interrupted; what was finished is kept"
    assert "Traceback" not in errors
    asked = len(project.teacher_requests())
    assert 20 <= asked < CROPS
    done = project.build_instruct()
    assert done.code == 0, done
    assert len(project.teacher_requests()) == CROPS, "what was asked before was asked again"
    assert shard_bytes(project.shards)
