from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import ConfigError
from tests.unit.training.families import FAMILIES, save_family
from tests.unit.training.toys import ToySet, make_config
from training.config import TrainingConfig, dump_config
from training.inputs import Inputs
from training.loop import StepLog, Training
from training.resume import Saved, load_state, save_state
from training.run import prepare_model, prepare_torch, run

ROOT = Path(__file__).resolve().parents[3]
CONFIG = make_config(
    optimiser__steps=20,
    scoring__validate_every=6,
    saving={"state_steps": 5, "keep_last": 1, "best_by": "val_nll"},
    data__augment={"flips": True, "blur_share": 0.5},
)


def begin(config: TrainingConfig, inputs: Inputs) -> Training:
    prepare_torch(config)
    return Training(prepare_model(config, inputs)[0], inputs.rows, inputs.folder, config)


def take(steps: Iterator[StepLog], count: int) -> list[float]:
    return [next(steps).loss for _ in range(count)]


def test_a_run_goes_on_to_the_bit_from_a_saved_state(inputs: Inputs, tmp_path: Path) -> None:
    config = make_config(optimiser__steps=8, data__max_tokens=40)
    whole = begin(config, inputs)
    expected = [step.loss for step in whole.steps()]
    first = begin(config, inputs)
    before = take(first.steps(), 3)
    save_state(tmp_path, first.save(), step=3)
    torch.manual_seed(99)
    second = begin(config, inputs)
    saved = load_state(tmp_path)
    assert saved is not None
    second.restore(saved)
    assert before + [step.loss for step in second.steps()] == expected
    assert second.set_aside == whole.set_aside
    assert whole.set_aside.total() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_goes_on_to_the_bit(family: str, inputs: Inputs) -> None:
    config = make_config(
        model={"kind": "checkpoint", "name": str(save_family(family))},
        optimiser={"steps": 4, "learning_rate": 0.003, "part_rates": {"tower": 0}},
        data__batch_images=4,
    )
    expected = [step.loss for step in begin(config, inputs).steps()]
    first = begin(config, inputs)
    before = take(first.steps(), 2)
    second = begin(config, inputs)
    second.restore(first.save())
    assert before + [step.loss for step in second.steps()] == expected


def toy_state(value: float) -> Saved:
    return Saved({"weight": torch.full((2, 2), value)}, {"done": 1})


def test_the_newest_whole_state_counts(tmp_path: Path) -> None:
    assert load_state(tmp_path / "none") is None
    save_state(tmp_path, toy_state(1.0), step=1)
    save_state(tmp_path, toy_state(2.0), step=2)
    (tmp_path / ".step-000003.partial").mkdir()
    saved = load_state(tmp_path)
    assert saved is not None
    assert saved.weights["weight"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000002"]


@pytest.mark.parametrize("name", ["state.pt", "weights.safetensors", "files.json"])
def test_a_damaged_state_is_refused(tmp_path: Path, name: str) -> None:
    folder = save_state(tmp_path, toy_state(1.0), step=1)
    (folder / name).write_bytes(b"x")
    with pytest.raises(ConfigError, match=rf"{name} is not the file that was saved; delete"):
        load_state(tmp_path)


def test_a_state_cannot_run_code(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "ran"),)

    save_state(tmp_path / "states", Saved({}, {"bomb": Bomb()}), step=1)
    with pytest.raises(ConfigError, match=r"state\.pt cannot be read"):
        load_state(tmp_path / "states")
    assert not (tmp_path / "ran").exists()


def test_a_state_of_another_model_is_refused(inputs: Inputs) -> None:
    training = begin(make_config(), inputs)
    with pytest.raises(ConfigError, match="of another model"):
        training.restore(toy_state(1.0))


def start(toy: ToySet, out: Path, settings: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable, "-m", "training.run", str(settings), "--resume",
            "--shards", str(toy.shards), "--images", str(toy.images), "--out", str(out),
        ],
        cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def lines_of(out: Path) -> list[str]:
    path = out / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def send_after(running: subprocess.Popen[str], out: Path, lines: int, number: int) -> str:
    while running.poll() is None and len(lines_of(out)) < lines:
        time.sleep(0.005)
    running.send_signal(number)
    return running.communicate(timeout=120)[1]


def records_of(out: Path) -> list[dict[str, Any]]:
    """All of `metrics.jsonl` but what is measured of the machine."""
    records = [json.loads(line) for line in lines_of(out)]
    return [
        {key: value for key, value in record.items() if not re.search("second|memory", key)}
        for record in records
    ]


@pytest.fixture(scope="module")
def undisturbed(toy: ToySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    run(CONFIG, shards=toy.shards, images=toy.images, out=out)
    return out


def test_killed_and_terminated_runs_end_as_an_undisturbed_one(
    toy: ToySet, undisturbed: Path, tmp_path: Path
) -> None:
    settings, out = tmp_path / "toy.yaml", tmp_path / "run"
    settings.write_text(dump_config(CONFIG))
    running = start(toy, out, settings)
    send_after(running, out, 9, signal.SIGKILL)
    assert running.returncode == -signal.SIGKILL
    running = start(toy, out, settings)
    errors = send_after(running, out, 15, signal.SIGTERM)
    assert running.returncode == 143, errors
    assert "ended by SIGTERM after step" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    run(CONFIG, shards=toy.shards, images=toy.images, out=out, resume=True)
    assert records_of(out) == records_of(undisturbed)
    assert [record["step"] for record in records_of(out) if "loss" in record] == [*range(1, 21)]
    for name in ("predictions.jsonl", "config.yaml"):
        assert (out / name).read_bytes() == (undisturbed / name).read_bytes()
    kept = [sorted(p.name for p in (f / "checkpoints").iterdir()) for f in (out, undisturbed)]
    assert kept[0] == kept[1]
    assert not (out / "resume").exists()


def test_the_best_checkpoint_is_kept_and_scored(toy: ToySet, tmp_path: Path) -> None:
    config = make_config(
        optimiser__steps=40,
        optimiser__learning_rate=0.03,
        scoring__validate_every=4,
        saving={"keep_last": 1, "best_by": "val_nll", "patience": 2},
    )
    report = run(config, shards=toy.shards, images=toy.images, out=tmp_path / "run")
    validated = {
        record["step"]: record["val_nll"]
        for record in records_of(tmp_path / "run")
        if "val_nll" in record
    }
    best = min(validated, key=lambda step: validated[step])
    last = max(validated)
    assert report["training"]["scored_step"] == best
    assert report["training"]["steps"] == last == best + 2 * 4 < 40
    kept = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert kept == {f"step-{best:06d}", f"step-{last:06d}"}
    assert report["calibration"] is not None


def test_patience_needs_something_to_wait_for(toy: ToySet) -> None:
    with pytest.raises(ValueError, match="patience needs best_by"):
        make_config(saving={"patience": 2})
    with pytest.raises(ValueError, match=r"needs scoring\.validate_every"):
        make_config(saving={"best_by": "val_nll"})
