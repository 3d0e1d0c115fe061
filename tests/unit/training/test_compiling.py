"""Compiled decoder layers learn what they learn as they are, and are compiled once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import ConfigError, PermanentError
from tests.unit.training.families import FAMILIES, build_family, save_family
from tests.unit.training.test_tree import TALKS, encode_all
from tests.unit.training.toys import ToySet, make_config
from training.attention import use_tree_attention
from training.compiling import compile_layers, describe_compilation
from training.config import TrainingConfig
from training.inputs import Inputs
from training.loop import StepLog, Training
from training.losses import token_losses
from training.model import Assembly
from training.parity import check_parity
from training.run import prepare_model, prepare_torch, run
from training.tree import collate_plain, collate_trees

FORESTS = (TALKS[:1], TALKS, TALKS[1:], TALKS[2:])
"""of one to three trees, whose branches fall into one to three groups of lengths"""


@pytest.fixture(autouse=True)
def _forget_compiled_code() -> None:
    torch.compiler.reset()


class Counting:
    """In the place of a compiler: what it is given is run as it is, and counted."""

    def __init__(self, change: float = 1.0) -> None:
        self.graphs = 0
        self._change = change

    def __call__(self, graph: Any, _: Sequence[Tensor]) -> Callable[..., Any]:
        self.graphs += 1

        def run(*inputs: Any) -> Any:
            return [
                each * self._change if isinstance(each, Tensor) and each.requires_grad else each
                for each in graph(*inputs)
            ]

        return run


def compiled_family(family: str, compiler: Counting, *, recomputes: bool = False) -> Assembly:
    assembly = build_family(family)
    if recomputes:
        assembly.model.model.language_model.activation_checkpointing_enable()
    use_tree_attention(assembly.model, in_compiled=True)
    compile_layers(assembly.model, backend=compiler)
    return assembly


def learn(assembly: Assembly, talks: Sequence[Any]) -> tuple[Tensor, list[Tensor]]:
    assembly.model.train().zero_grad()
    batch = collate_trees(encode_all(assembly, talks=talks), assembly)
    losses = token_losses(assembly.model, batch).values
    losses.sum().backward()
    gradients = [p.grad.clone() for p in assembly.model.parameters() if p.grad is not None]
    return losses.detach(), gradients


@pytest.mark.parametrize(
    ("family", "recomputes"),
    [
        ("llava", False),
        ("qwen2_5_vl", True),
        *(pytest.param(family, False, marks=pytest.mark.full) for family in FAMILIES[1:]),
    ],
)
def test_layers_are_compiled_once_for_all_trees(family: str, recomputes: bool) -> None:
    plain = build_family(family)
    use_tree_attention(plain.model)
    expected = [learn(plain, talks) for talks in FORESTS]
    compiler = Counting()
    assembly = compiled_family(family, compiler, recomputes=recomputes)
    learn(assembly, FORESTS[0])
    graphs = compiler.graphs
    assert graphs > 0
    for talks, (losses, gradients) in zip(FORESTS, expected, strict=True):
        own, own_gradients = learn(assembly, talks)
        torch.testing.assert_close(own, losses, atol=1e-6, rtol=1e-5)
        for one, other in zip(own_gradients, gradients, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
    assert compiler.graphs == graphs


def test_what_does_not_learn_is_not_compiled() -> None:
    compiler = Counting()
    assembly = compiled_family("llava", compiler)
    plain = build_family("llava")
    batch = collate_plain(encode_all(assembly), assembly)
    with torch.no_grad():
        logits = assembly.model.eval()(**batch.inputs).logits
        assert torch.equal(logits, plain.model.eval()(**batch.inputs).logits)
    assert compiler.graphs == 0


def test_weights_keep_their_names() -> None:
    names = list(build_family("llava").model.state_dict())
    assert list(compiled_family("llava", Counting()).model.state_dict()) == names


def test_the_self_test_tries_the_compiled_layers() -> None:
    compiler = Counting()
    assembly = compiled_family("llava", compiler)
    check_parity(assembly, encode_all(assembly), are_compiled=True)
    assert compiler.graphs > 0
    torch.compiler.reset()
    wrong = compiled_family("llava", Counting(change=1.01))
    with pytest.raises(PermanentError, match=r"differ from separate .* write compile=false"):
        check_parity(wrong, encode_all(wrong), are_compiled=True)


def test_without_a_compiler_the_run_stops_with_one_line(
    toy: ToySet, run_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import torch._inductor.config as inductor

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(ConfigError) as error:
        run(make_config(compile=True), shards=toy.shards, images=toy.images, out=run_folder)
    assert "compile: nothing can be compiled for cpu" in str(error.value)
    assert "install a C++ compiler, or write compile=false" in str(error.value)
    assert "\n" not in str(error.value)
    assert not run_folder.exists()


def test_what_is_compiled_is_said() -> None:
    told = describe_compilation(build_family("qwen2_5_vl").model)
    assert told.startswith("compiled while they learn: 2 Qwen2_5_VLDecoderLayer")


def train(config: TrainingConfig, inputs: Inputs) -> list[StepLog]:
    prepare_torch(config)
    assembly, _ = prepare_model(config, inputs)
    return list(Training(assembly, inputs.rows, inputs.folder, config).steps())


CHECKPOINT = {"kind": "checkpoint", "name": "", "activation_checkpointing": False}
ADAPTED = {"rank": 4, "alpha": 8}
CASES = [
    ("llava", {}, None),
    ("llava", {"activation_checkpointing": True}, None),
    ("qwen2_5_vl", {}, None),
    ("qwen2_5_vl", {"activation_checkpointing": True}, ADAPTED),
    ("qwen3_vl", {}, ADAPTED),
    ("internvl", {}, None),
    ("llava_onevision", {}, None),
]


def configure(family: str, model: dict[str, Any], lora: Any, **changes: Any) -> TrainingConfig:
    return make_config(
        model={**CHECKPOINT, "name": str(save_family(family)), **model},
        lora=lora,
        optimiser={"steps": 6, "learning_rate": 0.003, "part_rates": {"tower": 0}},
        **changes,
    )


@pytest.mark.full
@pytest.mark.parametrize(("family", "model", "lora"), CASES)
def test_compiled_layers_learn_what_they_learn_as_they_are(
    family: str, model: dict[str, Any], lora: Any, inputs: Inputs
) -> None:
    """Also the self-test is passed, before the first step."""
    eager = train(configure(family, model, lora), inputs)
    compiled = train(configure(family, model, lora, compile=True), inputs)
    for one, other in zip(compiled, eager, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-4)
        assert one.gradient_norm == pytest.approx(other.gradient_norm, rel=1e-3)


@pytest.mark.full
def test_plain_batches_learn_compiled_too(inputs: Inputs) -> None:
    eager = train(configure("llava", {}, None, data__layout="plain"), inputs)
    compiled = train(configure("llava", {}, None, data__layout="plain", compile=True), inputs)
    assert [s.loss for s in compiled] == pytest.approx([s.loss for s in eager], rel=1e-4)
