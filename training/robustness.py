"""How scores hold when images are changed on their way: one row for each change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import numpy as np
from scipy.special import expit

from core.recipe import Strict, read_model
from core.records import Authenticity
from imaging.perturb import Perturbation, read_perturbation
from training.batches import BATCH, in_batches
from training.benchmarks import Benchmark, Examined, Refused
from training.calibrate import Calibration
from training.detection import RESAMPLES, SEED, ScoredImage
from training.evaluation import EvaluationFolder
from training.metrics import Interval, Scored, auroc, bootstrap, summarise
from training.progress import counting
from training.scorers import Scorer

ROBUSTNESS: Final = "robustness.jsonl"
GRID: Final = "robustness.yaml"
"""of a recipe"""
UNCHANGED: Final = "none"


class Grid(Strict):
    """The changes that a recipe's evaluations try."""

    changes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustnessLine:
    """All images after one change."""

    change: str
    kind: str | None
    """None: a chain, or no change at all"""
    strength: float | None
    images: int
    auroc: Interval
    balanced_accuracy: float
    """at the threshold of the unchanged images"""


def read_grid(recipe: Path) -> list[Perturbation]:
    """The changes that a recipe names."""
    return [read_perturbation(text) for text in read_model(recipe / GRID, Grid).changes]


def score_changed(
    scorer: Scorer,
    benchmark: Benchmark,
    folder: EvaluationFolder,
    changes: Sequence[Perturbation],
    *,
    limit: int | None,
) -> None:
    """Score every image after every change; what is there already stays."""
    there = {(row["change"], row["name"]) for row in folder.rows(ROBUSTNESS)}
    total = sum(1 for _ in islice(benchmark.files(), limit))
    with counting("scoring changed images", total) as advance:
        for batch in in_batches(benchmark.read(limit=limit), BATCH):
            read = [each for each in batch if not isinstance(each, Refused)]
            for change in changes:
                left = [each for each in read if (change.name, each[0].name) not in there]
                _score(scorer, left, change, folder)
            advance(len(batch), "")


def _score(
    scorer: Scorer, images: Sequence[Examined], change: Perturbation, folder: EvaluationFolder
) -> None:
    if not images:
        return
    changed = [(facts, change.apply(image, seed=facts.sha256)) for facts, image in images]
    folder.append(
        [
            {"change": change.name, "name": facts.name, "log_odds": score.log_odds}
            for (facts, _), score in zip(changed, scorer.score(changed), strict=True)
        ],
        ROBUSTNESS,
    )


def measure_robustness(
    images: Sequence[ScoredImage],
    rows: Iterable[Mapping[str, Any]],
    calibration: Calibration | None,
) -> tuple[RobustnessLine, ...]:
    """One line for each change, that of the unchanged images first; none without both labels."""
    if len({image.label for image in images}) < 2:
        return ()
    known = {image.name: image for image in images}
    changed: dict[str, list[ScoredImage]] = {UNCHANGED: list(images)}
    for row in rows:
        if row["name"] in known and row["log_odds"] is not None:
            image = replace(known[row["name"]], log_odds=row["log_odds"])
            changed.setdefault(row["change"], []).append(image)
    return (
        tuple(
            _line(change, own, calibration)
            for change, own in changed.items()
            if len({image.label for image in own}) == 2
        )
        if len(changed) > 1
        else ()
    )


def _line(
    change: str, images: Sequence[ScoredImage], calibration: Calibration | None
) -> RobustnessLine:
    log_odds = np.array([image.log_odds for image in images], float)
    scored = Scored.of(
        [image.label is Authenticity.FAKE for image in images],
        log_odds,
        [image.group for image in images],
    )
    ratios = calibration.log_likelihood_ratios(log_odds) if calibration else log_odds
    threshold = float(expit(calibration.threshold)) if calibration else 0.5
    steps = () if change == UNCHANGED else read_perturbation(change).steps
    one = steps[0] if len(steps) == 1 else None
    return RobustnessLine(
        change=change,
        kind=one.kind if one else None,
        strength=one.strength if one else None,
        images=len(images),
        auroc=bootstrap([scored], auroc, resamples=RESAMPLES, seed=SEED),
        balanced_accuracy=summarise(scored, expit(ratios), threshold=threshold)[
            "balanced_accuracy"
        ],
    )
