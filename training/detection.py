"""How well fakes are told from photographs: figures over all images and by generator. Pure.

Each generator is set against all photographs of the benchmark, as GRIP's protocol does; the macro
mean and the worst generator are over these lines. Intervals resample groups, not images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from core.records import Authenticity
from training.calibrate import Calibration
from training.metrics import Interval, Labels, Scored, Scores, auroc, bootstrap, cllr, summarise

RESAMPLES, SEED = 1000, 1
"""of the intervals"""
UNNAMED = "not named"
"""generator of fakes whose collection names none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredImage:
    """One image with its score."""

    name: str
    label: Authenticity
    generator: str | None
    group: str
    log_odds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The fakes of one generator, or all, against all photographs."""

    name: str
    fakes: int
    photographs: int
    auroc: Interval
    figures: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """All figures of one set of scores."""

    fakes: int
    photographs: int
    groups: int
    found: float | None
    """share of fakes called fake; None: there are none"""
    alarms: float | None
    """share of photographs called fake; None: there are none"""
    whole: Line | None
    """None: the benchmark holds one class only, so there is recall and nothing else"""
    generators: tuple[Line, ...]
    macro: dict[str, float]
    """plain mean over the generators"""
    worst: str | None
    """generator of the lowest AUROC"""
    majority: float
    """accuracy of who always says what is more frequent"""


def measure_detection(images: Sequence[ScoredImage], calibration: Calibration | None) -> Detection:
    """The figures of some scored images, at least one; without a calibration, of the raw scores."""
    rows = _Rows.of(images, calibration)
    whole = rows.line("all", rows.is_fake) if rows.has_both_classes else None
    lines = rows.by_generator() if whole else ()
    fakes = int(rows.is_fake.sum())
    return Detection(
        fakes=fakes,
        photographs=len(images) - fakes,
        groups=len({image.group for image in images}),
        found=_share(rows.called[rows.is_fake]),
        alarms=_share(rows.called[~rows.is_fake]),
        whole=whole,
        generators=lines,
        macro=_mean(lines),
        worst=min(lines, key=lambda line: line.auroc.value).name if lines else None,
        majority=max(fakes, len(images) - fakes) / len(images),
    )


def _share(called: Labels) -> float | None:
    return float(called.mean()) if len(called) else None


def _mean(lines: Sequence[Line]) -> dict[str, float]:
    if not lines:
        return {}
    figures = {name: [line.figures[name] for line in lines] for name in lines[0].figures}
    return {name: float(np.mean(values)) for name, values in figures.items()}


@dataclass(frozen=True, slots=True)
class _Rows:
    """Scores as arrays, one entry per image."""

    scored: Scored
    ratios: Scores
    """log-likelihood ratios; the raw log-odds where nothing was calibrated"""
    threshold: float
    generators: Sequence[str]
    """empty for photographs"""

    @classmethod
    def of(cls, images: Sequence[ScoredImage], calibration: Calibration | None) -> _Rows:
        log_odds = np.array([image.log_odds for image in images], dtype=float)
        ratios = calibration.log_likelihood_ratios(log_odds) if calibration else log_odds
        fakes = [image.label is Authenticity.FAKE for image in images]
        return cls(
            scored=Scored.of(fakes, log_odds, [image.group for image in images]),
            ratios=ratios,
            threshold=calibration.threshold if calibration else 0.0,
            generators=[
                (image.generator or UNNAMED) if is_fake else ""
                for image, is_fake in zip(images, fakes, strict=True)
            ],
        )

    @property
    def is_fake(self) -> Labels:
        return self.scored.labels

    @property
    def called(self) -> Labels:
        """Which images are called fake."""
        return self.ratios >= self.threshold

    @property
    def has_both_classes(self) -> bool:
        return self.scored.has_both_classes

    def by_generator(self) -> tuple[Line, ...]:
        own = np.array(self.generators)
        return tuple(self.line(name, own == name) for name in sorted(set(own[self.is_fake])))

    def line(self, name: str, chosen: Labels) -> Line:
        """Some of the fakes against all photographs."""
        kept = chosen | ~self.is_fake
        scored, ratios = self.scored.where(kept), self.ratios[kept]
        figures = summarise(scored, expit(ratios), threshold=float(expit(self.threshold)))
        return Line(
            name=name,
            fakes=int(scored.labels.sum()),
            photographs=int((~scored.labels).sum()),
            auroc=bootstrap([scored], auroc, resamples=RESAMPLES, seed=SEED),
            figures=figures | {"cllr": cllr(scored.labels, ratios)},
        )
