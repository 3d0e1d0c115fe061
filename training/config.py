"""What one training run is: a YAML file, validated, with `key=value` changes for one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, field_validator

from core.errors import ConfigError
from core.recipe import Strict, parse_model, read_yaml

Part = Literal["tower", "projector", "language"]
"""vision tower · what maps its features into the language model · the language model"""

Reduction = Literal["sum", "mean", "logsumexp"]


class Vision(Strict):
    """A small CLIP vision tower."""

    image_size: int = Field(ge=32)
    patch_size: int = Field(ge=4)
    hidden_size: int = Field(ge=8)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    patch_init: Literal["random", "whitened"] = "whitened"
    """whitened: the first layer starts with equal gain for every frequency of the images"""
    whitening_images: int = Field(400, ge=1)
    whitening_floor: float = Field(0.01, gt=0)
    """added to each eigenvalue, as a fraction of their mean"""


class Language(Strict):
    """A small Llama."""

    vocabulary: int = Field(ge=300)
    """at most so many tokens; byte-level BPE trained on the training rows"""
    tokenizer_rows: int = Field(20_000, ge=1)
    hidden_size: int = Field(ge=8)
    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    max_tokens: int = Field(1024, ge=64)
    init_std: float = Field(0.02, gt=0)


class TinyLlava(Strict):
    """A LLaVA-type model built from nothing."""

    kind: Literal["tiny_llava"]
    vision: Vision
    language: Language


class Checkpoint(Strict):
    """A published checkpoint, or one saved by a run."""

    kind: Literal["checkpoint"]
    name: str = Field(min_length=1)
    """a folder, or a name on the Hugging Face hub"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    activation_checkpointing: bool = False
    """recompute activations in the backward pass: slower, less memory"""


class Augmentation(Strict):
    """Random changes of training images, both classes alike."""

    flips: bool = False
    """mirrored and transposed"""
    blur_share: float = Field(0.0, ge=0, le=1)
    """share of the images that are blurred"""
    blur_sigma: float = Field(1.0, ge=0.2)
    """largest width of the blur in pixels (standard deviation of the Gaussian)"""


class DataSettings(Strict):
    """Which instructions a step is made of."""

    batch_rows: int = Field(ge=1)
    mix: dict[str, float] = Field(min_length=1)
    """share of the steps by instruction family; a batch holds one family, one row per image"""
    augment: Augmentation = Augmentation()
    max_tokens: int = Field(2048, ge=16)
    """longer rows are set aside, never cut"""

    @field_validator("mix")
    @classmethod
    def _some_share(cls, mix: dict[str, float]) -> dict[str, float]:
        if any(share < 0 for share in mix.values()) or sum(mix.values()) <= 0:
            raise ValueError("shares must not be negative, and at least one must be positive")
        return mix


class Optimiser(Strict):
    """AdamW with a linear warm-up and a cosine that ends at `floor` times the peak."""

    steps: int = Field(ge=0)
    """0: no training, the model is scored as it is"""
    learning_rate: float = Field(gt=0)
    part_rates: dict[Part, float] = Field(default_factory=dict)
    """learning rate of a part as a multiple of `learning_rate`; 0 freezes it"""
    warmup_steps: int = Field(0, ge=0)
    floor: float = Field(0.0, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(1.0, gt=0)
    row_weight: Literal["equal", "tokens"] = "tokens"
    """equal: every row counts the same; tokens: every answer token does"""
    target_weight: float = Field(1.0, gt=0)
    """how many times as much the tokens of a closed answer (`fake`, `yes`, `B`) count"""
    checkpoint_every: int | None = Field(None, ge=1)
    """steps; the last step is always saved"""


class Scoring(Strict):
    """The token soft score: p_fake from the logits after a question and a forced answer prefix."""

    question: str = Field(min_length=1)
    answer_prefix: str = ""
    """as the model writes it after the prompt, leading space included"""
    fake_words: tuple[str, ...] = Field(min_length=1)
    """what may follow the prefix, leading space included; each must be a single token there"""
    real_words: tuple[str, ...] = Field(min_length=1)
    reduce: Reduction = "sum"
    """sum: FakeScope's formula, logits summed inside the exponential"""
    batch_images: int = Field(32, ge=1)
    threshold: float = Field(0.5, gt=0, lt=1)
    validate_every: int | None = Field(None, ge=1)
    """steps between scorings of the val split"""


class TrainingConfig(Strict):
    """One run, whole."""

    title: str
    seed: int
    threads: int | None = Field(None, ge=1)
    """None: as many as the machine has"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    autocast: Literal["none", "bfloat16"] = "none"
    model: Annotated[TinyLlava | Checkpoint, Field(discriminator="kind")]
    data: DataSettings
    optimiser: Optimiser
    scoring: Scoring
    bootstrap: int = Field(1000, ge=100)
    """resamples of the photographs behind each interval"""


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a training file; `overrides` are `key.inner=value`, the value being YAML."""
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: holds no settings")
    for override in overrides:
        _apply(settings, override)
    where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    return parse_model(settings, TrainingConfig, where=where)


def dump_config(config: TrainingConfig) -> str:
    """The resolved settings as YAML; reading them again gives the same settings."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _apply(settings: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"{override!r} is no change of a setting; write key=value")
    *outer, last = key.split(".")
    place: Any = settings
    for name in outer:
        place = place.setdefault(name, {}) if isinstance(place, dict) else None
    if not isinstance(place, dict):
        raise ConfigError(f"{override!r}: {'.'.join(outer)} holds no settings")
    place[last] = _parse_value(text, override)


def _parse_value(text: str, override: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{override!r}: the value is not valid YAML") from None
