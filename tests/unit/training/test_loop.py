from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from core.errors import ConfigError, PermanentError
from tests.unit.training.families import build_family
from tests.unit.training.toys import answer_loss, draw_picture, make_config
from training.adapters import choose_trained
from training.collate import IGNORED, Batch, collate, encode_conversation
from training.config import Optimiser, TrainingConfig
from training.efficiency import Work
from training.inputs import Inputs
from training.loop import StepLog, Training, learning_rate_factor, make_optimiser
from training.model import Assembly
from training.run import prepare_model, prepare_torch
from training.tree import Tree, collate_plain, collate_trees

TALK = [
    {"role": "user", "content": "Is this image real or fake?"},
    {"role": "assistant", "content": "The image is fake."},
]
LONG = [TALK[0], {"role": "assistant", "content": "Every second column is brighter. It is fake."}]
PLAIN = Optimiser(steps=1, learning_rate=1e-3)


def make_batch(assembly: Assembly) -> Batch:
    rows = [
        encode_conversation(talk, assembly, max_tokens=300, target="fake") for talk in (TALK, LONG)
    ]
    return collate(rows, [draw_picture(None, 1), draw_picture(None, 2)], assembly)


def losses_by_row(assembly: Assembly, batch: Batch) -> list[torch.Tensor]:
    """Each row forwarded alone and in full, then its answer tokens picked one by one."""
    rows = []
    for row in range(len(batch.labels)):
        length = int(batch.lengths[row])
        logits = assembly.model(
            input_ids=batch.inputs["input_ids"][row : row + 1, :length],
            pixel_values=batch.inputs["pixel_values"][row : row + 1],
        ).logits[0]
        labels = batch.labels[row]
        rows.append(
            torch.stack(
                [
                    functional.cross_entropy(logits[place - 1], labels[place])
                    for place in range(1, length)
                    if labels[place] != IGNORED
                ]
            )
        )
    return rows


def test_the_loss_equals_the_slow_reference(assembly: Assembly) -> None:
    batch = make_batch(assembly)
    rows = losses_by_row(assembly, batch)
    by_token = answer_loss(assembly.model, batch, PLAIN)
    assert by_token.item() == pytest.approx(torch.cat(rows).mean().item(), abs=1e-5)
    by_row = answer_loss(assembly.model, batch, PLAIN.model_copy(update={"row_weight": "equal"}))
    assert by_row.item() == pytest.approx(sum(r.mean().item() for r in rows) / 2, abs=1e-5)


def test_the_closed_answer_counts_as_often_as_asked(assembly: Assembly) -> None:
    batch = make_batch(assembly)
    settings = PLAIN.model_copy(update={"target_weight": 5.0})
    losses = torch.cat(losses_by_row(assembly, batch))
    is_target = batch.is_target[batch.labels != IGNORED]
    words = assembly.tokenizer.batch_decode(batch.labels[batch.is_target][:, None])
    assert words == [" fake", " fake"]
    weights = 1 + 4 * is_target
    expected = ((losses * weights).sum() / weights.sum()).item()
    assert answer_loss(assembly.model, batch, settings).item() == pytest.approx(expected, abs=1e-5)


def run_steps(config: TrainingConfig, inputs: Inputs) -> list[StepLog]:
    prepare_torch(config)
    assembly, _ = prepare_model(config, inputs)
    return list(Training(assembly, inputs.rows, inputs.folder, config).steps())


def test_two_runs_have_the_same_losses(inputs: Inputs) -> None:
    config = make_config(optimiser__steps=6, data__augment={"flips": True, "blur_share": 0.5})
    first, second = run_steps(config, inputs), run_steps(config, inputs)
    assert [step.loss for step in first] == [step.loss for step in second]
    other = run_steps(make_config(optimiser__steps=6, seed=2), inputs)
    assert [step.loss for step in first] != [step.loss for step in other]


def test_the_loss_falls_on_planted_stripes(inputs: Inputs) -> None:
    steps = run_steps(make_config(optimiser__steps=40), inputs)
    assert np.mean([step.loss for step in steps[-5:]]) < 0.5 * steps[0].loss
    assert [step.step for step in steps] == list(range(1, 41))
    assert all(step.answer_tokens >= step.rows == 2 * step.images == 16 for step in steps)
    assert all(step.tokens < step.plain_tokens for step in steps)


def test_trees_and_plain_batches_have_the_same_losses(inputs: Inputs) -> None:
    trees, plain = (
        run_steps(make_config(optimiser__steps=4, data__layout=layout), inputs)
        for layout in ("tree", "plain")
    )
    assert [s.loss for s in trees] == pytest.approx([s.loss for s in plain], abs=1e-4)
    assert [s.plain_tokens for s in trees] == [s.tokens for s in plain]


@pytest.mark.parametrize("layout", ["tree", "plain"])
def test_a_step_in_parts_learns_what_it_learns_at_once(inputs: Inputs, layout: str) -> None:
    whole, parts = (
        run_steps(
            make_config(
                optimiser__steps=3,
                optimiser__branch_weight="sqrt",
                data__layout=layout,
                data__images_at_once=at_once,
            ),
            inputs,
        )
        for at_once in (None, 3)
    )
    for one, other in zip(whole, parts, strict=True):
        assert other.loss == pytest.approx(one.loss, rel=1e-5)
        assert other.gradient_norm == pytest.approx(one.gradient_norm, rel=1e-4)
        assert other.losses == pytest.approx(one.losses, rel=1e-4)
        for name in ("images", "rows", "answer_tokens", "tokens", "plain_tokens"):
            assert getattr(other, name) == getattr(one, name)


def test_losses_are_logged_by_family_or_form(inputs: Inputs) -> None:
    changes = {"optimiser__target_weight": 1.0, "optimiser__row_weight": "tokens"}
    step = run_steps(make_config(optimiser__steps=1, **changes), inputs)[0]
    assert set(step.losses) == {"verdict_what", "verdict_is_fake", "discussion"}
    assert min(step.losses.values()) < step.loss < max(step.losses.values())


def test_rows_that_cannot_be_used_are_counted_and_the_rest_goes_on(inputs: Inputs) -> None:
    config = make_config(optimiser__steps=3, data__max_tokens=30)
    prepare_torch(config)
    assembly, _ = prepare_model(config, inputs)
    training = Training(assembly, inputs.rows, inputs.folder, config)
    steps = list(training.steps())
    assert training.set_aside.total() + sum(step.rows for step in steps) == 3 * 16
    assert training.set_aside.total() > 0
    assert all("discussion" not in step.losses for step in steps)


def test_a_step_without_a_row_to_learn_says_why(inputs: Inputs) -> None:
    config = make_config(optimiser__steps=1, data__max_tokens=16)
    assembly, _ = prepare_model(config, inputs)
    with pytest.raises(PermanentError, match=r"step 1: no row .*data\.max_tokens"):
        list(Training(assembly, inputs.rows, inputs.folder, config).steps())


def test_a_loss_that_is_no_number_stops_the_run(inputs: Inputs) -> None:
    config = make_config(optimiser__steps=3)
    assembly, _ = prepare_model(config, inputs)
    with torch.no_grad():
        assembly.model.lm_head.weight.fill_(math.nan)
    with pytest.raises(PermanentError, match=r"step 1: the loss is nan; lower"):
        list(Training(assembly, inputs.rows, inputs.folder, config).steps())


def test_a_gradient_that_is_no_number_stops_the_run(inputs: Inputs) -> None:
    config = make_config(optimiser__steps=2)
    assembly, _ = prepare_model(config, inputs)
    training = Training(assembly, inputs.rows, inputs.folder, config)
    weight = assembly.model.lm_head.weight
    weight.register_hook(lambda gradient: gradient * math.inf)
    before = weight.detach().clone()
    with pytest.raises(
        PermanentError, match=r"step 1: the length of the gradient is (inf|nan); lower"
    ):
        next(training.steps())
    assert weight.equal(before)


def test_a_model_that_keeps_a_cache_stops_the_run(
    assembly: Assembly, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = assembly.model.forward

    def caching(**inputs: Any) -> Any:
        return forward(**{**inputs, "use_cache": True})

    monkeypatch.setattr(assembly.model, "forward", caching)
    with pytest.raises(PermanentError, match="keeps a key-value cache while training"):
        answer_loss(assembly.model, make_batch(assembly), PLAIN)


@pytest.mark.parametrize("lay_out", [collate_plain, collate_trees])
def test_placeholders_that_do_not_match_their_images_stop_the_run(
    assembly: Assembly, lay_out: Callable[[Sequence[Tree], Assembly], Batch]
) -> None:
    row = encode_conversation(TALK, assembly, max_tokens=300)
    torn = replace(row, input_ids=(*row.input_ids[:-1], assembly.image_token_id))
    with pytest.raises(PermanentError, match="placeholders in the text do not match the images"):
        lay_out([Tree(draw_picture(None, 1), [torn])], assembly)


def test_metrics_say_how_fast_a_step_was_and_how_full_the_device(inputs: Inputs) -> None:
    config = make_config(optimiser__steps=1, optimiser__part_rates={"tower": 0.5})
    step = run_steps(config.model_copy(update={"peak_teraflops": 1.0}), inputs)[0]
    assert step.answer_tokens_per_second == pytest.approx(step.answer_tokens / step.step_seconds)
    assert step.images_per_second * 2 == pytest.approx(step.rows_per_second)
    assert step.branches == 2
    rate = step.learning_rate
    assert step.learning_rates == {"language": rate, "projector": rate, "tower": rate / 2}
    assert step.mfu is not None
    assert 0 < step.mfu < 1
    assert step.peak_memory > 100e6
    assert step.seconds == step.step_seconds >= step.waiting_seconds > 0
    assert run_steps(config, inputs)[0].mfu is None


def test_the_work_of_a_step_is_six_operations_for_each_parameter_and_token(
    assembly: Assembly,
) -> None:
    batch = make_batch(assembly)
    whole = Work.of(assembly.model, assembly.architecture)
    tower = sum(p.numel() for p in assembly.model.model.vision_tower.parameters())
    rest = sum(p.numel() for p in assembly.model.parameters()) - tower
    expected = 6 * rest * batch.tokens + 6 * tower * 2 * 16
    assert whole.operations(batch.tokens, 2 * 16) == expected
    assembly.model.model.vision_tower.requires_grad_(requires_grad=False)
    frozen = Work.of(assembly.model, assembly.architecture)
    expected = 6 * rest * batch.tokens + 2 * tower * 2 * 16
    assert frozen.operations(batch.tokens, 2 * 16) == expected


def test_a_row_without_answer_token_stops_the_run(assembly: Assembly) -> None:
    batch = make_batch(assembly)
    batch.labels[0] = IGNORED
    with pytest.raises(PermanentError, match="no answer token"):
        answer_loss(assembly.model, batch, PLAIN)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_no_cache_is_kept_although_the_checkpoint_asks_for_one(family: str) -> None:
    assembly = build_family(family)
    assert assembly.model.config.get_text_config().use_cache
    rows = [encode_conversation(TALK, assembly, max_tokens=300)]
    batch = collate(rows, [draw_picture(None, 1).resize((56, 56))], assembly)
    answer_loss(assembly.model, batch, PLAIN).backward()
    output = assembly.model(**batch.inputs, use_cache=False)
    assert output.past_key_values is None


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_frozen_parts_stay_and_the_others_move(family: str) -> None:
    assembly = build_family(family)
    settings = Optimiser(
        steps=1, learning_rate=0.1, part_rates={"tower": 0, "language": 0}, weight_decay=0.1
    )
    before = {name: p.detach().clone() for name, p in assembly.model.named_parameters()}
    choose_trained(assembly, settings)
    optimiser = make_optimiser(assembly, settings)
    rows = [encode_conversation(TALK, assembly, max_tokens=300)]
    batch = collate(rows, [draw_picture(None, 1).resize((56, 56))], assembly)
    answer_loss(assembly.model, batch, settings).backward()
    optimiser.step()
    moved = {name for name, p in assembly.model.named_parameters() if not p.equal(before[name])}
    assert moved
    assert {assembly.architecture.part_of(name) for name in moved} == {"projector"}


def test_freezing_everything_is_refused(assembly: Assembly) -> None:
    rates = {"tower": 0.0, "projector": 0.0, "language": 0.0}
    settings = Optimiser.model_validate({"steps": 1, "learning_rate": 0.1, "part_rates": rates})
    with pytest.raises(ConfigError, match="freeze every part"):
        choose_trained(assembly, settings)


def test_the_learning_rate_warms_up_and_ends_at_its_floor() -> None:
    settings = Optimiser(steps=110, learning_rate=1, warmup_steps=10, floor=0.1)
    factors = [learning_rate_factor(step, settings) for step in range(1, 111)]
    assert factors[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert factors[-1] == pytest.approx(0.1)
    assert factors[59] == pytest.approx(0.55)
    assert all(a >= b for a, b in pairwise(factors[9:]))
