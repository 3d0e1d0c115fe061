"""Score the test split, and set the model beside classifiers that it has to beat."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from core.errors import ConfigError
from core.records import Authenticity, Split
from training.baselines import logistic_scores, measurement_features, metadata_features
from training.calibrate import Calibration
from training.config import TrainingConfig
from training.data import ImageFolder, LabelledImage
from training.metrics import (
    Interval,
    Scored,
    Scores,
    auroc,
    bootstrap,
    bootstrap_difference,
    cllr,
    summarise,
)
from training.model import Assembly
from training.score import Verdict, probability, score_images

GREY = (128, 128, 128)
MODEL = "model"
BLANKED = "model, images blanked"
METADATA = "metadata only"
MEASUREMENTS = "logistic regression on the rehearsal measurements"

Advance = Callable[[int], None]
"""told how many more images are done"""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of `predictions.jsonl`."""

    image_id: str
    label: str
    generator: str | None
    group: str
    log_odds: float
    p_fake: float
    log_likelihood_ratio: float | None = None
    """calibrated, natural logarithm, positive for fake; None: nothing was calibrated"""
    others: Mapping[str, float] = field(default_factory=dict)
    """scores of what the model is compared with"""


@dataclass(frozen=True, slots=True)
class TestSet:
    """The images to score, and which generators the training never saw."""

    images: Sequence[LabelledImage]
    held_out: frozenset[str]

    @classmethod
    def of(cls, images: Sequence[LabelledImage]) -> TestSet:
        """The test split; a ConfigError when it cannot be scored or shares photographs."""
        test = [image for image in images if image.split is Split.TEST]
        train = [image for image in images if image.split is Split.TRAIN]
        _check_test(test, train)
        unseen = {image.generator for image in test} - {image.generator for image in train}
        return cls(test, frozenset(filter(None, unseen)))

    @property
    def labels(self) -> list[bool]:
        return [image.is_fake for image in self.images]

    @property
    def groups(self) -> list[str]:
        return [image.group for image in self.images]

    def scored(self, scores: Scores) -> Scored:
        return Scored.of(self.labels, scores, self.groups)

    def among(self, generators: frozenset[str]) -> list[bool]:
        """True for photographs and for the fakes of these generators."""
        return [not image.is_fake or image.generator in generators for image in self.images]

    @property
    def seen(self) -> frozenset[str]:
        """Generators of the test split that the training saw too."""
        return frozenset(i.generator for i in self.images if i.generator) - self.held_out


def _check_test(test: Sequence[LabelledImage], train: Sequence[LabelledImage]) -> None:
    for authenticity in Authenticity:
        is_fake = authenticity is Authenticity.FAKE
        if not any(image.is_fake is is_fake for image in test):
            raise ConfigError(f"the test split has no {authenticity} image; build a larger set")
    shared = {image.group for image in test} & {image.group for image in train}
    if shared:
        raise ConfigError(f"group {min(shared)} is in the train and in the test split; build again")


def predict(
    images: Sequence[LabelledImage],
    folder: ImageFolder,
    verdict: Verdict,
    assembly: Assembly,
    *,
    batch_images: int,
    advance: Advance,
) -> list[Prediction]:
    """The token soft score of each image."""
    predictions = []
    for start in range(0, len(images), batch_images):
        batch = images[start : start + batch_images]
        scores = score_images([folder.read(image.ref) for image in batch], verdict, assembly)
        predictions += [_predicted(*pair) for pair in zip(batch, scores, strict=True)]
        advance(len(batch))
    return predictions


def _predicted(image: LabelledImage, log_odds: float) -> Prediction:
    return Prediction(
        image_id=image.ref.image_id,
        label=Authenticity.FAKE if image.is_fake else Authenticity.REAL,
        generator=image.generator,
        group=image.group,
        log_odds=log_odds,
        p_fake=probability(log_odds),
    )


def score_blanks(images: Sequence[LabelledImage], verdict: Verdict, assembly: Assembly) -> Scores:
    """Scores of grey images of the same sizes: what is left when there is nothing to see."""
    sizes = {(image.width, image.height) for image in images}
    by_size = {
        size: score_images([Image.new("RGB", size, GREY)], verdict, assembly)[0]
        for size in sorted(sizes)
    }
    return np.array([by_size[image.width, image.height] for image in images])


def score_baselines(
    train: Sequence[LabelledImage],
    test: Sequence[LabelledImage],
    folder: ImageFolder,
    *,
    advance: Advance,
) -> dict[str, Scores]:
    """Scores of the classifiers without a network, fitted on the train split."""
    labels = np.array([image.is_fake for image in train])

    def measured(images: Sequence[LabelledImage]) -> Any:
        return measurement_features(images, folder, after_image=lambda: advance(1))

    return {
        METADATA: logistic_scores(
            metadata_features(train, folder), labels, metadata_features(test, folder)
        ),
        MEASUREMENTS: logistic_scores(measured(train), labels, measured(test)),
    }


def with_others(
    predictions: Sequence[Prediction],
    scores: Mapping[str, Scores],
    calibration: Calibration | None,
) -> list[Prediction]:
    """Predictions with the scores of the other ways to score: every figure can be recomputed."""
    others = {name: values for name, values in scores.items() if name != MODEL}
    return [
        replace(
            row,
            log_likelihood_ratio=calibration.ratio(row.log_odds) if calibration else None,
            others={name: float(values[place]) for name, values in others.items()},
        )
        for place, row in enumerate(predictions)
    ]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table: AUROC of one way to score, against all photographs of the split."""

    name: str
    seen: Interval | None
    """fakes of generators that the training saw"""
    held_out: Interval | None
    """fakes of generators that it did not see"""


def tabulate(test: TestSet, scores: Mapping[str, Scores], config: TrainingConfig) -> list[Line]:
    """AUROC with intervals clustered by photograph, for each way to score."""
    return [
        Line(
            name,
            _interval(test, values, test.seen, config),
            _interval(test, values, test.held_out, config),
        )
        for name, values in scores.items()
    ]


def _interval(
    test: TestSet, scores: Scores, generators: frozenset[str], config: TrainingConfig
) -> Interval | None:
    scored = test.scored(scores).where(test.among(generators))
    if not scored.has_both_classes:
        return None
    return bootstrap([scored], resamples=config.bootstrap, seed=config.seed)


@dataclass(frozen=True, slots=True)
class GeneratorLine:
    """How well the fakes of one generator are found among all photographs of the split."""

    generator: str
    is_held_out: bool
    images: int
    auroc: Interval
    found: float
    """share called fake at the threshold"""


def by_generator(test: TestSet, scores: Scores, config: TrainingConfig) -> list[GeneratorLine]:
    """One line per generator of the test split."""
    lines = []
    for generator in sorted(test.seen | test.held_out):
        own = np.array([image.generator == generator for image in test.images])
        interval = _interval(test, scores, frozenset({generator}), config)
        if interval is not None:
            found = float((to_probabilities(scores[own]) >= config.scoring.threshold).mean())
            is_held_out = generator in test.held_out
            lines.append(GeneratorLine(generator, is_held_out, int(own.sum()), interval, found))
    return lines


def to_probabilities(scores: Scores) -> Scores:
    """p_fake of each score."""
    return np.array([probability(score) for score in scores])


def compare(
    test: TestSet, scores: Mapping[str, Scores], config: TrainingConfig
) -> tuple[Interval, str]:
    """AUROC of the model minus that of the measurements on seen generators, and what it means."""
    kept = np.array(test.among(test.seen if test.seen else test.held_out))
    difference = bootstrap_difference(
        np.array(test.labels)[kept],
        scores[MODEL][kept],
        scores[MEASUREMENTS][kept],
        np.array(test.groups)[kept],
        resamples=config.bootstrap,
        seed=config.seed,
    )
    return difference, describe_difference(difference)


def describe_difference(difference: Interval) -> str:
    """One sentence; a model that is beaten by a few measured figures is said to be."""
    if difference.high < 0:
        outcome = f"The model loses to {MEASUREMENTS}"
    elif difference.low > 0:
        outcome = f"The model beats {MEASUREMENTS}"
    elif difference.value < 0:
        outcome = f"The model is behind {MEASUREMENTS}, though the interval includes zero"
    else:
        outcome = f"The model is no worse than {MEASUREMENTS}, but does not clearly beat it"
    return f"{outcome}: AUROC difference {difference}."


def summarise_all(test: TestSet, scores: Scores, config: TrainingConfig) -> dict[str, float]:
    """All figures over the whole test split, held-out generators included."""
    return summarise(
        test.scored(scores), to_probabilities(scores), threshold=config.scoring.threshold
    )


def summarise_calibrated(
    test: TestSet, scores: Scores, calibration: Calibration | None
) -> dict[str, float] | None:
    """The same with calibrated probabilities at the threshold that was chosen on the val split."""
    if calibration is None:
        return None
    figures = summarise(
        test.scored(scores),
        calibration.probabilities(scores),
        threshold=probability(calibration.threshold),
    )
    ratios = calibration.log_likelihood_ratios(scores)
    return figures | {"cllr": cllr(np.array(test.labels), ratios)}


def val_auroc(predictions: Sequence[Prediction]) -> float | None:
    """AUROC of predictions; None when they hold one class only."""
    scored = Scored.of(
        [p.label == Authenticity.FAKE for p in predictions],
        [p.log_odds for p in predictions],
        [p.group for p in predictions],
    )
    return auroc(scored) if scored.has_both_classes else None


def val_nll(predictions: Sequence[Prediction]) -> float:
    """Mean negative log-likelihood of the labels, in nats."""
    signs = np.array([1 if p.label == Authenticity.FAKE else -1 for p in predictions])
    return float(np.logaddexp(0, -signs * np.array([p.log_odds for p in predictions])).mean())
