"""What a run will take, before anything is loaded: parameters, memory, steps, tokens.

The model is built on the meta device, without weights. Tokens are counted on a sample of the run's
own visits where shards and tokenizer are at hand, and assumed where they are not; the plan says so.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from core.command_line import aligned
from core.records import Split
from training.config import Checkpoint, Part, TinyLlava, TrainingConfig
from training.data import Rows, Visit, check_mix, open_shards, plan_visits
from training.inputs import with_steps
from training.memory import Counts, Memory, TreeSize, count_parameters, estimate_memory

if TYPE_CHECKING:
    import pyarrow as pa

    from training.model import Assembly

PROCESSES: Final = (1, 2, 4, 8)
SAMPLED_VISITS: Final = 256
ASSUMED_SIDE: Final = 512
"""pixels of each side of an image"""
ASSUMED_TOKENS, ASSUMED_ANSWER, ASSUMED_FRAME = 100, 60, 20
"""of an instruction, of its answer, and of what the chat template writes before it"""
CHARACTERS_PER_TOKEN: Final = 4
GIB: Final = 2**30


@dataclass(frozen=True, slots=True)
class Tokens:
    """Of a whole run."""

    trees: int
    """with one copy of the image for the instructions of a visit"""
    plain: int
    """with a copy for each instruction"""
    instructions: int
    answers: int


@dataclass(frozen=True, slots=True)
class Kept:
    """Vision features that are kept, in bytes."""

    each: int
    """of an image, on average"""
    images: int | None
    """None: as many as the training images of a shard set that was not named"""

    @property
    def whole(self) -> int | None:
        """Of all images."""
        return None if self.images is None else self.each * self.images


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run will take."""

    title: str
    parameters: dict[Part, Counts]
    memory: tuple[Memory, ...]
    """for 1, 2, 4 and 8 processes, of the largest step of the sample"""
    steps: int | None
    """None: as many as the epochs of a shard set that was not named"""
    tokens_per_step: Tokens
    tokens: Tokens | None
    are_trees: bool
    features: Kept | None
    """None: no vision features are kept"""
    assumed: tuple[str, ...]
    """what the figures rest on that was not counted"""

    @property
    def whole(self) -> Counts:
        """Parameters of all parts."""
        return sum(self.parameters.values(), Counts())


def make_plan(config: TrainingConfig, shards: Path | None = None) -> Plan:
    """Reckon a run on a shard set, or on a set like those that this platform builds."""
    from training.adapters import tune
    from training.tree import uses_trees

    rows, sizes = _read_rows(config, shards)
    assembly, assumed = _outline(config, rows)
    tune(assembly, config)
    are_trees = uses_trees(assembly.model, config.data)
    if rows is None:
        trees = [_assume_tree(config, assembly)] * config.data.batch_images
        assumed += (
            f"without --shards: images of {ASSUMED_SIDE} x {ASSUMED_SIDE} pixels, "
            f"{ASSUMED_TOKENS} tokens an instruction, {ASSUMED_ANSWER} of them answer",
        )
    else:
        config = with_steps(config, rows)
        trees = list(_sample_trees(config, assembly, rows, sizes))
    if config.alignment is not None:
        assumed += ("the alignment before it is not in these figures",)
    steps = None if config.optimiser.epochs else config.optimiser.steps
    images = config.data.batch_images
    per_step = _tokens(trees, images / len(trees))
    return Plan(
        title=config.title,
        parameters=count_parameters(assembly),
        memory=tuple(
            estimate_memory(
                assembly, config, _largest(trees, images), are_trees=are_trees, processes=count
            )
            for count in PROCESSES
            if count <= images
        ),
        steps=steps,
        tokens_per_step=per_step,
        tokens=None if steps is None else _tokens(trees, steps * images / len(trees)),
        are_trees=are_trees,
        features=_plan_features(config, assembly, trees, rows),
        assumed=assumed,
    )


def _plan_features(
    config: TrainingConfig, assembly: Assembly, trees: Sequence[TreeSize], rows: Rows | None
) -> Kept | None:
    if config.features is None:
        return None
    from training.features import Tower

    tokens = sum(tree.image for tree in trees) / len(trees)
    each = round(tokens * Tower(assembly, config).bytes_of_token())
    return Kept(each, None if rows is None else len(rows.images()))


def _read_rows(
    config: TrainingConfig, shards: Path | None
) -> tuple[Rows | None, dict[str, tuple[int, int]]]:
    """Training rows, and width and height of each image."""
    if shards is None:
        return None, {}
    opened = open_shards(shards)
    rows = Rows.read(opened, Split.TRAIN).select(config.data, seed=config.seed)
    check_mix(rows, config.data.shares)
    images: pa.Table = opened.images(["image_id", "width", "height"])
    return rows, {each["image_id"]: (each["width"], each["height"]) for each in images.to_pylist()}


def _outline(config: TrainingConfig, rows: Rows | None) -> tuple[Assembly, tuple[str, ...]]:
    """The model without weights, and what had to be assumed for it."""
    from training.adapters import add_adapters

    if isinstance(config.model, TinyLlava):
        return _outline_tiny(config, config.model, rows)
    assembly, assumed = _outline_checkpoint(config.model)
    if config.lora is not None:
        assembly = add_adapters(assembly, config.lora, config.model)
    return assembly, assumed


def _outline_tiny(
    config: TrainingConfig, settings: TinyLlava, rows: Rows | None
) -> tuple[Assembly, tuple[str, ...]]:
    from training.architectures import ARCHITECTURES
    from training.model import (
        TINY_TEMPLATE,
        Assembly,
        crop_processor,
        tiny_config,
        train_tokenizer,
    )

    tokenizer, vocabulary = None, settings.language.vocabulary
    assumed: tuple[str, ...] = ("without --shards: the whole vocabulary is used",)
    if rows is not None:
        sample = rows.sample(settings.language.tokenizer_rows, seed=config.seed)
        tokenizer = train_tokenizer((row.messages for row in sample), settings.language)
        vocabulary, assumed = len(tokenizer), ()
    model = _on_meta(tiny_config(settings, vocabulary=vocabulary), "float32")
    processor = crop_processor(settings.vision)
    outlined = Assembly(model, tokenizer, processor, TINY_TEMPLATE, ARCHITECTURES["llava"])
    return outlined, assumed


def _outline_checkpoint(settings: Checkpoint) -> tuple[Assembly, tuple[str, ...]]:
    from training.model import Assembly, find_architecture, find_tokenizer

    with _files_of(settings) as (folder, is_whole):
        config, processor = _read_files(folder)
        architecture = find_architecture(settings.name, config.model_type)
        tokenizer, template = find_tokenizer(folder) if is_whole else (None, "")
    model = _on_meta(config, settings.dtype)
    outlined = Assembly(model, tokenizer, processor, template, architecture)
    if is_whole:
        return outlined, ()
    return outlined, (
        f"{settings.name} is not at hand: its shape as in the training file, "
        f"{CHARACTERS_PER_TOKEN} characters a token",
    )


@contextmanager
def _files_of(settings: Checkpoint) -> Iterator[tuple[str, bool]]:
    """Where configuration and preprocessing are to be read, and whether the tokenizer is there."""
    from huggingface_hub import try_to_load_from_cache

    name, shape = settings.name, settings.shape
    is_here = (Path(name) / "config.json").is_file()
    if is_here or shape is None or isinstance(try_to_load_from_cache(name, "config.json"), str):
        yield name, True
        return
    with tempfile.TemporaryDirectory() as folder:
        for file, content in (
            ("config.json", shape.config),
            ("preprocessor_config.json", shape.image_processor),
        ):
            (Path(folder) / file).write_text(json.dumps(content), encoding="utf-8")
        yield folder, False


def _read_files(name: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoImageProcessor

    from training.model import NO_FOREIGN_CODE, explain_failure

    with explain_failure(name):
        return (
            AutoConfig.from_pretrained(name, **NO_FOREIGN_CODE),
            AutoImageProcessor.from_pretrained(name, backend="pil", **NO_FOREIGN_CODE),
        )


def _on_meta(config: Any, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForImageTextToText

    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config, dtype=getattr(torch, dtype))


def _assume_tree(config: TrainingConfig, assembly: Assembly) -> TreeSize:
    image = _image_tokens(assembly, (ASSUMED_SIDE, ASSUMED_SIDE))
    branches = config.data.branches
    return TreeSize(
        image, image + ASSUMED_FRAME, (ASSUMED_TOKENS,) * branches, ASSUMED_ANSWER * branches
    )


def _image_tokens(assembly: Assembly, size: tuple[int, int]) -> int:
    from PIL import Image

    _, counts = assembly.prepare_images([Image.new("RGB", size)])
    return counts[0]


def _sample_trees(
    config: TrainingConfig, assembly: Assembly, rows: Rows, sizes: dict[str, tuple[int, int]]
) -> Iterator[TreeSize]:
    data = config.data
    visits = plan_visits(rows, data.shares, branches=data.branches, seed=config.seed)
    known: dict[tuple[int, int], int] = {}
    for visit in islice(visits, max(SAMPLED_VISITS, data.batch_images)):
        size = sizes[rows.image_at(visit.places[0]).image_id]
        if size not in known:
            known[size] = _image_tokens(assembly, size)
        tree = _measure(visit, rows, assembly, config, known[size])
        if tree is not None:
            yield tree


def _measure(
    visit: Visit, rows: Rows, assembly: Assembly, config: TrainingConfig, image: int
) -> TreeSize | None:
    """None where no row of a visit can be used."""
    from training.collate import IGNORED
    from training.loop import encode_visit
    from training.tree import shared_length

    if assembly.tokenizer is None:
        return _guess(rows, visit, image)
    _, encoded = encode_visit(visit, rows, assembly, config.data, set_aside=Counter())
    if not encoded:
        return None
    shared = shared_length(encoded)
    return TreeSize(
        image,
        shared + image - 1,
        tuple(len(row.input_ids) - shared for row in encoded),
        sum(label != IGNORED for row in encoded for label in row.labels),
    )


def _guess(rows: Rows, visit: Visit, image: int) -> TreeSize:
    texts = [
        {
            role: sum(len(each["content"]) for each in row.messages if each["role"] == role)
            for role in ("user", "assistant")
        }
        for row in rows.take(visit.places)
    ]
    return TreeSize(
        image,
        image + ASSUMED_FRAME,
        tuple(sum(text.values()) // CHARACTERS_PER_TOKEN for text in texts),
        sum(text["assistant"] for text in texts) // CHARACTERS_PER_TOKEN,
    )


def _largest(trees: Sequence[TreeSize], images: int) -> list[TreeSize]:
    """The step of the sample that has most tokens."""
    steps = [list(trees[start : start + images]) for start in range(0, len(trees), images)]
    return max(steps, key=lambda step: sum(tree.tokens for tree in step))


def _tokens(trees: Sequence[TreeSize], times: float) -> Tokens:
    return Tokens(
        trees=round(times * sum(tree.tokens for tree in trees)),
        plain=round(times * sum(tree.plain_tokens for tree in trees)),
        instructions=round(times * sum(len(tree.branches) for tree in trees)),
        answers=round(times * sum(tree.answers for tree in trees)),
    )


def to_json(plan: Plan) -> str:
    """The plan for a program."""
    return json.dumps(
        {
            **asdict(plan),
            "parameters": {
                **{part: asdict(counts) for part, counts in plan.parameters.items()},
                "all": asdict(plan.whole),
            },
            "features": plan.features and {**asdict(plan.features), "whole": plan.features.whole},
            "memory": [{**asdict(memory), "total": memory.total} for memory in plan.memory],
        },
        indent=2,
    )


def to_text(plan: Plan) -> str:
    """The plan for a reader."""
    parts = (_parameter_lines(plan), _memory_lines(plan), _length_lines(plan))
    return "\n\n".join([plan.title, *("\n".join(lines) for lines in parts)])


def _parameter_lines(plan: Plan) -> Iterator[str]:
    rows = [("parameters", "in all", "adapters", "trained")]
    for part, counts in (*plan.parameters.items(), ("all", plan.whole)):
        rows.append((part, f"{counts.parameters:,}", f"{counts.adapters:,}", f"{counts.trained:,}"))
    return aligned(rows, words=1)


def _memory_lines(plan: Plan) -> Iterator[str]:
    rows = [("GiB a process", *(f"{memory.processes}" for memory in plan.memory))]
    for name in (
        "weights",
        "gradients",
        "optimiser",
        "gathered",
        "activations",
        "working",
        "total",
    ):
        values = (getattr(memory, name) / GIB for memory in plan.memory)
        rows.append((name, *(f"{value:,.2f}" for value in values)))
    return aligned(rows, words=1)


def _length_lines(plan: Plan) -> Iterator[str]:
    yield f"batches  {'trees' if plan.are_trees else 'plain'}"
    yield f"steps    {'not known: name the shards' if plan.steps is None else f'{plan.steps:,}'}"
    for name, tokens in (("a step", plan.tokens_per_step), ("the run", plan.tokens)):
        if tokens is not None:
            yield (
                f"tokens   {name}: {tokens.trees:,} with trees, {tokens.plain:,} without "
                f"({tokens.plain / tokens.trees:.1f} times as many); "
                f"{tokens.answers:,} answer tokens of {tokens.instructions:,} instructions"
            )
    if plan.features is not None:
        yield f"features {_told(plan.features)}"
    for each in plan.assumed:
        yield f"assumed  {each}"


def _told(kept: Kept) -> str:
    from training.features import amount

    told = f"about {amount(kept.each)} for each image"
    if kept.whole is None:
        return f"{told}; name the shards for those of all"
    return f"{told}, {amount(kept.whole)} for the {kept.images:,} of the run"
