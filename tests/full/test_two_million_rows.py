"""The real build of 2,000,000 rows from 50,000 chains: every check, `verify`, and `datasets`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.project import ROOT

pytestmark = pytest.mark.full


def test_two_million_rows_are_built_verified_and_read_through() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.full_build"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2,000,000 rows read through by datasets" in done.stdout
