"""A run that is killed at random moments ends as one that nobody disturbed."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.unit.training.test_resume import lines_of, records_of, start
from tests.unit.training.toys import make_config, make_set
from training.config import dump_config

pytestmark = pytest.mark.full

KILLS, SEED = 6, 20
STARTING_S = 3.0
"""within which a third of the kills come, most before the first step"""
CONFIG = make_config(
    optimiser__steps=150,
    scoring__validate_every=25,
    saving={"state_steps": 2, "keep_last": 1, "best_by": "val_nll"},
    data__augment={"flips": True, "blur_share": 0.5},
)


def test_a_run_killed_at_random_moments_has_the_losses_of_an_undisturbed_one(
    tmp_path: Path,
) -> None:
    toy, settings = make_set(tmp_path), tmp_path / "toy.yaml"
    settings.write_text(dump_config(CONFIG))
    run, undisturbed = tmp_path / "run", tmp_path / "undisturbed"
    start(toy, undisturbed, settings).communicate(timeout=600)
    moments = random.Random(SEED)
    for number in range(KILLS):
        running = start(toy, run, settings)
        if number % 3 == 0:
            time.sleep(moments.uniform(0, STARTING_S))
        else:
            wanted = len(lines_of(run)) + moments.randint(1, 12)
            while running.poll() is None and len(lines_of(run)) < wanted:
                time.sleep(moments.uniform(0, 0.05))
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=60)
        assert running.returncode == -signal.SIGKILL
    start(toy, run, settings).communicate(timeout=600)
    assert records_of(run) == records_of(undisturbed)
    assert [r["step"] for r in records_of(run) if "loss" in r] == [*range(1, 151)]
    for name in ("predictions.jsonl", "config.yaml"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes()
