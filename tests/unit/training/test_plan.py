from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from core.recipe import RECIPES
from tests.unit.training.families import FAMILIES, save_family
from tests.unit.training.live_bytes import check_estimate
from tests.unit.training.toys import ToySet, make_config
from training.adapters import tune
from training.config import load_config
from training.data import plan_visits
from training.features import FeatureCache, amount
from training.inputs import Inputs, with_steps
from training.loop import Training
from training.memory import TreeSize
from training.model import Assembly
from training.plan import make_plan, to_text
from training.run import app, prepare_model

FILES = sorted(RECIPES.glob("*/training/*.yaml"))
LLAVA = RECIPES / "fakescope/training/llava-1.5-7b.yaml"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_training_file_of_every_recipe_can_be_planned(path: Path) -> None:
    config = load_config(path)
    plan = make_plan(config)
    assert 0 < plan.whole.trained <= plan.whole.parameters + plan.whole.adapters
    totals = [memory.total for memory in plan.memory]
    assert totals == sorted(totals, reverse=True)
    tokens = plan.tokens_per_step
    assert (
        (tokens.trees < tokens.plain)
        if config.data.branches > 1
        else (tokens.trees == tokens.plain)
    )
    known = {"llava": 7_063_427_072, "qwen2": 8_292_166_656}
    assert plan.whole.parameters == known.get(path.name[:5], plan.whole.parameters)


def test_a_published_model_is_planned_from_its_shape() -> None:
    plan = make_plan(load_config(LLAVA))
    trained = 7_063_427_072 - plan.parameters["tower"].parameters
    assert plan.whole.trained == trained
    alone, *_, eight = plan.memory
    assert alone.weights == 4 * 7_063_427_072
    assert (alone.gradients, alone.optimiser) == (4 * trained, 8 * trained)
    assert (eight.processes, eight.optimiser) == (8, trained)
    assert "is not at hand" in plan.assumed[0]
    assert plan.steps is None


def test_without_a_shape_the_checkpoint_is_asked_for() -> None:
    config = load_config(LLAVA, ["model.shape=null", "model.name=/nowhere/at/all"])
    with pytest.raises(ConfigError, match=r"model\.name: /nowhere/at/all cannot be loaded"):
        make_plan(config)


def test_the_plan_of_a_set_counts_what_the_run_then_learns(
    toy: ToySet, inputs: Inputs, assembly: Assembly
) -> None:
    config = make_config(optimiser__steps=4)
    plan = make_plan(config, toy.shards)
    assert not plan.assumed
    assert plan.whole.parameters == sum(p.numel() for p in assembly.model.parameters())
    steps = list(Training(assembly, inputs.rows, inputs.folder, config).steps())
    assert plan.steps == 4
    assert plan.tokens is not None
    assert plan.tokens.instructions == sum(step.rows for step in steps)
    for planned, counted in (
        (plan.tokens.trees, sum(step.tokens for step in steps)),
        (plan.tokens.plain, sum(step.plain_tokens for step in steps)),
        (plan.tokens.answers, sum(step.answer_tokens for step in steps)),
    ):
        assert planned == pytest.approx(counted, rel=0.1)


@pytest.mark.parametrize(
    ("family", "projector", "dtype", "autocast"),
    [
        *((family, 0, "float32", "none") for family in FAMILIES),
        ("llava", 1, "bfloat16", "none"),
        ("llava", 0, "float32", "bfloat16"),
        ("internvl", 1, "float32", "bfloat16"),
    ],
)
def test_the_plan_weighs_features_as_the_run_does(
    family: str, projector: int, dtype: str, autocast: str, toy: ToySet, inputs: Inputs
) -> None:
    config = make_config(
        model={"kind": "checkpoint", "name": str(save_family(family)), "dtype": dtype},
        optimiser={
            "steps": 1,
            "learning_rate": 1e-3,
            "part_rates": {"tower": 0, "projector": projector},
        },
        features={},
        autocast=autocast,
    )
    kept = make_plan(config, toy.shards).features
    assert kept is not None
    assembly, _ = prepare_model(config, inputs)
    tune(assembly, config)
    cache = FeatureCache(assembly, config, inputs.folder)
    said = cache.plan(inputs.rows.images())
    assert kept.images == 72
    assert kept.whole is not None
    assert f"about {amount(kept.each)} each, {amount(kept.whole)} in memory" in said


def test_the_plan_without_shards_weighs_the_features_of_an_image() -> None:
    rates = "optimiser.part_rates={tower: 0, projector: 0}"
    config = load_config(LLAVA, ["features={}", rates, "data.augment={}"])
    text = to_text(make_plan(config))
    each = 576 * 4096 * (2 if config.autocast == "bfloat16" else 4)
    assert f"features about {amount(each)} for each image; name the shards" in text


def test_the_tokens_of_a_tree_are_those_of_its_rows() -> None:
    tree = TreeSize(image=16, prefix=20, branches=(5, 7), answers=6)
    assert tree.tokens == 32
    assert tree.plain_tokens == 52


def test_an_epoch_visits_each_image_until_all_its_instructions_came(inputs: Inputs) -> None:
    optimiser = {"epochs": 2, "learning_rate": 1e-3, "warmup_share": 0.25}
    mix = {"verdict": 1, "discuss": 1}
    config = make_config(optimiser=optimiser, data__mix=mix, data__branches=2, data__batch_images=8)
    resolved = with_steps(config, inputs.rows).optimiser
    # 72 images with 3 instructions each take 2 visits of at most 2; 2 epochs in steps of 8 images
    assert (resolved.steps, resolved.warmup_steps, resolved.epochs) == (36, 9, None)
    visits = plan_visits(inputs.rows, mix, branches=2, seed=1)
    seen = {place for _, visit in zip(range(144), visits, strict=False) for place in visit.places}
    assert len(seen) == 216


def test_the_memory_is_what_a_step_takes(inputs: Inputs, toy: ToySet) -> None:
    """Of a small model, to a tenth; tests/full tries more of them."""
    config = make_config(
        data__batch_images=24,
        optimiser={"steps": 2, "learning_rate": 1e-3, "part_rates": {"tower": 0}},
        model={"kind": "checkpoint", "name": str(save_family("llava"))},
    )
    assert check_estimate(config, inputs, toy.shards) == pytest.approx(1, abs=0.1)


def test_the_command_prints_the_plan_and_writes_nothing(toy: ToySet, run_folder: Path) -> None:
    tiny = str(LLAVA.with_name("tiny.yaml"))
    settings = "data.mix={verdict: 1, discussion: 1}"
    shards, out = str(toy.shards), str(run_folder)
    arguments = [tiny, settings, "--plan", "--json", "--shards", shards, "--out", out]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0, ended.stderr
    plan = json.loads(ended.stdout)
    assert plan["steps"] == 500
    assert plan["memory"][0]["total"] > plan["memory"][0]["weights"] > 0
    assert plan["parameters"]["all"]["trained"] == plan["parameters"]["all"]["parameters"]
    assert not run_folder.exists()
