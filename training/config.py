"""What one training run is: a YAML file, validated, with `key=value` changes for one run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, field_validator, model_validator

from core.errors import ConfigError
from core.recipe import Strict, parse_model, read_yaml

Part = Literal["tower", "projector", "language"]
"""vision tower · what maps its features into the language model · the language model"""

Reduction = Literal["sum", "mean", "logsumexp", "single"]


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


class Shape(Strict):
    """What the files of a published checkpoint say of its size, so that a run can be planned
    without them."""

    config: dict[str, Any]
    """as in `config.json`"""
    image_processor: dict[str, Any]
    """as in `preprocessor_config.json`"""


class Checkpoint(Strict):
    """A published checkpoint, or one saved by a run."""

    kind: Literal["checkpoint"]
    name: str = Field(min_length=1)
    """a folder, or a name on the Hugging Face hub"""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    activation_checkpointing: bool = False
    """recompute activations in the backward pass: slower, less memory"""
    shape: Shape | None = None
    """in a training file, the name of a YAML file beside it; read by `--plan` alone, and only where
    the checkpoint is not at hand"""


class Lora(Strict):
    """Low-rank adapters on linear layers, whose own weights stay as they are."""

    rank: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    """an adapter counts alpha / rank"""
    parts: tuple[Part, ...] = Field(("language",), min_length=1)
    """whose layers get adapters; the other parts are trained whole, or frozen by their rate"""
    layers: tuple[str, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )
    """names of the layers, without what stands before the last dot"""
    quantised: bool = False
    """QLoRA: the layers of the language model in 4 bits; needs bitsandbytes"""


class Change(Strict):
    """How often a training image suffers a change, and how strong it is then."""

    share: float = Field(ge=0, le=1)
    """of the visits"""
    least: float
    most: float
    """strengths are drawn evenly from least to most; units as in `imaging/perturb.py`"""


class Augmentation(Strict):
    """Random changes of training images, both classes alike."""

    flips: bool = False
    """mirrored and transposed"""
    blur_share: float = Field(0.0, ge=0, le=1)
    """share of the images that are blurred"""
    blur_sigma: float = Field(1.0, ge=0.2)
    """largest width of the blur in pixels (standard deviation of the Gaussian)"""
    changes: dict[str, Change] = Field(default_factory=dict)
    """further ones, in this order: crop, resize, blur, noise, jpeg, webp"""

    @field_validator("changes")
    @classmethod
    def _known(cls, changes: dict[str, Change]) -> dict[str, Change]:
        from imaging.perturb import KINDS

        for name, change in changes.items():
            if name not in KINDS:
                raise ValueError(f"no change is called {name}; there are: {', '.join(KINDS)}")
            kind = KINDS[name]
            if not kind.least <= change.least <= change.most <= kind.most:
                raise ValueError(
                    f"{name}: strengths go from {kind.least:g} to {kind.most:g} ({kind.unit})"
                )
        return changes


class DataSettings(Strict):
    """Which instructions a step is made of."""

    batch_images: int = Field(ge=1)
    """images of a step"""
    images_at_once: int | None = Field(None, ge=1)
    """of those that a process has in a step, how many go through the model together; their
    gradients are added up, and the step stays what it is. None: all"""
    branches: int = Field(8, ge=1)
    """at most so many instructions about an image in one step; the others come at later visits"""
    layout: Literal["auto", "tree", "plain"] = "auto"
    """tree: the instructions about an image share its tokens; plain: each has its own copy of them;
    auto: tree where the model allows it"""
    mix: dict[str, float] = Field(min_length=1)
    """share of the instructions by family or form"""
    leave_out: tuple[str, ...] = ()
    """families or forms that are not learnt, whatever the mix says"""
    images_share: float = Field(1.0, gt=0, le=1)
    """share of the training images, drawn by the seed; a smaller share lies within a larger one"""
    rows_share: float = Field(1.0, gt=0, le=1)
    """share of the instructions that are left, drawn likewise"""
    augment: Augmentation = Augmentation()
    max_tokens: int = Field(2048, ge=16)
    """longer rows are set aside, never cut"""
    workers: int = Field(0, ge=0)
    """processes that make steps ready, two each ahead; 0: a thread makes the next one ready"""

    @field_validator("mix")
    @classmethod
    def _some_share(cls, mix: dict[str, float]) -> dict[str, float]:
        if any(share < 0 for share in mix.values()) or sum(mix.values()) <= 0:
            raise ValueError("shares must not be negative, and at least one must be positive")
        return mix

    @property
    def shares(self) -> dict[str, float]:
        """The mix without what is left out."""
        return {key: share for key, share in self.mix.items() if key not in self.leave_out}

    @model_validator(mode="after")
    def _something_is_left(self) -> Self:
        if not any(self.shares.values()):
            raise ValueError("leave_out leaves nothing of the mix")
        return self


class Optimiser(Strict):
    """AdamW with a linear warm-up and a cosine that ends at `floor` times the peak."""

    steps: int = Field(0, ge=0)
    """0: no training, the model is scored as it is"""
    epochs: float | None = Field(None, gt=0)
    """instead of `steps`: how often the mix's instructions are learnt, all images alike often"""
    learning_rate: float = Field(gt=0)
    part_rates: dict[Part, float] = Field(default_factory=dict)
    """learning rate of a part as a multiple of `learning_rate`; 0 freezes it"""
    freeze: tuple[str, ...] = ()
    """patterns of parameter names that are not trained, such as `*.embed_tokens.*`"""
    warmup_steps: int = Field(0, ge=0)
    warmup_share: float | None = Field(None, ge=0, lt=1)
    """instead of `warmup_steps`: share of the steps"""
    floor: float = Field(0.0, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = Field(1.0, gt=0)
    row_weight: Literal["equal", "tokens"] = "tokens"
    """equal: every row counts the same; tokens: every answer token does"""
    branch_weight: Literal["sqrt", "plain"] = "sqrt"
    """sqrt: each of the n rows about an image counts 1/sqrt(n), so that images with many do not
    drown the others; plain: each counts 1"""
    target_weight: float = Field(1.0, gt=0)
    """how many times as much the tokens of a closed answer (`fake`, `yes`, `B`) count"""
    checkpoint_every: int | None = Field(None, ge=1)
    """steps; the last step is always saved"""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        has_steps = "steps" in self.model_fields_set if self.epochs is None else self.steps > 0
        if has_steps == (self.epochs is not None):
            raise ValueError("write either steps or epochs")
        if self.warmup_steps and self.warmup_share is not None:
            raise ValueError("write either warmup_steps or warmup_share")
        return self

    def lasting(self, steps: int) -> Self:
        """The same with its length and warm-up as numbers of steps."""
        warmup = self.warmup_steps
        if self.warmup_share is not None:
            warmup = round(self.warmup_share * steps)
        changes = {"steps": steps, "epochs": None, "warmup_steps": warmup, "warmup_share": None}
        return self.model_validate({**self.model_dump(), **changes})

    def rate_of(self, part: Part) -> float:
        """Learning rate of a part as a multiple of `learning_rate`."""
        return self.part_rates.get(part, 1.0)


class Saving(Strict):
    """When a run writes what `--resume` goes on from, which checkpoints it keeps, when it ends."""

    state_steps: int | None = Field(None, ge=1)
    """steps between states"""
    state_seconds: float | None = Field(600.0, gt=0)
    """seconds between states; one is also written on SIGTERM, Ctrl-C and after the last step"""
    keep_last: int | None = Field(None, ge=1)
    """checkpoints that are kept; None: all"""
    best_by: Literal["val_auroc", "val_nll"] | None = None
    """the best validated checkpoint is kept as well, and is the one that is calibrated and scored;
    None: the last one is"""
    patience: int | None = Field(None, ge=1)
    """end after so many validations that are not better than the best before them"""

    @model_validator(mode="after")
    def _patience_needs_a_measure(self) -> Saving:
        if self.patience is not None and self.best_by is None:
            raise ValueError("patience needs best_by: val_auroc or val_nll")
        return self


class KeptFeatures(Strict):
    """Vision features of a frozen tower, computed once for each training image and kept."""

    folder: str | None = None
    """where other runs with the same tower find them again; None: in memory, for this run"""


class Scoring(Strict):
    """The token soft score: p_fake from the logits after a question and a forced answer prefix."""

    question: str = Field(min_length=1)
    answer_prefix: str = ""
    """as the model writes it after the prompt, leading space included"""
    fake_words: tuple[str, ...] = Field(min_length=1)
    """what may follow the prefix, leading space included; of several tokens, scored whole"""
    real_words: tuple[str, ...] = Field(min_length=1)
    reduce: Reduction = "sum"
    """sum: FakeScope's formula, logits summed inside the exponential; mean; logsumexp: the words'
    probabilities added; single: the first word of each set alone"""
    batch_images: int = Field(32, ge=1)
    threshold: float = Field(0.5, gt=0, lt=1)
    validate_every: int | None = Field(None, ge=1)
    """steps between scorings of the val split"""


class Alignment(Strict):
    """A stage before the instructions, in which the projector alone learns."""

    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warmup_steps: int = Field(0, ge=0)
    mix: dict[str, float] | None = None
    """None: that of the run"""


class TrainingConfig(Strict):
    """One run, whole."""

    title: str
    seed: int
    threads: int | None = Field(None, ge=1)
    """None: as many as the machine has"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    autocast: Literal["none", "bfloat16"] = "none"
    compile: bool = False
    """the decoder layers while they learn (torch.compile); needs a C++ compiler, on CUDA Triton"""
    peak_teraflops: float | None = Field(None, gt=0)
    """what the device can do at most, for the MFU in `metrics.jsonl`; None: known for some GPUs"""
    model: Annotated[TinyLlava | Checkpoint, Field(discriminator="kind")]
    lora: Lora | None = None
    """None: parts are trained whole"""
    alignment: Alignment | None = None
    """None: the run begins with the instructions"""
    data: DataSettings
    optimiser: Optimiser
    features: KeptFeatures | None = None
    """None: computed anew at every visit"""
    saving: Saving = Saving()
    scoring: Scoring
    bootstrap: int = Field(1000, ge=100)
    """resamples of the photographs behind each interval"""

    @model_validator(mode="after")
    def _adapters_sit_on_a_checkpoint(self) -> TrainingConfig:
        if self.lora is not None and self.model.kind != "checkpoint":
            raise ValueError("lora: adapters need a model of kind checkpoint to sit on")
        return self

    @model_validator(mode="after")
    def _features_have_one_keeper(self) -> Self:
        if self.features is not None and self.data.workers:
            raise ValueError("features are kept by one process: write data.workers=0")
        return self

    @model_validator(mode="after")
    def _best_needs_validations(self) -> TrainingConfig:
        if self.saving.best_by is not None and self.scoring.validate_every is None:
            raise ValueError("saving.best_by needs scoring.validate_every")
        return self


def align_first(config: TrainingConfig, stage: Alignment) -> TrainingConfig:
    """The run that aligns the projector: tower and language model stay as they are."""
    optimiser = config.optimiser.model_dump() | {
        "steps": stage.steps,
        "epochs": None,
        "learning_rate": stage.learning_rate,
        "part_rates": {"tower": 0, "language": 0},
        "warmup_steps": stage.warmup_steps,
        "warmup_share": None,
    }
    data = config.data.model_dump() | {"mix": stage.mix or config.data.mix}
    changes = {
        "title": f"{config.title}, alignment",
        "lora": None,
        "alignment": None,
        "data": data,
        "optimiser": optimiser,
        "saving": config.saving.model_dump() | {"best_by": None, "patience": None},
    }
    return TrainingConfig.model_validate(config.model_dump() | changes)


def go_on_from(config: TrainingConfig, checkpoint: Path) -> TrainingConfig:
    """The run on instructions, from the checkpoint that the alignment left."""
    settings = {"kind": "checkpoint", "name": str(checkpoint.resolve())}
    if isinstance(config.model, Checkpoint):
        settings = config.model.model_dump() | settings
    changes = {"model": settings, "alignment": None}
    return TrainingConfig.model_validate(config.model_dump() | changes)


def load_config(path: Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a training file; `overrides` are `key.inner=value`, the value being YAML."""
    settings = read_yaml(path)
    if not isinstance(settings, dict):
        raise ConfigError(f"{path}: holds no settings")
    for override in overrides:
        _apply(settings, override)
    _read_shape(settings, path.parent)
    where = f"{path} with {' '.join(overrides)}" if overrides else str(path)
    return parse_model(settings, TrainingConfig, where=where)


def _read_shape(settings: dict[str, Any], folder: Path) -> None:
    model = settings.get("model")
    if isinstance(model, dict) and isinstance(model.get("shape"), str):
        model["shape"] = read_yaml(folder / model["shape"])


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
