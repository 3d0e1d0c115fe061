"""A build killed with `kill -9`, its processes too, ends as an undisturbed one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.builds import project_of_chains
from tests.e2e.killed_builds import assert_killed_builds_end_alike


@pytest.mark.full
def test_a_killed_build_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    project = project_of_chains(tmp_path, 60, rows_per_shard=100)
    assert_killed_builds_end_alike(project, tmp_path, (1.5, 2.5, 3.5), rows=2_000)
