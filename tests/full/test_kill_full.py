"""The main job at its full size, killed at many moments, ends as an undisturbed run does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.e2e.kills import assert_ends_as_undisturbed, undisturbed_project

pytestmark = pytest.mark.full

CROPS = 2016


def test_the_whole_demo_killed_at_random(tmp_path: Path) -> None:
    undisturbed = undisturbed_project(tmp_path / "undisturbed", crops=CROPS)
    moments = [random.Random(seed).uniform(1, 25) for seed in range(8)]
    assert_ends_as_undisturbed(undisturbed, tmp_path / "killed", moments, crops=CROPS)
