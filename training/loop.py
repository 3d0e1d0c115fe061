"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch.nn import functional

from core.errors import ConfigError, DataError, PermanentError
from core.ids import seed_of
from training.augment import augment
from training.collate import IGNORED, Batch, collate, encode_conversation
from training.config import DataSettings, Optimiser, Part, TrainingConfig
from training.data import ImageFolder, PlannedBatch, Rows, plan_batches
from training.model import Assembly

if TYPE_CHECKING:
    from torch import Tensor


Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLog:
    """One line of `metrics.jsonl`."""

    step: int
    loss: float
    key: str
    """family or form of the batch"""
    rows: int
    answer_tokens: int
    learning_rate: float
    gradient_norm: float
    seconds: float
    """since the start"""
    waiting_seconds: float
    """waited for the images and tokens of this step"""


@dataclass(slots=True)
class SetAside:
    """Rows that could not be used."""

    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        return self.reasons.total()


def train(
    assembly: Assembly,
    rows: Rows,
    images: ImageFolder,
    config: TrainingConfig,
    *,
    after_step: Callable[[StepLog], None],
) -> SetAside:
    """Train `assembly.model` in place; `after_step` is called after every step.

    On a CPU the same inputs and seed give the same losses. Raises PermanentError when the loss is
    no longer a number or a batch has nothing to learn.
    """
    settings, model = config.optimiser, assembly.model
    device = choose_device(config)
    model.to(device).train()
    optimiser = make_optimiser(assembly, settings)
    peaks = [group["lr"] for group in optimiser.param_groups]
    set_aside = SetAside()
    batches = read_batches(rows, images, assembly, config, set_aside=set_aside)
    started = asked = time.perf_counter()
    for step, (planned, batch) in enumerate(read_ahead(batches), start=1):
        waited = time.perf_counter() - asked
        factor = learning_rate_factor(step, settings)
        for group, peak in zip(optimiser.param_groups, peaks, strict=True):
            group["lr"] = peak * factor
        with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast == "bfloat16"):
            loss = answer_loss(model, batch, settings)
        value = loss.item()
        if not math.isfinite(value):
            raise PermanentError(
                f"step {step}, {planned.key}: the loss is {value}; lower optimiser.learning_rate, "
                "lengthen optimiser.warmup_steps or train in float32"
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        optimiser.step()
        after_step(
            StepLog(
                step=step,
                loss=value,
                key=planned.key,
                rows=len(batch.labels),
                answer_tokens=int((batch.labels != IGNORED).sum()),
                learning_rate=settings.learning_rate * factor,
                gradient_norm=float(norm),
                seconds=time.perf_counter() - started,
                waiting_seconds=waited,
            )
        )
        asked = time.perf_counter()
    model.eval()
    return set_aside


def choose_device(config: TrainingConfig) -> torch.device:
    """The device of the run; a ConfigError when CUDA is asked for and there is none."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda, but torch finds no CUDA device; write device=cpu")
    name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name if config.device == "auto" else config.device)


def make_optimiser(assembly: Assembly, settings: Optimiser) -> torch.optim.Optimizer:
    """AdamW over the parts that are not frozen; no decay on vectors (norms and biases)."""
    groups: dict[tuple[Part, bool], list[Any]] = {}
    for name, parameter in assembly.model.named_parameters():
        part = assembly.architecture.part_of(name)
        is_frozen = _rate(part, settings) == 0
        parameter.requires_grad_(not is_frozen)
        if not is_frozen:
            groups.setdefault((part, parameter.ndim >= 2), []).append(parameter)
    if not groups:
        raise ConfigError("optimiser.part_rates freezes every part; nothing is left to train")
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": settings.learning_rate * _rate(part, settings),
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (part, decays), parameters in groups.items()
        ],
        betas=settings.betas,
    )


def _rate(part: Part, settings: Optimiser) -> float:
    return settings.part_rates.get(part, 1.0)


def learning_rate_factor(step: int, settings: Optimiser) -> float:
    """Linear warm-up, then a cosine down to `floor`; steps count from 1."""
    if step <= settings.warmup_steps:
        return step / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return settings.floor + (1 - settings.floor) * 0.5 * (1 + math.cos(math.pi * done))


def read_ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; a second thread makes the next one while one is in use."""
    with ThreadPoolExecutor(1, "reader") as reader:
        waiting = reader.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = reader.submit(next, items, None)
            yield item


def read_batches(
    rows: Rows,
    images: ImageFolder,
    assembly: Assembly,
    config: TrainingConfig,
    *,
    set_aside: SetAside,
) -> Iterator[tuple[PlannedBatch, Batch]]:
    """The batches of a run, one for each step."""
    rng = np.random.default_rng(seed_of("augment", config.seed))
    planned = plan_batches(
        rows, config.data.mix, batch_rows=config.data.batch_rows, seed=config.seed
    )
    for plan in islice(planned, config.optimiser.steps):
        yield (
            plan,
            read_batch(plan, rows, images, assembly, config.data, rng=rng, set_aside=set_aside),
        )


def read_batch(
    planned: PlannedBatch,
    rows: Rows,
    images: ImageFolder,
    assembly: Assembly,
    settings: DataSettings,
    *,
    rng: np.random.Generator,
    set_aside: SetAside,
) -> Batch:
    """The tensors of one step; rows that cannot be used are counted and left out."""
    encoded, pictures = [], []
    for row in rows.take(planned.places):
        try:
            encoded.append(
                encode_conversation(
                    row.messages, assembly, max_tokens=settings.max_tokens, target=row.target
                )
            )
        except DataError as error:
            set_aside.reasons[str(error)] += 1
            continue
        pictures.append(augment(images.read(row.image), settings.augment, rng))
    if not encoded:
        reason = set_aside.reasons.most_common(1)[0][0]
        raise PermanentError(f"no row of a batch of {planned.key} has anything to learn: {reason}")
    return collate(encoded, pictures, assembly)


def answer_loss(model: Any, batch: Batch, settings: Optimiser) -> Tensor:
    """Cross-entropy of the answer tokens, each predicted from all that stands before it.

    Only the columns that hold an answer token in some row get logits. `row_weight` equal: first the
    mean over each row's answer tokens; tokens: the mean over all answer tokens of the batch.
    """
    device = model.device
    targets = batch.labels[:, 1:].to(device)
    is_answer = targets != IGNORED
    if not is_answer.any(dim=1).all():
        raise PermanentError("a row of the batch has no answer token to learn")
    columns = is_answer.any(dim=0).nonzero().squeeze(1)
    inputs = {name: value.to(device) for name, value in batch.inputs.items()}
    output = model(**inputs, use_cache=False, logits_to_keep=columns)
    if output.past_key_values is not None:  # a cache makes transformers ignore borders of samples
        raise PermanentError("the model keeps a key-value cache while training")
    losses = functional.cross_entropy(
        output.logits.float().transpose(1, 2),
        targets[:, columns],
        ignore_index=IGNORED,
        reduction="none",
    )
    is_target = batch.is_target[:, 1:].to(device)
    weights = is_answer * (1 + (settings.target_weight - 1) * is_target)
    weighted = losses * weights[:, columns]
    if settings.row_weight == "tokens":
        return weighted.sum() / weights.sum()
    return (weighted.sum(dim=1) / weights.sum(dim=1)).mean()
