"""A clone in an empty folder and the two commands of the README, with nothing installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.project import ROOT, clean_environment

pytestmark = pytest.mark.full


def make(folder: Path, target: str, log: Path) -> int:
    """Run one target; its output is kept beside the clone."""
    environment = {k: v for k, v in clean_environment().items() if not k.startswith("PYTEST")}
    with log.open("w", encoding="utf-8") as output:
        return subprocess.run(
            ["make", target],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            timeout=3000,
            check=False,
        ).returncode


def test_both_commands_of_the_readme_end_with_exit_code_0(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    assert "make build-instruct\nmake test\n" in (clone / "README.md").read_text(encoding="utf-8")
    for target in ("build-instruct", "test"):
        log = tmp_path / f"{target}.log"
        assert make(clone, target, log) == 0, log.read_text(encoding="utf-8")[-6000:]
    assert (clone / "data" / "fakeinstruct" / "preview.html").is_file()
    untracked = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    assert untracked == ""
