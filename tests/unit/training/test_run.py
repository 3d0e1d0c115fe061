from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from tests.unit.training.events import read_events
from tests.unit.training.families import save_family
from tests.unit.training.toys import CHECKS, STRIPES, ToySet, make_config
from training.config import Checkpoint, dump_config
from training.model import load_checkpoint
from training.report import render_text
from training.run import run

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Done:
    """A finished run on the toy set."""

    folder: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def done(toy: ToySet, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("runs") / "toy"
    config = make_config(scoring__validate_every=50, optimiser__checkpoint_every=60)
    report = run(config, shards=toy.shards, images=toy.images, out=folder, trackers=["tensorboard"])
    assert report is not None
    return Done(folder, report)


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_folder_has_all_its_parts(done: Done, toy: ToySet) -> None:
    assert {path.name for path in done.folder.iterdir()} == {
        "config.yaml", "manifest.json", "metrics.jsonl", "checkpoints", "predictions.jsonl",
        "report.json", "report.html", "environment.txt", "tensorboard",
    }  # fmt: skip
    assert (done.folder / "manifest.json").read_bytes() == (
        toy.shards / "manifest.json"
    ).read_bytes()
    assert "torch==" in (done.folder / "environment.txt").read_text()
    steps = {path.name for path in (done.folder / "checkpoints").iterdir()}
    assert steps == {"step-000060", "step-000100"}


def test_metrics_hold_every_step_and_the_validations(done: Done) -> None:
    lines = read_lines(done.folder / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 101))
    validations = [line for line in lines if "val_auroc" in line]
    assert [line["step"] for line in validations] == [50, 100]
    assert all(line["val_images"] == 24 for line in validations)


@pytest.mark.parametrize("name", ["loss", "val_nll"])
def test_tensorboard_holds_what_the_metrics_hold(done: Done, name: str) -> None:
    lines = read_lines(done.folder / "metrics.jsonl")
    expected = {line["step"]: line[name] for line in lines if name in line}
    assert read_events(done.folder, name) == pytest.approx(expected, rel=1e-6)


def test_the_model_finds_planted_stripes_on_unseen_photographs(done: Done) -> None:
    lines = {line["name"]: line for line in done.report["table"]}
    assert lines["model"]["seen"]["value"] > 0.9
    assert lines["model"]["held_out"] is not None
    assert lines["model, images blanked"]["seen"]["value"] == 0.5
    assert set(lines) == {
        "model",
        "model, images blanked",
        "metadata only",
        "logistic regression on the rehearsal measurements",
    }


def test_predictions_have_one_line_per_image_of_the_test_split(done: Done) -> None:
    lines = read_lines(done.folder / "predictions.jsonl")
    assert len({line["image_id"] for line in lines}) == len(lines) == 48
    for line in lines:
        assert (line["label"] == "fake") == (line["generator"] is not None)
        assert (line["p_fake"] >= 0.5) == (line["log_odds"] >= 0)


def test_the_report_shows_every_part_and_what_is_simulated(done: Done) -> None:
    page = (done.folder / "report.html").read_text()
    for figure in ("roc", "reliability", "histogram", "losses"):
        assert f'<figure id="{figure}"><img' in page
    assert page.index("Simulated teacher: rehearsal.") < page.index("<h1>")
    assert f"Simulated generators: {CHECKS}, {STRIPES}." in page
    assert f"<td>{CHECKS}, held out</td>" in page
    assert "written after the fact" in page
    assert "simulated teacher, no expert" in page
    assert done.report["comparison"] in page.replace("&#39;", "'")


def test_the_report_is_one_file_that_asks_nobody_for_anything(done: Done) -> None:
    page = (done.folder / "report.html").read_text()
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    assert not re.search(r"<script|@import|url\(", page)


def test_the_report_says_what_was_learnt_from(done: Done) -> None:
    training = done.report["training"]
    assert (training["train_images"], training["train_rows"]) == (72, 216)


def test_the_terminal_gets_the_same_table(done: Done) -> None:
    text = render_text(done.report, done.folder)
    assert "Simulated generators" in text
    assert "held-out generators" in text
    assert done.report["comparison"] in text
    assert str(done.folder / "report.html") in text


def test_doing_the_same_run_again_does_nothing(
    done: Done, toy: ToySet, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (done.folder / "report.json").stat().st_mtime_ns
    config = make_config(scoring__validate_every=50, optimiser__checkpoint_every=60)
    assert run(config, shards=toy.shards, images=toy.images, out=done.folder) == done.report
    assert (done.folder / "report.json").stat().st_mtime_ns == before
    assert "nothing to do" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "report.json").unlink(), "not finished; go on with --resume"),
        (lambda folder: (folder / "config.yaml").unlink(), "is no run folder"),
        (
            lambda folder: (folder / "config.yaml").write_text(dump_config(make_config(seed=9))),
            "other settings or shards",
        ),
        (lambda folder: (folder / "manifest.json").write_text("{}"), "other settings or shards"),
    ],
)
def test_another_run_is_never_overwritten(
    done: Done, toy: ToySet, tmp_path: Path, damage: Any, message: str
) -> None:
    folder = Path(shutil.copytree(done.folder, tmp_path / "copy"))
    damage(folder)
    before = sorted(folder.rglob("*"))
    config = make_config(scoring__validate_every=50, optimiser__checkpoint_every=60)
    with pytest.raises(ConfigError, match=message):
        run(config, shards=toy.shards, images=toy.images, out=folder)
    assert sorted(folder.rglob("*")) == before


def test_a_saved_checkpoint_can_be_scored_without_training(
    done: Done, toy: ToySet, run_folder: Path
) -> None:
    name = str(done.folder / "checkpoints" / "step-000100")
    config = make_config(model={"kind": "checkpoint", "name": name}, optimiser__steps=0)
    run(config, shards=toy.shards, images=toy.images, out=run_folder)
    scores = [
        [line["log_odds"] for line in read_lines(folder / "predictions.jsonl")]
        for folder in (done.folder, run_folder)
    ]
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_a_checkpoint_of_each_family_trains_and_loads_again(
    family: str, toy: ToySet, run_folder: Path
) -> None:
    config = make_config(
        model={
            "kind": "checkpoint",
            "name": str(save_family(family)),
            "activation_checkpointing": True,
        },
        optimiser={"steps": 2, "learning_rate": 1e-3, "part_rates": {"tower": 0}},
        data__batch_images=2,
        scoring__answer_prefix=" The image is" if family == "llava" else "The image is",
    )
    report = run(config, shards=toy.shards, images=toy.images, out=run_folder)
    assert report["model"]["architecture"] == family
    assert report["model"]["trained_parameters"] < report["model"]["parameters"]
    saved = str(run_folder / "checkpoints" / "step-000002")
    assert load_checkpoint(Checkpoint(kind="checkpoint", name=saved)).model


def run_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "training.run", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_wrong_input_ends_with_one_line_and_exit_code_2(toy: ToySet, run_folder: Path) -> None:
    ended = run_command(
        "recipes/fakescope/training/tiny.yaml", "optimiser.stepz=3",
        "--shards", str(toy.shards), "--images", str(toy.images), "--out", str(run_folder),
    )  # fmt: skip
    assert ended.returncode == 2
    assert "did you mean steps?" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert not run_folder.exists()


HEEDS_CTRL_C = ("env", "--default-signal=INT")
"""a shell's background jobs, and so the tests that run in one, are started deaf to it"""


def test_ctrl_c_ends_with_one_line_and_exit_code_130(
    toy: ToySet, tmp_path: Path, run_folder: Path
) -> None:
    settings = tmp_path / "long.yaml"
    settings.write_text(dump_config(make_config(optimiser__steps=100_000)))
    running = subprocess.Popen(
        [
            *HEEDS_CTRL_C, sys.executable, "-m", "training.run", str(settings),
            "--shards", str(toy.shards), "--images", str(toy.images), "--out", str(run_folder),
        ],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = run_folder / "metrics.jsonl"
    while running.poll() is None and not (metrics.exists() and metrics.read_text()):
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; what was finished is kept"
    assert "Traceback" not in errors


def test_help_says_how_to_change_a_setting() -> None:
    ended = run_command("--help")
    assert ended.returncode == 0
    for word in ("--shards", "--images", "--out", "KEY=VALUE"):
        assert word in ended.stdout
