from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from core.errors import ConfigError
from core.ids import image_id_of, sha256_bytes
from instruct_builder.takedown import remove_features
from tests.unit.training.families import FAMILIES, save_family
from tests.unit.training.test_adapters import build, configure
from tests.unit.training.test_tree import SIZES, encode_all
from tests.unit.training.toys import ToySet, draw_picture, make_config
from training.attention import use_tree_attention
from training.collate import Batch
from training.config import TrainingConfig
from training.data import ImageFolder, ImageRef
from training.features import FeatureCache, count_hits, count_seen, forget
from training.fit import plan_features
from training.inputs import Inputs
from training.loop import Training
from training.losses import token_losses
from training.model import Assembly
from training.run import prepare_model, prepare_torch, run
from training.tree import Tree, collate_plain, collate_trees

FROZEN = {"tower": 0.0, "projector": 0.0}
WITH_PROJECTOR = {"tower": 0.0, "projector": 1.0}
CASES = [
    *((family, FROZEN, collate_trees) for family in FAMILIES),
    ("llava", WITH_PROJECTOR, collate_trees),
    ("internvl", WITH_PROJECTOR, collate_plain),
    ("qwen3_vl", FROZEN, collate_plain),
]


def store_pictures(folder: Path) -> list[ImageRef]:
    """The pictures of `encode_all`."""
    refs = []
    for seed, size in enumerate(SIZES):
        path = folder / f"{seed}.png"
        draw_picture(None, seed).resize(size).save(path)
        digest = sha256_bytes(path.read_bytes())
        refs.append(ImageRef(image_id_of(digest), path.name, digest))
    return refs


def settings(family: str, rates: dict[str, float], **changes: Any) -> TrainingConfig:
    changes = {"features": {}, "lora": None, **changes}
    return configure(family, optimiser__part_rates=rates, **changes)


def learn(assembly: Assembly, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    assembly.model.zero_grad()
    losses = token_losses(assembly.model, batch).values
    losses.sum().backward()
    gradients = {
        name: parameter.grad.clone()
        for name, parameter in assembly.model.named_parameters()
        if parameter.grad is not None
    }
    return losses.detach(), gradients


def see(trees: Sequence[Tree], refs: Sequence[ImageRef], cache: FeatureCache) -> list[Tree]:
    return [replace(tree, image=cache.read(ref)) for tree, ref in zip(trees, refs, strict=True)]


@pytest.mark.parametrize(("family", "rates", "lay_out"), CASES)
def test_kept_features_equal_pixels(
    family: str, rates: dict[str, float], lay_out: Any, tmp_path: Path
) -> None:
    config = settings(family, rates)
    assembly, refs = build(config), store_pictures(tmp_path)
    use_tree_attention(assembly.model)
    trees = encode_all(assembly)
    losses, gradients = learn(assembly, lay_out(trees, assembly))
    cache = FeatureCache(assembly, config, ImageFolder(tmp_path))
    for hits in (0, len(refs)):
        batch = lay_out(see(trees, refs, cache), assembly)
        assert count_hits(batch.inputs) == hits
        seen = count_seen(batch.inputs, assembly.image_token_id)
        assert (seen == 0) == (hits > 0)
        kept, kept_gradients = learn(assembly, replace(batch, inputs=cache.complete(batch.inputs)))
        torch.testing.assert_close(kept, losses, atol=2e-5, rtol=1e-5)
        assert kept_gradients.keys() == gradients.keys()
        for name, gradient in gradients.items():
            largest = float(gradient.abs().max())
            torch.testing.assert_close(
                kept_gradients[name], gradient, atol=1e-5 * largest + 1e-9, rtol=1e-4
            )


def test_what_a_projector_in_float32_takes_is_kept_in_the_bits_of_its_tower(
    tmp_path: Path,
) -> None:
    model = {"kind": "checkpoint", "name": str(save_family("llava")), "dtype": "bfloat16"}
    config = settings("llava", WITH_PROJECTOR, model=model)
    assembly, refs = build(config), store_pictures(tmp_path)
    use_tree_attention(assembly.model)
    trees = encode_all(assembly)
    losses, _ = learn(assembly, collate_trees(trees, assembly))
    cache = FeatureCache(assembly, config, ImageFolder(tmp_path))
    batch = collate_trees(see(trees, refs, cache), assembly)
    kept, _ = learn(assembly, replace(batch, inputs=cache.complete(batch.inputs)))
    torch.testing.assert_close(kept, losses, atol=0.02, rtol=0.01)
    features = cache.read(refs[0]).features
    assert features is not None
    assert [value.dtype for value in features.values] == [torch.bfloat16]


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def test_a_trained_projector_within_the_tower_is_refused(family: str, tmp_path: Path) -> None:
    config = settings(family, WITH_PROJECTOR)
    with pytest.raises(ConfigError, match=r"behind the projector.*part_rates\.projector=0"):
        FeatureCache(build(config), config, ImageFolder(tmp_path))


def test_a_trained_tower_and_changing_images_are_refused(
    inputs: Inputs, assembly: Assembly, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"tower is trained.*part_rates\.tower=0"):
        FeatureCache(assembly, make_config(features={}), inputs.folder)
    config = settings("llava", FROZEN, data__augment={"flips": True})
    with pytest.raises(ConfigError, match=r"data\.augment changes the images"):
        FeatureCache(build(config), config, ImageFolder(tmp_path))


def test_features_on_the_disk_serve_other_runs_with_the_same_tower(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    config = settings("qwen3_vl", FROZEN, features={"folder": str(kept)})
    refs = store_pictures(tmp_path)
    assembly = build(config)
    trees, images = encode_all(assembly), ImageFolder(tmp_path)
    first = FeatureCache(assembly, config, images)
    use_tree_attention(assembly.model)
    batch = collate_trees(see(trees, refs, first), assembly)
    losses, _ = learn(assembly, replace(batch, inputs=first.complete(batch.inputs)))
    (folder,) = kept.iterdir()
    assert {path.stem for path in folder.glob("*.safetensors")} == {r.image_id for r in refs}
    assert json.loads((folder / "features.json").read_text())["parts"] == ["projector", "tower"]
    for ref in refs:
        images.path_of(ref).unlink()
    again = build(config)
    use_tree_attention(again.model)
    second = FeatureCache(again, config, images)
    found = collate_trees(see(trees, refs, second), again)
    assert count_hits(found.inputs) == len(refs)
    assert torch.equal(
        learn(again, replace(found, inputs=second.complete(found.inputs)))[0], losses
    )
    with torch.no_grad():
        next(iter(again.model.model.visual.parameters())).mul_(1.01)
    FeatureCache(again, config, images)
    assert len(list(kept.iterdir())) == 2


def test_features_of_other_bytes_are_not_taken(tmp_path: Path) -> None:
    config = settings("llava", FROZEN, features={"folder": str(tmp_path / "kept")})
    assembly = build(config)
    cache = FeatureCache(assembly, config, ImageFolder(tmp_path))
    ref = store_pictures(tmp_path)[0]
    cache.complete({"sights": (cache.read(ref),)})
    assert cache.read(ref).features is not None
    with pytest.raises(ConfigError, match="has changed since the shards were built"):
        cache.read(replace(ref, sha256="0" * 64))


@pytest.fixture
def frozen(toy: ToySet, tmp_path: Path) -> TrainingConfig:
    return make_config(
        model={"kind": "checkpoint", "name": str(save_family("llava"))},
        optimiser={"steps": 6, "learning_rate": 0.01, "part_rates": {"tower": 0}},
        data__batch_images=24,
        features={"folder": str(tmp_path / "kept")},
    )


def train(config: TrainingConfig, inputs: Inputs) -> list[tuple[float, int | None]]:
    prepare_torch(config)
    assembly, _ = prepare_model(config, inputs)
    steps = Training(assembly, inputs.rows, inputs.folder, config).steps()
    return [(step.loss, step.cache_hits) for step in steps]


def test_after_every_image_was_seen_all_are_hits(frozen: TrainingConfig, inputs: Inputs) -> None:
    without = train(frozen.model_copy(update={"features": None}), inputs)
    first, second = train(frozen, inputs), train(frozen, inputs)
    assert [loss for loss, _ in first] == pytest.approx([loss for loss, _ in without], rel=1e-4)
    assert [loss for loss, _ in second] == [loss for loss, _ in first]
    assert [hits for _, hits in without] == [None] * 6
    assert [hits for _, hits in first][:3] == [0] * 3
    assert [hits for _, hits in first][-2:] == [24] * 2
    assert [hits for _, hits in second] == [24] * 6


def test_a_run_says_what_its_features_weigh_and_lets_go_of_withdrawn_images(
    frozen: TrainingConfig, inputs: Inputs, toy: ToySet, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config = frozen.model_copy(
        update={"optimiser": frozen.optimiser.model_copy(update={"steps": 1})}
    )
    run(config, shards=toy.shards, images=toy.images, out=tmp_path / "run")
    said = capsys.readouterr().err
    assert "vision features of 72 images: about 2.05 kB each, 147 kB in " in said
    assert "0 of them kept before" in said
    kept = sorted((tmp_path / "kept").glob("*/*.safetensors"))
    assert len(kept) == 24
    manifest = inputs.manifest.model_copy(update={"tombstones": (kept[0].stem, "img-other")})
    assembly, _ = prepare_model(config, inputs)
    training = Training(assembly, inputs.rows, inputs.folder, config)
    assert training.features is not None
    plan_features(training.features, replace(inputs, manifest=manifest), config)
    said = capsys.readouterr().err
    assert "features of withdrawn images: 1 deleted" in said
    assert "23 of them kept before" in said
    assert forget(tmp_path / "kept", [kept[1].stem]) == 1
    assert remove_features(tmp_path / "kept", [kept[3].stem]) == 1
    assert [path.exists() for path in kept[:5]] == [False, False, True, False, True]


def test_features_that_do_not_fit_are_refused_before_any_is_kept(
    frozen: TrainingConfig, inputs: Inputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembly, _ = prepare_model(frozen, inputs)
    training = Training(assembly, inputs.rows, inputs.folder, frozen)
    assert training.features is not None
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(ConfigError, match=r"147 kB would not fit into the 100 kB that are free"):
        training.features.plan(inputs.rows.images())
    assert not list((tmp_path / "kept").glob("*/*.safetensors"))
