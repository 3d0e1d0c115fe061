"""The benchmarks of drafting, ingest and training run and count what they should."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.project import ROOT, clean_environment

pytestmark = pytest.mark.full

MINUTES = 15


def lines_of(benchmark: str, contender: str, *arguments: str) -> list[list[str]]:
    """The figures of a contender, one line for each setting."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark}", "--only", contender, *arguments]
    done = subprocess.run(
        [*command, "--repeats", "1"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60 * MINUTES,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [line for line in done.stdout.splitlines() if line.startswith(contender)]
    return [line.removeprefix(contender).split() for line in found]


def test_every_image_of_the_drafting_benchmark_is_asked_about_once() -> None:
    asked = ("--images", "100", "--in-flight", "16")
    ((*_, drafts, sent, _),) = lines_of("drafting", "FakeScope, all stored", *asked)
    assert (drafts, sent) == ("100", "100")


def test_the_memory_of_ingest_does_not_grow_with_the_number_of_files() -> None:
    numbers = ("--files", "500", "--files", "3000", "--scale", "0.25")
    few, many = lines_of("ingest", "ingest, all stored", *numbers)
    assert [row[-1] for row in (few, many)] == ["500", "3000"]
    assert int(many[-2]) < 1.2 * int(few[-2])


def test_trees_learn_what_trl_learns_and_sooner() -> None:
    """Tokens and losses of each step are compared by the benchmark itself."""
    sizes = ("--branches", "8", "--steps", "2", "--only", "FakeScope, trees")
    ((*_, faster, _, _, _),) = lines_of("train_tree", "TRL SFTTrainer", *sizes)
    assert float(faster) > 2
