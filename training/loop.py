"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from core.errors import ConfigError, DataError, PermanentError
from core.ids import seed_of
from training.adapters import gather, tune
from training.attention import use_tree_attention
from training.augment import augment
from training.collate import Batch, Encoded, encode_conversation
from training.compiling import compile_layers
from training.config import DataSettings, Optimiser, Part, TrainingConfig
from training.data import ImageFolder, Rows, Visit, plan_visits
from training.efficiency import Work, peak_memory, peak_operations
from training.features import FeatureCache, Sight, count_hits, count_seen
from training.losses import TokenLosses, join_losses, token_losses, weigh
from training.model import Assembly
from training.parity import check_parity
from training.processes import Processes, spread
from training.readers import read_in_processes
from training.resume import Saved
from training.tree import Tree, collate_plain, collate_trees, uses_trees

Item = TypeVar("Item")
ALONE = Processes()
TRIED_IMAGES, TRIED_BRANCHES = 2, 3
"""that a run tries as trees and apart before it starts"""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLog:
    """One line of `metrics.jsonl`."""

    step: int
    loss: float
    losses: dict[str, float]
    """mean over the answer tokens of the instructions, by family or form of the mix"""
    images: int
    rows: int
    """instructions"""
    answer_tokens: int
    tokens: int
    """that the model computed, padding left out"""
    plain_tokens: int
    """that it would have computed had each instruction its own copy of the image"""
    branches: float
    """instructions per image"""
    learning_rate: float
    learning_rates: dict[str, float]
    """of the parts that are trained"""
    gradient_norm: float
    seconds: float
    """since the start"""
    step_seconds: float
    """that this step took, waiting included"""
    waiting_seconds: float
    """waited for the images and tokens of this step"""
    answer_tokens_per_second: float
    images_per_second: float
    rows_per_second: float
    mfu: float | None
    """model FLOPs utilisation: work of the step over what the device could do; None where its peak
    is not known"""
    peak_memory: int
    """bytes so far"""
    cache_hits: int | None = None
    """images of the step whose vision features were kept before; None: none are kept"""


class Training:
    """A model on its way through the steps of a run."""

    def __init__(
        self,
        assembly: Assembly,
        rows: Rows,
        images: ImageFolder,
        config: TrainingConfig,
        processes: Processes = ALONE,
    ) -> None:
        """ConfigError when nothing is left to train; PermanentError when trees differ from
        separate forward passes of the model."""
        self.config = config
        self.done = 0
        """steps"""
        self.set_aside: Counter[str] = Counter()
        """reasons why rows could not be used, and how many rows"""
        self._assembly, self._rows, self._images = assembly, rows, images
        self._device = choose_device(config)
        self._model = assembly.model.to(self._device).train()
        tune(assembly, config)
        self._parts: list[Part] = sorted(trained_parts(assembly))
        self._work = Work.of(self._model, assembly.architecture)
        self._peak = peak_operations(self._device, config.peak_teraflops)
        self._processes = processes
        self._seconds = 0.0
        self.features = keep_features(assembly, images, config)
        has_trees = uses_trees(self._model, config.data)
        if has_trees:
            use_tree_attention(self._model, in_compiled=config.compile)
        if config.compile:
            compile_layers(self._model)
        if has_trees:
            check_trees(rows, images, assembly, config)
        if processes.count > 1:
            spread(self._model)
        self._optimiser = make_optimiser(assembly, config.optimiser)
        self._peaks = [group["lr"] for group in self._optimiser.param_groups]

    def save(self) -> Saved:
        """All that the next step depends on; every process has to ask for it."""
        on_cuda = self._device.type == "cuda"
        return Saved(
            dict(gather(self._model)),
            {
                "done": self.done,
                "seconds": self._seconds,
                "set_aside": dict(self.set_aside),
                "optimiser": self._optimiser_state(),
                "random": self._processes.gather(torch.get_rng_state()),
                "random_cuda": self._processes.gather(torch.cuda.get_rng_state())
                if on_cuda
                else [],
            },
        )

    def restore(self, saved: Saved) -> None:
        """Go on as the run that was saved would have.

        ConfigError for one of another model or of more or fewer processes.
        """
        load_weights(self._model, saved.weights)
        state, processes = saved.state, self._processes
        if len(state["random"]) != processes.count:
            raise ConfigError(f"the run had {len(state['random'])} processes; start as many again")
        self._load_optimiser(state["optimiser"])
        self.done, self._seconds = state["done"], state["seconds"]
        self.set_aside = Counter(state["set_aside"])
        torch.set_rng_state(state["random"][processes.rank])
        if state["random_cuda"]:
            torch.cuda.set_rng_state(state["random_cuda"][processes.rank])

    def _optimiser_state(self) -> dict[str, Any]:
        if self._processes.count == 1:
            return self._optimiser.state_dict()
        whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_optimizer_state_dict(self._model, self._optimiser, options=whole))

    def _load_optimiser(self, state: dict[str, Any]) -> None:
        if self._processes.count == 1:
            self._optimiser.load_state_dict(state)
            return
        whole = StateDictOptions(full_state_dict=True, strict=False)  # some get no gradient
        set_optimizer_state_dict(self._model, self._optimiser, state, options=whole)

    def steps(self) -> Iterator[StepLog]:
        """Train on; yields after every step. The caller may stop, save or validate in between.

        On a CPU the same inputs and seed give the same losses. Raises PermanentError when the loss
        is no longer a number or a batch has nothing to learn.
        """
        asked = time.perf_counter()
        for step in self._read():
            waited = time.perf_counter() - asked
            for set_aside in self._processes.gather(step.set_aside):
                self.set_aside += set_aside
            learnt = self._learn(step)
            self.done = step.number
            took = time.perf_counter() - asked
            self._seconds += took
            yield StepLog(**learnt, **self._speed(learnt, step, took), waiting_seconds=waited)
            asked = time.perf_counter()

    def _read(self) -> Iterator[Step]:
        """The steps that are left, made ready ahead."""

        def read(part: int, parts: int) -> Iterator[Step]:
            return read_steps(
                self._rows,
                self.features or self._images,
                self._assembly,
                self.config,
                first=self.done + 1,
                processes=self._processes,
                part=(part, parts),
            )

        workers = self.config.data.workers
        return read_in_processes(read, workers) if workers else read_ahead(read(0, 1))

    def _speed(self, learnt: Mapping[str, Any], step: Step, took: float) -> dict[str, Any]:
        """Of all processes together; FLOPs utilisation and memory of this one."""
        image_token = self._assembly.image_token_id
        seen = sum(count_seen(batch.inputs, image_token) for batch in step.batches)
        operations = self._work.operations(step.tokens, seen)
        return {
            "seconds": self._seconds,
            "step_seconds": took,
            "answer_tokens_per_second": learnt["answer_tokens"] / took,
            "images_per_second": learnt["images"] / took,
            "rows_per_second": learnt["rows"] / took,
            "mfu": None if self._peak is None else operations / took / self._peak,
            "peak_memory": peak_memory(self._device),
        }

    def _learn(self, step: Step) -> dict[str, Any]:
        settings, model = self.config.optimiser, self._model
        factor = learning_rate_factor(step.number, settings)
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        model.train()
        self._optimiser.zero_grad(set_to_none=True)
        loss, learnt = self._add_gradients(step)
        value = float(self._processes.sum(loss))
        check_finite(value, f"step {step.number}: the loss")
        norm = length_of(torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm))
        check_finite(norm, f"step {step.number}: the length of the gradient")
        self._optimiser.step()
        shares = self._processes.gather(Share.of(learnt, step))
        images, rows = sum(each.images for each in shares), sum(each.rows for each in shares)
        return {
            "step": step.number,
            "loss": value,
            "losses": by_key(shares),
            "images": images,
            "rows": rows,
            "answer_tokens": sum(each.answer_tokens.total() for each in shares),
            "tokens": sum(each.tokens for each in shares),
            "plain_tokens": sum(each.plain_tokens for each in shares),
            "branches": rows / images,
            "learning_rate": settings.learning_rate * factor,
            "learning_rates": {
                part: settings.learning_rate * factor * settings.rate_of(part)
                for part in self._parts
            },
            "gradient_norm": norm,
            "cache_hits": None
            if self.features is None
            else sum(each.cache_hits for each in shares),
        }

    def _add_gradients(self, step: Step) -> tuple[Tensor, TokenLosses]:
        """The gradients of a step, batch by batch: its loss and the losses of its answer tokens."""
        model, processes = self._model, self._processes
        weights = [weigh(batch, self.config.optimiser).to(self._device) for batch in step.batches]
        total = processes.sum(torch.stack([each.sum() for each in weights]).sum())
        loss, found = torch.zeros((), device=self._device), []
        autocast = self.config.autocast == "bfloat16"
        for batch, weight in zip(step.batches, weights, strict=True):
            with torch.autocast(self._device.type, torch.bfloat16, enabled=autocast):
                losses = token_losses(model, self._with_features(batch))
            part = (losses.values * weight).sum() / total
            share = part * processes.count  # of the gradients, the mean over processes is taken
            share.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
            found.append(losses)
        return loss, join_losses(found, [len(batch.siblings) for batch in step.batches])

    def _with_features(self, batch: Batch) -> Batch:
        if self.features is None:
            return batch
        return replace(batch, inputs=self.features.complete(batch.inputs))


@dataclass(frozen=True, slots=True)
class Share:
    """What one process learnt from in a step."""

    images: int
    rows: int
    tokens: int
    plain_tokens: int
    answer_tokens: Counter[str]
    """by family or form"""
    losses: dict[str, float]
    """their sum"""
    cache_hits: int

    @classmethod
    def of(cls, losses: TokenLosses, step: Step) -> Share:
        """Counts and sums of one step."""
        values = losses.values.detach().double().cpu().numpy()
        keys = np.array(step.keys)[losses.conversation.cpu().numpy()]
        return cls(
            images=step.images,
            rows=len(step.keys),
            tokens=step.tokens,
            plain_tokens=sum(batch.plain_tokens for batch in step.batches),
            answer_tokens=Counter(keys.tolist()),
            losses={key: float(values[keys == key].sum()) for key in sorted(set(step.keys))},
            cache_hits=sum(count_hits(batch.inputs) for batch in step.batches),
        )


def by_key(shares: Sequence[Share]) -> dict[str, float]:
    """Mean loss of the answer tokens of each family or form."""
    keys = sorted({key for share in shares for key in share.losses})
    return {
        key: sum(share.losses.get(key, 0.0) for share in shares)
        / sum(share.answer_tokens[key] for share in shares)
        for key in keys
    }


def length_of(norm: Tensor) -> float:
    """A norm, whole, whether or not the weights are divided among processes."""
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def check_finite(value: float, what: str) -> None:
    """PermanentError for a number that is none."""
    if not math.isfinite(value):
        raise PermanentError(
            f"{what} is {value}; lower optimiser.learning_rate, "
            "lengthen optimiser.warmup_steps or train in float32"
        )


def trained_parts(assembly: Assembly) -> set[Part]:
    """Parts of a model that are not frozen whole."""
    return {
        assembly.architecture.part_of(name)
        for name, parameter in assembly.model.named_parameters()
        if parameter.requires_grad
    }


def load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Put saved parameters back; ConfigError when they are not those that the model trains."""
    own = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if {name: each.shape for name, each in own.items()} != {
        name: each.shape for name, each in weights.items()
    }:
        raise ConfigError("the saved weights are of another model; train from the start")
    with torch.no_grad():
        for name, parameter in own.items():
            value = weights[name].to(parameter.device)
            if isinstance(parameter, DTensor):
                value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
            parameter.copy_(value)


def choose_device(config: TrainingConfig) -> torch.device:
    """The device of the run; a ConfigError when CUDA is asked for and there is none."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: cuda, but torch finds no CUDA device; write device=cpu")
    name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name if config.device == "auto" else config.device)


def make_optimiser(assembly: Assembly, settings: Optimiser) -> torch.optim.Optimizer:
    """AdamW over what is trained, each part at its rate; no decay on vectors (norms and biases)."""
    groups: dict[tuple[Part, bool], list[Any]] = {}
    for name, parameter in assembly.model.named_parameters():
        if parameter.requires_grad:
            part = assembly.architecture.part_of(name)
            groups.setdefault((part, parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": settings.learning_rate * settings.rate_of(part),
                "weight_decay": settings.weight_decay if decays else 0.0,
            }
            for (part, decays), parameters in groups.items()
        ],
        betas=settings.betas,
    )


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


@dataclass(frozen=True, slots=True)
class Step:
    """What one step learns from."""

    number: int
    """from 1"""
    batches: Sequence[Batch]
    """that go through the model one after the other"""
    keys: Sequence[str]
    """family or form of each of their conversations"""
    images: int
    set_aside: Counter[str]
    """reasons why rows of the step could not be used"""

    @property
    def tokens(self) -> int:
        """Without padding."""
        return sum(batch.tokens for batch in self.batches)


def keep_features(
    assembly: Assembly, images: ImageFolder, config: TrainingConfig
) -> FeatureCache | None:
    """Where vision features are kept, if the settings ask for it; a ConfigError if they cannot."""
    if config.features is None:
        return None
    return FeatureCache(assembly, config, images)


def read_steps(
    rows: Rows,
    images: ImageFolder | FeatureCache,
    assembly: Assembly,
    config: TrainingConfig,
    *,
    first: int = 1,
    processes: Processes = ALONE,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Step]:
    """The steps of a run, or what one of several processes learns from in each.

    What a step holds depends on its number and the settings alone. `part` (k, n) is every n-th
    step, from the k-th on.
    """
    data = config.data
    collate_step = collate_trees if uses_trees(assembly.model, data) else collate_plain
    visits = enumerate(plan_visits(rows, data.shares, branches=data.branches, seed=config.seed))
    skip(visits, (first - 1) * data.batch_images)
    for number in range(first, config.optimiser.steps + 1):
        planned = processes.share(list(islice(visits, data.batch_images)))
        if (number - first) % part[1] != part[0]:
            continue
        set_aside: Counter[str] = Counter()
        trees, keys = read_trees(planned, rows, images, assembly, config, set_aside=set_aside)
        if not trees:
            reason = set_aside.most_common(1)[0][0]
            raise PermanentError(f"step {number}: no row has anything to learn: {reason}")
        batches = [
            collate_step(part, assembly)
            for part in divide(trees, count_parts(data, processes), processes)
        ]
        yield Step(number, batches, keys, len(trees), set_aside)


def count_parts(data: DataSettings, processes: Processes) -> int:
    """In how many batches each process learns from its images of a step."""
    images = math.ceil(data.batch_images / processes.count)
    return math.ceil(images / (data.images_at_once or images))


def divide(trees: Sequence[Tree], parts: int, processes: Processes) -> Iterator[Sequence[Tree]]:
    """About as many trees in each part. Of several processes each has to have as many parts."""
    if len(trees) < parts and processes.count > 1:
        raise PermanentError(
            f"only {len(trees)} images of a step have anything to learn in process "
            f"{processes.rank}; raise data.images_at_once"
        )
    parts = min(parts, len(trees))
    for part in range(parts):
        yield trees[part * len(trees) // parts : (part + 1) * len(trees) // parts]


def skip(items: Iterator[Any], count: int) -> None:
    """Leave out the next `count` items."""
    for _ in islice(items, count):
        pass


def read_trees(
    visits: Iterable[tuple[int, Visit]],
    rows: Rows,
    images: ImageFolder | FeatureCache,
    assembly: Assembly,
    config: TrainingConfig,
    *,
    set_aside: Counter[str],
) -> tuple[list[Tree], list[str]]:
    """Images and tokens of numbered visits, and the family or form of each conversation.

    The number of a visit decides how its image is changed.
    """
    trees, keys = [], []
    for number, visit in visits:
        kept, encoded = encode_visit(visit, rows, assembly, config.data, set_aside=set_aside)
        if encoded:
            rng = np.random.default_rng(seed_of("augment", config.seed, number))
            image = images.read(rows.image_at(visit.places[0]))
            if not isinstance(image, Sight):
                image = augment(image, config.data.augment, rng)
            trees.append(Tree(image, encoded))
            keys += kept
    return trees, keys


def check_trees(
    rows: Rows, images: ImageFolder, assembly: Assembly, config: TrainingConfig
) -> None:
    """Try the first images of the run as trees and apart: PermanentError when they differ."""
    data = config.data
    visits = plan_visits(rows, data.shares, branches=TRIED_BRANCHES, seed=config.seed)
    planned = list(enumerate(islice(visits, TRIED_IMAGES)))
    trees, _ = read_trees(planned, rows, images, assembly, config, set_aside=Counter())
    if trees:
        check_parity(assembly, trees, are_compiled=config.compile)


def encode_visit(
    visit: Visit, rows: Rows, assembly: Assembly, settings: DataSettings, *, set_aside: Counter[str]
) -> tuple[list[str], list[Encoded]]:
    """Keys and tokens of the rows of a visit; rows that cannot be used are counted and left out."""
    keys, encoded = [], []
    for key, row in zip(visit.keys, rows.take(visit.places), strict=True):
        try:
            encoded.append(
                encode_conversation(
                    row.messages, assembly, max_tokens=settings.max_tokens, target=row.target
                )
            )
        except DataError as error:
            set_aside[str(error)] += 1
        else:
            keys.append(key)
    return keys, encoded
