"""A toy shard set: small pictures, some with planted stripes, and instructions about them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image
from torch import Tensor

from core.ids import content_id, image_id_of, sha256_bytes
from core.records import (
    Authenticity,
    ImageRecord,
    Instruction,
    Message,
    ReviewLevel,
    Split,
)
from imaging.store import ImageStore
from instruct_builder.manifest import LicenceFact, RecipeStamp, SourceFact, TeacherFact
from instruct_builder.shards import BuildFacts, Placed, rows_table, write_shards
from training.collate import Batch
from training.config import Optimiser, TrainingConfig
from training.losses import token_losses, weigh

SIDE = 32
GROUPS = {Split.TRAIN: 6, Split.VAL: 2, Split.TEST: 4}
STRIPES, CHECKS = "sim-nearest", "sim-damped"
"""named like simulated generators of the demo, so that the report says that they are simulated"""


@dataclass(frozen=True)
class ToySet:
    """Where a toy shard set and its images are."""

    shards: Path
    images: Path


def draw_picture(generator: str | None, seed: int) -> Image.Image:
    """A soft blot on noise; a generator adds stripes or a checkerboard of period 2."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    middle = rng.uniform(0, SIDE, 2)
    blot = 90 * np.exp(-((y - middle[0]) ** 2 + (x - middle[1]) ** 2) / rng.uniform(40, 200))
    grey = 80 + blot + rng.normal(0, 4, (SIDE, SIDE))
    if generator == STRIPES:
        grey += 12 * (x % 2)
    elif generator == CHECKS:
        grey += 12 * ((x + y) % 2)
    rgb = np.clip(grey[..., None] + rng.normal(0, 2, (SIDE, SIDE, 3)), 0, 255)
    return Image.fromarray(rgb.astype(np.uint8))


def make_set(folder: Path, *, per_group: int = 12, **facts: Any) -> ToySet:
    """Shards and images below `folder`; the checkerboard occurs in the test split only."""
    toy = ToySet(folder / "shards", folder / "images")
    placed = [
        _place(toy.images, split, f"{split}-{group}", number)
        for split, groups in GROUPS.items()
        for group in range(groups)
        for number in range(per_group)
    ]
    write_shards(
        toy.shards,
        [rows_table([p for p in placed if p.split is split]) for split in Split],
        ((p.image, p.split) for p in placed),
        make_facts(**facts),
        rows_per_shard=200,
    )
    return toy


def _place(store: Path, split: Split, group: str, number: int) -> Placed:
    generator = _generator_of(split, number)
    picture = io.BytesIO()
    draw_picture(generator, seed=len(group) * 1009 + hash_of(group) + number).save(picture, "PNG")
    data = picture.getvalue()
    digest = sha256_bytes(data)
    label = Authenticity.FAKE if generator else Authenticity.REAL
    image = ImageRecord(
        image_id=image_id_of(digest),
        sha256=digest,
        original_sha256=digest,
        path=ImageStore(store).add(data, ".png"),
        width=SIDE,
        height=SIDE,
        format="PNG",
        jpeg_quality=None,
        phash="0" * 16,
        cluster=image_id_of(digest),
        group=group,
        label=label,
        generator=generator,
        source="toy",
    )
    return Placed(
        image=image,
        split=split,
        review_level=ReviewLevel.DRAFT,
        instructions=make_instructions(image.image_id, label),
    )


def _generator_of(split: Split, number: int) -> str | None:
    if number % 2 == 0:
        return None
    return CHECKS if split is Split.TEST and number % 4 == 3 else STRIPES


def hash_of(text: str) -> int:
    """A small number that does not change between processes, unlike `hash`."""
    return sum(ord(character) * 31**place for place, character in enumerate(text)) % 100_003


def make_instructions(image_id: str, label: Authenticity) -> tuple[Instruction, ...]:
    """One short verdict, one closed question and one talk of two rounds."""
    reason = (
        "Every second column is brighter." if label is Authenticity.FAKE else "It is irregular."
    )
    yes = "Yes" if label is Authenticity.FAKE else "No"
    texts: dict[str, tuple[str, Sequence[str], str | None]] = {
        "verdict_what": (
            "verdict",
            ("Is this image real or fake?", f"The image is {label}."),
            label.value,
        ),
        "verdict_is_fake": ("verdict", ("Is this image fake?", f"{yes}."), yes.lower()),
        "discuss": (
            "discussion",
            ("What do you see?", reason, "So is it real or fake?", f"It is {label}."),
            None,
        ),
    }
    return tuple(
        Instruction(
            instruction_id=content_id("ins", image_id, form),
            chain_id=content_id("chain", image_id),
            image_id=image_id,
            family=family,
            form=form,
            template_id=f"{form}/0",
            aspect=None,
            messages=tuple(
                Message(role=("user", "assistant")[turn % 2], content=text)
                for turn, text in enumerate(turns)
            ),
            target=target,
        )
        for form, (family, turns, target) in texts.items()
    )


def make_facts(**changes: Any) -> BuildFacts:
    values: dict[str, Any] = {
        "recipe": RecipeStamp(name="toy", digest="0"),
        "builder_digest": "0",
        "seed": 1,
        "chains_digest": "0",
        "arms": ("main",),
        "min_review": ReviewLevel.DRAFT,
        "simulated": True,
        "statement": "simulated teacher, no expert",
        "teachers": (TeacherFact(name="rehearsal", simulated=True, chains=1),),
        "sources": (SourceFact(name="toy", licence="CC0-1.0", may_train=True),),
        "licence": LicenceFact(statement="CC0-1.0", because="drawn by the test"),
        "forms": {},
        "checks": {},
    }
    return BuildFacts(**{**values, **changes})


def answer_loss(model: Any, batch: Batch, settings: Optimiser) -> Tensor:
    """The loss of a batch."""
    losses = token_losses(model, batch)
    weights = weigh(batch, settings).to(losses.values.device)
    return (losses.values * weights).sum() / weights.sum()


def make_config(**changes: Any) -> TrainingConfig:
    """Settings that learn the stripes within seconds; `changes` are dotted keys with `__`."""
    settings: dict[str, Any] = yaml.safe_load(SETTINGS)
    for key, value in changes.items():
        *outer, last = key.split("__")
        place = settings
        for name in outer:
            place = place[name]
        place[last] = value
    return TrainingConfig.model_validate(settings)


SETTINGS = """
title: toy
seed: 1
threads: 1
device: cpu
model:
  kind: tiny_llava
  vision: {image_size: 32, patch_size: 8, hidden_size: 32, layers: 1, heads: 2}
  language: {vocabulary: 330, hidden_size: 32, layers: 2, heads: 2, max_tokens: 256, init_std: 0.08}
data:
  batch_images: 8
  branches: 2
  mix: {verdict_what: 2, verdict_is_fake: 1, discussion: 1}
optimiser:
  {steps: 100, learning_rate: 0.003, warmup_steps: 5, row_weight: equal, target_weight: 5}
scoring:
  question: Is this image real or fake?
  answer_prefix: " The image is"
  fake_words: [" fake"]
  real_words: [" real"]
bootstrap: 100
"""
