"""Two stages by one command: the projector is aligned, then the instructions are learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from tests.unit.training.families import save_family
from tests.unit.training.test_resume import records_of
from tests.unit.training.toys import ToySet, make_config, make_set
from training.fit import Fit
from training.run import run_stages

pytestmark = pytest.mark.full
CONFIG = make_config(
    model={"kind": "checkpoint", "name": str(save_family("llava"))},
    lora={"rank": 4},
    alignment={"steps": 3, "learning_rate": 0.01, "mix": {"verdict_what": 1}},
    optimiser={"epochs": 0.08, "learning_rate": 1e-3, "part_rates": {"tower": 0}},
    saving={"state_steps": 1},
    data__batch_images=4,
)


def train(toy: ToySet, out: Path, *, resume: bool = False) -> None:
    run_stages(CONFIG, shards=toy.shards, images=toy.images, out=out, resume=resume)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToySet:
    return make_set(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def undisturbed(toy: ToySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stages") / "run"
    train(toy, out)
    return out


def folders(out: Path) -> tuple[Path, Path]:
    return out.with_name("run-alignment"), out


def test_the_projector_is_aligned_and_the_second_stage_starts_from_it(undisturbed: Path) -> None:
    first, second = folders(undisturbed)
    checkpoint = first / "checkpoints" / "step-000003"
    before, after = (
        load_file(folder / "model.safetensors") for folder in (save_family("llava"), checkpoint)
    )
    moved = {name for name in after if not after[name].equal(before[name])}
    assert moved
    assert all("multi_modal_projector" in name for name in moved)
    settings = yaml.safe_load((second / "config.yaml").read_text())
    assert settings["model"]["name"] == str(checkpoint)
    assert settings["lora"]["rank"] == 4
    assert all(record["losses"].keys() == {"verdict_what"} for record in losses(first))
    assert len(losses(second)) == 3


def losses(folder: Path) -> list[dict[str, Any]]:
    return [record for record in records_of(folder) if "loss" in record]


def test_both_stages_go_on_where_they_were_cut_short(
    toy: ToySet, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    validate = Fit.validate

    def cut_short(self: Fit, step: int, log: Any) -> bool:
        if step == 3 and self.folder.path.name not in cut:
            cut.add(self.folder.path.name)
            raise KeyboardInterrupt
        return validate(self, step, log)

    cut: set[str] = set()
    monkeypatch.setattr(Fit, "validate", cut_short)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(toy, out, resume=True)
    train(toy, out, resume=True)
    assert cut == {"run", "run-alignment"}
    for own, expected in zip(folders(out), folders(undisturbed), strict=True):
        assert losses(own) == losses(expected)
