"""A build of 200,000 rows killed at twelve random moments ends as an undisturbed one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.e2e.builds import project_of_chains
from tests.e2e.killed_builds import assert_killed_builds_end_alike

pytestmark = pytest.mark.full


def test_a_large_build_killed_at_random(tmp_path: Path) -> None:
    project = project_of_chains(tmp_path, 5_000, rows_per_shard=5_000)
    moments = [random.Random(seed).uniform(1, 20) for seed in range(12)]
    assert_killed_builds_end_alike(project, tmp_path, moments, rows=200_000)
