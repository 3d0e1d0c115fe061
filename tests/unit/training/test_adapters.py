from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from core.errors import ConfigError, PermanentError
from tests.unit.training.families import FAMILIES, build_family, save_family
from tests.unit.training.test_tree import encode_all
from tests.unit.training.toys import answer_loss, draw_picture, make_config
from training import adapters
from training.adapters import (
    add_adapters,
    digest_of,
    gather,
    is_adapter,
    merge_adapters,
    save_weights,
    tune,
)
from training.attention import use_tree_attention
from training.checkpoint import save_checkpoint
from training.config import Checkpoint, Lora, TrainingConfig
from training.loop import make_optimiser
from training.model import Assembly, load_checkpoint
from training.parity import check_parity
from training.score import resolve_verdict, score_images
from training.tree import collate_trees

LORA = {"rank": 4, "alpha": 8}


def configure(family: str, **changes: Any) -> TrainingConfig:
    values: dict[str, Any] = {
        "model": {"kind": "checkpoint", "name": str(save_family(family))},
        "lora": LORA,
        "optimiser__part_rates": {"tower": 0, "projector": 0.5},
        "scoring__answer_prefix": " The image is" if family == "llava" else "The image is",
    }
    return make_config(**{**values, **changes})


def build(config: TrainingConfig) -> Assembly:
    assert isinstance(config.model, Checkpoint)
    assembly = load_checkpoint(config.model)
    if config.lora is not None:
        assembly = add_adapters(assembly, config.lora, config.model)
    tune(assembly, config)
    return assembly


def learn(assembly: Assembly, config: TrainingConfig, *, steps: int = 2) -> None:
    use_tree_attention(assembly.model)
    optimiser = make_optimiser(assembly, config.optimiser)
    batch = collate_trees(encode_all(assembly), assembly)
    assembly.model.train()
    for _ in range(steps):
        optimiser.zero_grad()
        answer_loss(assembly.model, batch, config.optimiser).backward()
        optimiser.step()
    assembly.model.eval()


def scores(assembly: Assembly, config: TrainingConfig) -> list[float]:
    images = [draw_picture(None, seed).resize((70, 60)) for seed in range(2)]
    return score_images(images, resolve_verdict(config.scoring, assembly), assembly)


def trained(assembly: Assembly) -> set[tuple[str, bool]]:
    """Part, and whether an adapter, of all that is trained."""
    return {
        (assembly.architecture.part_of(name), is_adapter(name))
        for name, parameter in assembly.model.named_parameters()
        if parameter.requires_grad
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_sit_in_the_language_model_alone_and_come_back(
    family: str, tmp_path: Path
) -> None:
    config = configure(family)
    assembly = build(config)
    assert trained(assembly) == {("language", True), ("projector", False)}
    check_before = scores(assembly, config)
    assert check_before == scores(build_family(family), config)
    frozen = {n: p.clone() for n, p in assembly.model.named_parameters() if not p.requires_grad}
    learn(assembly, config)
    after = dict(assembly.model.named_parameters())
    assert all(torch.equal(after[name], value) for name, value in frozen.items())
    check_after = scores(assembly, config)
    assert check_after != check_before
    saved = save_checkpoint(assembly, tmp_path, step=1, facts={})
    assert not (saved / "model.safetensors").exists()
    again = load_checkpoint(Checkpoint(kind="checkpoint", name=str(saved)))
    again.model.eval()
    assert scores(again, config) == check_after
    assert scores(merge_adapters(again), config) == pytest.approx(check_after, abs=1e-5)
    assert not any(is_adapter(name) for name, _ in again.model.named_parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_trees_with_adapters_equal_separate_rows(family: str) -> None:
    config = configure(family)
    assembly = build(config)
    learn(assembly, config, steps=1)  # B is zero before, and A has no gradient
    check_parity(assembly, encode_all(assembly))


def test_peft_itself_opens_the_adapters(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForImageTextToText

    config = configure("llava", optimiser__part_rates={"tower": 0, "projector": 0})
    assembly = build(config)
    learn(assembly, config)
    save_weights(assembly, tmp_path)
    base = AutoModelForImageTextToText.from_pretrained(save_family("llava"))
    opened = PeftModel.from_pretrained(base, tmp_path)
    theirs = {name: value for name, value in opened.named_parameters() if is_adapter(name)}
    ours = {f"base_model.model.{name}": value for name, value in gather(assembly.model)}
    assert digest_of(theirs.items()) == digest_of(ours.items())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [None, LORA])
def test_a_tower_is_trained_only_where_the_settings_ask_for_it(family: str, lora: Any) -> None:
    with pytest.raises(ConfigError, match=r"tower would be trained .*part_rates.tower=0"):
        build(configure(family, lora=lora, optimiser__part_rates={}))
    asked = build(configure(family, lora=lora, optimiser__part_rates={"tower": 0.1}))
    assert ("tower", False) in trained(asked)


def test_a_tower_can_have_adapters_where_it_is_named() -> None:
    lora = {**LORA, "parts": ["tower", "language"], "layers": ["q_proj", "v_proj"]}
    assembly = build(configure("llava", lora=lora, optimiser__part_rates={"projector": 0}))
    assert trained(assembly) == {("tower", True), ("language", True)}


def test_layers_that_nothing_is_called_name_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match=r"layer of language is called qkv; there are .*q_proj"):
        build(configure("qwen2_5_vl", lora={**LORA, "layers": ["qkv"]}))


def test_named_layers_are_frozen(tmp_path: Path) -> None:
    freeze = ["*.layers.0.*", "*embed_tokens*"]
    assembly = build(configure("llava", lora=None, optimiser__freeze=freeze))
    frozen = {n for n, p in assembly.model.named_parameters() if not p.requires_grad}
    assert any("language_model.layers.0.mlp" in name for name in frozen)
    assert "model.language_model.embed_tokens.weight" in frozen
    assert not any("language_model.layers.1." in name for name in frozen)
    with pytest.raises(ConfigError, match="no parameter is called nothing"):
        build(configure("llava", lora=None, optimiser__freeze=["nothing"]))


def test_each_part_has_its_rate() -> None:
    config = configure("llava")
    rates = {group["lr"] for group in make_optimiser(build(config), config.optimiser).param_groups}
    assert rates == {0.003, 0.0015}


@pytest.mark.parametrize("family", ["llava", "qwen3_vl"])
def test_what_is_trained_keeps_its_bits_on_a_base_with_fewer(family: str, tmp_path: Path) -> None:
    model = {"kind": "checkpoint", "name": str(save_family(family)), "dtype": "bfloat16"}
    config = configure(family, model=model)
    assembly = build(config)
    types = {p.dtype for p in assembly.model.parameters() if p.requires_grad}
    assert types == {torch.float32}
    assert any(p.dtype == torch.bfloat16 for p in assembly.model.parameters())
    learn(assembly, config)
    saved = save_checkpoint(assembly, tmp_path, step=1, facts={})
    again = load_checkpoint(Checkpoint(kind="checkpoint", name=str(saved)))
    again.model.eval()
    assert scores(again, config) == scores(assembly, config)


def test_adapters_on_another_base_are_refused(tmp_path: Path) -> None:
    base = save_folder(tmp_path / "base")
    model = {"kind": "checkpoint", "name": str(base)}
    assembly = build(configure("llava", model=model))
    saved = save_checkpoint(assembly, tmp_path, step=1, facts={})
    other = load_checkpoint(Checkpoint(kind="checkpoint", name=str(base)))
    with torch.no_grad():
        other.model.lm_head.weight.mul_(1.01)
    other.save(base)
    with pytest.raises(ConfigError, match="trained on other weights than those of"):
        load_checkpoint(Checkpoint(kind="checkpoint", name=str(saved)))


def save_folder(folder: Path) -> Path:
    build_family("llava").save(folder)
    return folder


def test_a_torn_write_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def losing(tensors: dict[str, Any], path: Path, **options: Any) -> None:
        first = next(iter(tensors))
        write({**tensors, first: torch.zeros_like(tensors[first])}, path, **options)

    from safetensors.torch import save_file as write

    monkeypatch.setattr("safetensors.torch.save_file", losing)
    with pytest.raises(PermanentError, match="what was written is not what the model holds"):
        save_weights(build(configure("llava")), tmp_path)


def test_quantised_weights_need_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapters, "find_spec", lambda _: None)
    settings = Checkpoint(kind="checkpoint", name=str(save_family("llava")))
    with pytest.raises(ConfigError, match=r"bitsandbytes is not installed.*quantised=false"):
        load_checkpoint(settings, quantised=True)


def test_adapters_need_a_checkpoint_to_sit_on() -> None:
    with pytest.raises(ValueError, match="adapters need a model of kind checkpoint"):
        make_config(lora=Lora())
