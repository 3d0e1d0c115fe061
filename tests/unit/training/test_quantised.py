"""QLoRA with the real bitsandbytes, on the processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from core.errors import ConfigError
from tests.unit.training.families import FAMILIES
from tests.unit.training.test_adapters import LORA, configure, learn, scores, trained
from tests.unit.training.test_resume import begin, take
from tests.unit.training.test_tree import encode_all
from tests.unit.training.toys import ToySet
from training.adapters import add_adapters, is_adapter, tune
from training.checkpoint import save_checkpoint
from training.config import Checkpoint, TrainingConfig
from training.export import export
from training.inputs import Inputs
from training.model import Assembly, load_checkpoint
from training.parity import check_parity
from training.resume import load_state, save_state
from training.run import run

bitsandbytes = pytest.importorskip("bitsandbytes", reason="pip install bitsandbytes")


def in_four_bits(family: str) -> tuple[TrainingConfig, Assembly]:
    config = configure(family, lora={**LORA, "quantised": True})
    assert isinstance(config.model, Checkpoint)
    assert config.lora is not None
    bare = load_checkpoint(config.model, quantised=True)
    assembly = add_adapters(bare, config.lora, config.model)
    tune(assembly, config)
    return config, assembly


def linear_layers(assembly: Assembly, kind: type[nn.Module]) -> set[str]:
    """Parts that have layers of a kind; those of adapters do not count."""
    return {
        assembly.architecture.part_of(f"{name}.weight")
        for name, module in assembly.model.named_modules()
        if isinstance(module, kind) and not is_adapter(f"{name}.weight")
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_learn_on_four_bits_and_come_back(family: str, tmp_path: Path) -> None:
    config, assembly = in_four_bits(family)
    assert linear_layers(assembly, bitsandbytes.nn.Linear4bit) == {"language"}
    assert trained(assembly) == {("language", True), ("projector", False)}
    frozen = {n: p.clone() for n, p in assembly.model.named_parameters() if not p.requires_grad}
    before = scores(assembly, config)
    learn(assembly, config)
    after = dict(assembly.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    learnt = scores(assembly, config)
    assert learnt != before
    saved = save_checkpoint(assembly, tmp_path, step=1, facts={})
    again = load_checkpoint(Checkpoint(kind="checkpoint", name=str(saved)))
    again.model.eval()
    assert linear_layers(again, bitsandbytes.nn.Linear4bit) == {"language"}
    assert scores(again, config) == learnt


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_on_four_bits_equal_separate_rows(family: str) -> None:
    config, assembly = in_four_bits(family)
    learn(assembly, config, steps=1)  # B is zero before, and A has no gradient
    check_parity(assembly, encode_all(assembly))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_adapter_has_a_gradient_after_an_evaluation(family: str) -> None:
    config, assembly = in_four_bits(family)
    scores(assembly, config)
    learn(assembly, config, steps=1)
    named = dict(assembly.model.named_parameters())
    adapters = [name for name in named if is_adapter(name)]
    assert adapters
    moved = [name for name in adapters if "lora_B" in name and named[name].count_nonzero()]
    assert moved == [name for name in adapters if "lora_B" in name]


def test_a_run_on_four_bits_goes_on_to_the_bit(inputs: Inputs, tmp_path: Path) -> None:
    config = configure("llava", lora={**LORA, "quantised": True}, optimiser__steps=4)
    expected = [step.loss for step in begin(config, inputs).steps()]
    first = begin(config, inputs)
    before = take(first.steps(), 2)
    save_state(tmp_path, first.save(), step=2)
    saved = load_state(tmp_path)
    assert saved is not None
    second = begin(config, inputs)
    second.restore(saved)
    assert before + [step.loss for step in second.steps()] == expected


def test_a_run_on_four_bits_has_a_report_and_no_export(toy: ToySet, tmp_path: Path) -> None:
    config = configure("llava", lora={**LORA, "quantised": True}, optimiser__steps=2)
    out = tmp_path / "run"
    report = run(config, shards=toy.shards, images=toy.images, out=out)
    assert report is not None
    with pytest.raises(ConfigError, match=r"4-bit weights cannot be merged .*without an export"):
        export(out, tmp_path / "model")
