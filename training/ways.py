"""The model beside what scores the same images with less skill. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.records import Authenticity
from imaging.shortcuts import MetadataScore, TooFew
from training.calibrate import Calibration
from training.detection import RESAMPLES, SEED, ScoredImage
from training.metrics import Interval, Labels, Scored, Scores, auroc, bootstrap

MODEL, METADATA, MAJORITY = "the model", "metadata alone", "always the more frequent label"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to score."""

    name: str
    images: int
    auroc: Interval | None
    accuracy: float | None
    """at the model's own threshold, or at even odds; None: it calls nothing"""


def measure_ways(
    images: Sequence[ScoredImage],
    rows: Iterable[Mapping[str, Any]],
    metadata: MetadataScore | TooFew,
    calibration: Calibration | None,
) -> tuple[Way, ...]:
    """The model first; nothing without images of both labels.

    `rows` hold log-odds of others by the name of their way. Metadata are those of the same images,
    cross-validated among themselves.
    """
    labels = np.array([image.label is Authenticity.FAKE for image in images], bool)
    if not labels.any() or labels.all():
        return ()
    log_odds = np.array([image.log_odds for image in images], float)
    called = calibration.calls_fake(log_odds) if calibration else log_odds >= 0
    groups = [image.group for image in images]
    others: dict[str, dict[str, float]] = {}
    for row in rows:
        for way, value in row.items():
            if way != "name":
                others.setdefault(way, {})[row["name"]] = value
    return (
        _way(MODEL, labels, log_odds, called, groups),
        *(_other(way, own, images) for way, own in others.items()),
        *_of_metadata(metadata),
        Way(
            name=MAJORITY,
            images=len(images),
            auroc=Interval(0.5, 0.5, 0.5),
            accuracy=float(max(labels.mean(), 1 - labels.mean())),
        ),
    )


def _other(name: str, log_odds: Mapping[str, float], images: Sequence[ScoredImage]) -> Way:
    own = [image for image in images if image.name in log_odds]
    scores = np.array([log_odds[image.name] for image in own], float)
    labels = np.array([image.label is Authenticity.FAKE for image in own], bool)
    return _way(name, labels, scores, scores >= 0, [image.group for image in own])


def _way(name: str, labels: Labels, scores: Scores, called: Labels, groups: Sequence[str]) -> Way:
    scored = Scored.of(labels, scores, groups)
    interval = (
        bootstrap([scored], auroc, resamples=RESAMPLES, seed=SEED)
        if scored.has_both_classes
        else None
    )
    return Way(
        name=name,
        images=len(labels),
        auroc=interval,
        accuracy=float((called == labels).mean()) if len(labels) else None,
    )


def _of_metadata(found: MetadataScore | TooFew) -> list[Way]:
    if isinstance(found, TooFew):
        return []
    interval = Interval(found.auc, found.low, found.high)
    return [Way(name=METADATA, images=found.real + found.fake, auroc=interval, accuracy=None)]
