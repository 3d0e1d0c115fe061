"""Changes that images suffer on their way through the world, each by name and strength.

A chain such as `resize 0.5 | jpeg 70` applies them one after the other. Noise and crops are drawn
from a seed, so that the same image always suffers the same.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from PIL import Image, ImageFilter

from core.errors import ConfigError
from core.ids import seed_of

LEAST_SIDE: Final = 8
"""pixels that remain of a side at least"""
BETWEEN: Final = "|"


@dataclass(frozen=True, slots=True)
class Step:
    """One change with its strength."""

    kind: str
    strength: float

    def __str__(self) -> str:
        return f"{self.kind} {self.strength:g}"


@dataclass(frozen=True, slots=True)
class Perturbation:
    """Some steps, one after the other; none leaves an image as it is."""

    steps: tuple[Step, ...]

    @property
    def name(self) -> str:
        return f" {BETWEEN} ".join(map(str, self.steps)) or "none"

    def apply(self, image: Image.Image, *, seed: str) -> Image.Image:
        """The changed RGB image; `seed` names the image, for what is drawn at random."""
        for number, step in enumerate(self.steps):
            rng = np.random.default_rng(seed_of("perturb", str(step), number, seed))
            image = KINDS[step.kind].apply(image, step.strength, rng)
        return image


def _recode(kind: str) -> Callable[[Image.Image, float, np.random.Generator], Image.Image]:
    def apply(image: Image.Image, quality: float, rng: np.random.Generator) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, kind, quality=round(quality))
        return Image.open(buffer).convert("RGB")

    return apply


def _resize(image: Image.Image, factor: float, rng: np.random.Generator) -> Image.Image:
    size = tuple(max(LEAST_SIDE, round(side * factor)) for side in image.size)
    return image.resize((size[0], size[1]), Image.Resampling.BICUBIC)


def _blur(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def _noise(image: Image.Image, sigma: float, rng: np.random.Generator) -> Image.Image:
    pixels = np.asarray(image, float)
    noisy = pixels + rng.normal(0, sigma, pixels.shape)
    return Image.fromarray(np.clip(noisy.round(), 0, 255).astype(np.uint8))


def _crop(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    width, height = (max(LEAST_SIDE, round(side * share)) for side in image.size)
    left, top = (
        int(rng.integers(max(0, whole - part) + 1))
        for whole, part in zip(image.size, (width, height), strict=True)
    )
    return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One sort of change."""

    apply: Callable[[Image.Image, float, np.random.Generator], Image.Image]
    least: float
    most: float
    unit: str
    """what its strength is"""


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "jpeg": Kind(apply=_recode("JPEG"), least=1, most=100, unit="quality"),
        "webp": Kind(apply=_recode("WEBP"), least=1, most=100, unit="quality"),
        "resize": Kind(apply=_resize, least=0.05, most=4, unit="factor, bicubic"),
        "blur": Kind(apply=_blur, least=0.1, most=20, unit="sigma in pixels"),
        "noise": Kind(apply=_noise, least=0.1, most=128, unit="sigma in levels of 255"),
        "crop": Kind(apply=_crop, least=0.05, most=1, unit="share of each side"),
    }
)
"""by the name in a chain"""


def read_perturbation(text: str) -> Perturbation:
    """`jpeg 70`, or a chain `resize 0.5 | jpeg 70`; ConfigError says what can be written."""
    steps = tuple(_read_step(part.split(), text) for part in text.split(BETWEEN))
    return Perturbation(steps)


def _read_step(words: list[str], text: str) -> Step:
    known = ", ".join(f"{name} ({kind.unit})" for name, kind in KINDS.items())
    try:
        name, strength = words[0], float(words[1])
        kind = KINDS[name]
        if len(words) != 2 or not kind.least <= strength <= kind.most:
            raise ValueError
    except (ValueError, IndexError, KeyError):
        raise ConfigError(
            f"{text!r} is no change of an image; write one as `jpeg 70`, or several as "
            f"`resize 0.5 {BETWEEN} jpeg 70`; there are: {known}"
        ) from None
    return Step(name, strength)
