"""Two evaluations of one benchmark side by side, on the images that both have scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from core.errors import ConfigError
from core.records import Authenticity
from training.calibrate import Calibration
from training.detection import RESAMPLES, SEED, UNNAMED, ScoredImage
from training.evaluation import EvaluationFolder
from training.metrics import Interval, Labels, bootstrap_difference

SHOWN = 20
"""changed images that a terminal is shown"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An image that one of both calls right and the other wrong."""

    name: str
    label: Authenticity
    generator: str | None
    right: str
    """`first` or `second`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The second evaluation against the first."""

    images: int
    """that both have scored, with the same label"""
    left_out: int
    difference: Interval
    """AUROC of the second minus that of the first, paired by group"""
    accuracy: tuple[float, float]
    """of both, each at its own threshold"""
    changes: tuple[Change, ...]


def compare_evaluations(first: Path, second: Path) -> Comparison:
    """ConfigError when a folder holds no evaluation, or both share no images of both classes."""
    one, other = EvaluationFolder(first), EvaluationFolder(second)
    ones, others = _scored(one), _scored(other)
    names = [n for n, image in ones.items() if n in others and others[n].label is image.label]
    labels = np.array([ones[name].label is Authenticity.FAKE for name in names], bool)
    if not labels.any() or labels.all():
        raise ConfigError(f"{first} and {second} share no images of both classes")
    scores = [np.array([each[name].log_odds for name in names]) for each in (ones, others)]
    groups = np.array([ones[name].group for name in names])
    right = [
        _calls(values, folder.asked().calibration) == labels
        for values, folder in zip(scores, (one, other), strict=True)
    ]
    return Comparison(
        images=len(names),
        left_out=len(ones.keys() | others.keys()) - len(names),
        difference=bootstrap_difference(
            labels, scores[1], scores[0], groups, resamples=RESAMPLES, seed=SEED
        ),
        accuracy=(float(right[0].mean()), float(right[1].mean())),
        changes=tuple(
            Change(
                name=name,
                label=ones[name].label,
                generator=ones[name].generator,
                right="first" if right[0][place] else "second",
            )
            for place, name in enumerate(names)
            if right[0][place] != right[1][place]
        ),
    )


def _scored(folder: EvaluationFolder) -> Mapping[str, ScoredImage]:
    folder.asked()
    images = (each.scored() for each in folder.done().predicted)
    return {image.name: image for image in images if image is not None}


def _calls(log_odds: np.ndarray, calibration: Calibration | None) -> Labels:
    return np.asarray(log_odds >= 0) if calibration is None else calibration.calls_fake(log_odds)


def render_comparison(found: Comparison) -> str:
    """A few lines for a terminal, the first changed images among them."""
    lines = [
        f"{found.images:,} images in both, {found.left_out:,} left out",
        f"AUROC of the second minus the first: {found.difference}",
        f"accuracy: {found.accuracy[0]:.3f} and {found.accuracy[1]:.3f}",
        f"images that changed: {len(found.changes):,}",
    ]
    for change in found.changes[:SHOWN]:
        maker = change.generator or UNNAMED if change.label is Authenticity.FAKE else "photograph"
        lines.append(f"  right in the {change.right}: {change.name} ({maker})")
    if len(found.changes) > SHOWN:
        lines.append(f"  and {len(found.changes) - SHOWN:,} more (--json lists all)")
    return "\n".join(lines)
