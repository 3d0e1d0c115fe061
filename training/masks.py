"""Masks of traces against the outlines that a benchmark marks, by LEGION's protocol.

Mean IoU is the mean over images of the IoU of foreground and that of background; F1 is the mean
over images of the foreground's (arXiv 2503.15264, released evaluation code). Traces cover little
of most images, so that marking nothing has a mean IoU near one half: read F1 or the foreground's
IoU, beside what marking nothing and marking everything get.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from core.errors import ConfigError, DataError
from core.ids import sha256_text
from imaging.decode import Limits, open_image
from imaging.layouts import FoundTrace
from instruct_builder.shards import sha256_of

Mask = NDArray[np.bool_]
"""(height, width); True where something is marked"""
SUFFIXES: Final = (".png", ".json")
LIMITS: Final = Limits(min_side=1)
ZERO: Final = ord("0")
"""what stands for 0 in COCO's compressed run lengths"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskScores:
    """Of one image, or the mean over many; from 0 to 1."""

    mean_iou: float
    """of foreground and background"""
    foreground_iou: float
    f1: float
    """of the foreground's pixels"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskFigures:
    """The masks of one model on one benchmark, and the two that need no model."""

    images: int
    missing: int
    """images without a mask: taken as nothing marked"""
    refused: tuple[str, ...]
    """masks that cannot be used, with the reason; likewise"""
    scores: MaskScores
    nothing_marked: MaskScores
    everything_marked: MaskScores


@dataclass(frozen=True, slots=True)
class Marked:
    """One image with the outlines of its traces. Width and height in pixels, upright."""

    name: str
    width: int
    height: int
    traces: tuple[FoundTrace, ...]


def measure_masks(images: Iterable[Marked], folder: Path) -> MaskFigures:
    """Compare the masks in `folder` with the outlines; ConfigError when no mask fits an image."""
    places = _masks_in(folder)
    found, nothing, everything, refused = [], [], [], []
    missing = 0
    for image in images:
        target = draw_outlines(image)
        mask: Mask = np.zeros_like(target)
        path = _place_of(image.name, places)
        missing += path is None
        try:
            mask = mask if path is None else read_mask(path, width=image.width, height=image.height)
        except DataError as error:
            refused.append(f"{image.name}: {error}")
        found.append(compare_masks(mask, target))
        nothing.append(compare_masks(np.zeros_like(target), target))
        everything.append(compare_masks(np.ones_like(target), target))
    if missing == len(found):
        raise ConfigError(f"{folder}: holds no mask for any image that the benchmark marks")
    return MaskFigures(
        images=len(found),
        missing=missing,
        refused=tuple(refused),
        scores=_mean(found),
        nothing_marked=_mean(nothing),
        everything_marked=_mean(everything),
    )


def compare_masks(mask: Mask, target: Mask) -> MaskScores:
    """Scores of one image; what is empty in both is a full agreement."""
    foreground, background = _iou(mask, target), _iou(~mask, ~target)
    marked = int(mask.sum()) + int(target.sum())
    f1 = 2 * int((mask & target).sum()) / marked if marked else 1.0
    return MaskScores(mean_iou=(foreground + background) / 2, foreground_iou=foreground, f1=f1)


def _iou(one: Mask, other: Mask) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def _mean(scores: Sequence[MaskScores]) -> MaskScores:
    return MaskScores(
        mean_iou=float(np.mean([each.mean_iou for each in scores])),
        foreground_iou=float(np.mean([each.foreground_iou for each in scores])),
        f1=float(np.mean([each.f1 for each in scores])),
    )


def draw_outlines(image: Marked) -> Mask:
    """The union of all polygons of an image."""
    canvas = Image.new("1", (image.width, image.height))
    for outline in (outline for trace in image.traces for outline in trace.outlines):
        ImageDraw.Draw(canvas).polygon([(x, y) for x, y in outline], fill=1)
    return np.array(canvas, bool)


# Mask files


def _masks_in(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder of masks")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    return {str(path.relative_to(folder).with_suffix("")): path for path in paths}


def digest_of(folder: Path) -> str:
    """SHA-256 of all masks with their names; ConfigError when there is no such folder."""
    lines = [f"{name} {sha256_of(path)}\n" for name, path in _masks_in(folder).items()]
    return sha256_text("".join(lines))


def _place_of(name: str, places: dict[str, Path]) -> Path | None:
    """The mask under the image's own path, or else under its mere name."""
    stem = name.rpartition(".")[0] or name
    return places.get(stem) or places.get(stem.rpartition("/")[2]) or places.get(name)


def read_mask(path: Path, *, width: int, height: int) -> Mask:
    """A PNG, marked where it is not black, or JSON with COCO run lengths, one or a list.

    DataError when it cannot be read or has another size than its image.
    """
    mask = _read_png(path) if path.suffix.lower() == ".png" else _read_json(path)
    if mask.shape != (height, width):
        raise DataError(
            f"its mask has {mask.shape[1]} x {mask.shape[0]} pixels, it has {width} x {height}"
        )
    return mask


def _read_png(path: Path) -> Mask:
    return np.asarray(np.asarray(open_image(path, LIMITS).rgb).max(axis=-1) > 0)


def _read_json(path: Path) -> Mask:
    try:
        value = json.loads(path.read_bytes())
        parts = value if isinstance(value, list) else [value]
        masks = [decode_run_lengths(part["counts"], *part["size"]) for part in parts]
        return np.asarray(np.logical_or.reduce(masks))
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{path.name} holds no COCO run lengths: {error}") from None


def decode_run_lengths(counts: Any, height: int, width: int) -> Mask:
    """COCO's encoding: lengths of runs, column by column, unmarked first; a list or compressed."""
    lengths = list(_decompress(counts)) if isinstance(counts, str) else counts
    if sum(lengths) != height * width or min(lengths, default=0) < 0:
        raise ValueError("the runs do not fill the image")
    flags = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.asarray(flags.reshape(width, height).T, bool)


def _decompress(text: str) -> Iterator[int]:
    """Five bits a character, the sixth says that more follow; from the third on, differences."""
    lengths: list[int] = []
    place = 0
    while place < len(text):
        value = shift = 0
        while True:
            bits = ord(text[place]) - ZERO
            place += 1
            value |= (bits & 0x1F) << shift
            shift += 5
            if not bits & 0x20:
                break
        if bits & 0x10:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
    yield from lengths
