from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.training.families import FAMILIES, save_family
from tests.unit.training.toys import ToySet, make_config
from training.adapters import ADAPTERS, TRAINED, digest_of, is_adapter
from training.checkpoint import open_checkpoint
from training.config import KeptFeatures, TrainingConfig, dump_config
from training.processes import Processes, interleave
from training.run import run

pytestmark = pytest.mark.full

ROOT = Path(__file__).resolve().parents[3]
CONFIG = make_config(
    optimiser__steps=8,
    optimiser__part_rates={"tower": 0.5},
    scoring__validate_every=4,
    saving={"state_steps": 3},
)


@pytest.mark.parametrize("items", [[], [5], [5, 6, 7], [5, 6, 7, 8, 9, 1]])
def test_even_shares_are_as_long_and_come_together_again(items: list[int]) -> None:
    shares = [Processes(rank, 4).even_share(items) for rank in range(4)]
    assert len({len(share) for share in shares}) == 1
    assert interleave(shares, len(items)) == items


def start(toy: ToySet, folder: Path, config: TrainingConfig = CONFIG) -> subprocess.Popen[str]:
    settings = folder / "toy.yaml"
    settings.write_text(dump_config(config))
    return subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "training.run", str(settings), "--resume",
            "--shards", str(toy.shards), "--images", str(toy.images), "--out", str(folder / "two"),
        ],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def lines_of(out: Path) -> list[dict[str, Any]]:
    path = out / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_two_processes_learn_what_one_does_also_after_sigterm(toy: ToySet, tmp_path: Path) -> None:
    report = run(CONFIG, shards=toy.shards, images=toy.images, out=tmp_path / "one")
    first = start(toy, tmp_path)
    while first.poll() is None and len(lines_of(tmp_path / "two")) < 2:
        time.sleep(0.05)
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=120)
    assert errors.count("ended by SIGTERM after step") == 1, errors
    second = start(toy, tmp_path)
    shown, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors
    assert shown.count("AUROC on unseen photographs") == 1
    one, two = (lines_of(tmp_path / name) for name in ("one", "two"))
    assert [line["step"] for line in two] == [line["step"] for line in one]
    for alone, shared in zip(one, two, strict=True):
        for name in {"loss", "losses", "gradient_norm", "val_nll"} & alone.keys():
            assert shared[name] == pytest.approx(alone[name], rel=1e-4)
        for name in ("images", "rows", "answer_tokens", "tokens", "plain_tokens"):
            assert shared.get(name) == alone.get(name)
    assert report is not None
    scores = [
        [json.loads(line)["log_odds"] for line in (tmp_path / name / "predictions.jsonl").open()]
        for name in ("one", "two")
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-3)


@pytest.mark.parametrize(
    ("family", "compiles"), [*((family, False) for family in FAMILIES), ("llava", True)]
)
def test_two_processes_learn_what_one_does_with_each_family(
    family: str, compiles: bool, toy: ToySet, tmp_path: Path
) -> None:
    config = make_config(
        model={"kind": "checkpoint", "name": str(save_family(family))},
        optimiser={"steps": 4, "learning_rate": 0.003, "part_rates": {"tower": 0}},
        scoring__answer_prefix=" The image is" if family == "llava" else "The image is",
        compile=compiles,
    )
    run(config, shards=toy.shards, images=toy.images, out=tmp_path / "one")
    running = start(toy, tmp_path, config)
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert errors.count("compiled while they learn: 2 LlamaDecoderLayer") == compiles
    one, two = (lines_of(tmp_path / name) for name in ("one", "two"))
    assert len(one) == len(two) == 4
    for alone, shared in zip(one, two, strict=True):
        for name in ("loss", "gradient_norm"):
            assert shared[name] == pytest.approx(alone[name], rel=1e-4)


def test_adapters_that_two_processes_trained_are_written_whole(toy: ToySet, tmp_path: Path) -> None:
    config = make_config(
        model={"kind": "checkpoint", "name": str(save_family("llava"))},
        lora={"rank": 4, "alpha": 8},
        optimiser={"steps": 4, "learning_rate": 0.01, "part_rates": {"tower": 0}},
    )
    run(config, shards=toy.shards, images=toy.images, out=tmp_path / "one")
    running = start(toy, tmp_path, config)
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    folders = [tmp_path / name / "checkpoints" / "step-000004" for name in ("one", "two")]
    for name in (ADAPTERS, TRAINED):
        alone, shared = (load_file(folder / name) for folder in folders)
        assert shared.keys() == alone.keys()
        for key, value in alone.items():
            torch.testing.assert_close(shared[key], value, atol=1e-4, rtol=1e-3)
    opened = open_checkpoint(folders[1]).assembly
    held = {
        f"base_model.model.{name.replace('.default.', '.')}": value
        for name, value in opened.model.named_parameters()
        if is_adapter(name)
    }
    assert digest_of(held.items()) == digest_of(load_file(folders[1] / ADAPTERS).items())


@pytest.mark.parametrize("keeper", ["memory", "folder"])
def test_two_processes_learn_from_kept_features_what_one_does_from_pixels(
    keeper: str, toy: ToySet, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    config = make_config(
        model={"kind": "checkpoint", "name": str(save_family("llava"))},
        optimiser={"steps": 5, "learning_rate": 0.01, "part_rates": {"tower": 0}},
        data__batch_images=24,
        scoring__validate_every=2,
    )
    run(config, shards=toy.shards, images=toy.images, out=tmp_path / "one")
    features = KeptFeatures(folder=str(kept) if keeper == "folder" else None)
    running = start(toy, tmp_path, config.model_copy(update={"features": features}))
    _, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert errors.count("vision features of 72 images") == 1
    one, two = (lines_of(tmp_path / name) for name in ("one", "two"))
    for alone, shared in zip(one, two, strict=True):
        for name in {"loss", "gradient_norm", "val_nll"} & alone.keys():
            assert shared[name] == pytest.approx(alone[name], rel=1e-4)
    hits = [line["cache_hits"] for line in two if "loss" in line]
    assert hits[:3] == [0] * 3
    if keeper == "folder":
        assert hits[4] == 24
        assert len(list(kept.glob("*/*.safetensors"))) == 72
        assert not list(kept.glob("*/*.partial"))
