"""How good scores are, with intervals that respect that crops of one photograph are no independent
trials. Pure; scores are log-odds or probabilities of fake, labels are True for fake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    roc_curve,
)

from core.ids import seed_of

Labels = NDArray[np.bool_]
Scores = NDArray[np.float64]
Places = NDArray[np.intp]
CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores of some images; `groups` names the photograph or identity that each comes from."""

    labels: Labels
    scores: Scores
    groups: NDArray[np.str_]

    @classmethod
    def of(cls, labels: ArrayLike, scores: ArrayLike, groups: Sequence[str]) -> Scored:
        return cls(np.asarray(labels, bool), np.asarray(scores, float), np.asarray(groups, str))

    def where(self, mask: ArrayLike) -> Scored:
        """Those images for which the mask is true."""
        kept = np.asarray(mask, bool)
        return Scored(self.labels[kept], self.scores[kept], self.groups[kept])

    @property
    def has_both_classes(self) -> bool:
        return bool(self.labels.any() and not self.labels.all())


def auroc(scored: Scored) -> float:
    """Chance that a fake scores above a real one; ties count half (Mann-Whitney's U, scaled)."""
    fakes = int(scored.labels.sum())
    pairs = fakes * (len(scored.labels) - fakes)
    ranks = rankdata(scored.scores)[scored.labels].sum()
    return float((ranks - fakes * (fakes + 1) / 2) / pairs)


def group_members(scored: Scored) -> list[Places]:
    """Places of the images of each group."""
    order = np.argsort(scored.groups, kind="stable")
    borders = np.flatnonzero(scored.groups[order][1:] != scored.groups[order][:-1]) + 1
    return np.split(order, borders)


def resample(scored: Scored, members: Sequence[Places], rng: np.random.Generator) -> Scored:
    """As many groups as there are, drawn with repetition, each with all its images.

    `members` is `group_members(scored)`. A draw with one class only is drawn again.
    """
    while True:
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if 0 < scored.labels[drawn].sum() < len(drawn):
            return Scored(scored.labels[drawn], scored.scores[drawn], scored.groups[drawn])


def bootstrap(
    samples: Sequence[Scored],
    metric: Callable[[Scored], float] = auroc,
    *,
    resamples: int,
    seed: int,
) -> Interval:
    """The mean of a metric over one or more test sets, with its percentile interval by group."""
    rng = np.random.default_rng(seed_of("bootstrap", seed))
    grouped = [(sample, group_members(sample)) for sample in samples]
    drawn = [
        np.mean([metric(resample(sample, members, rng)) for sample, members in grouped])
        for _ in range(resamples)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(float(np.mean([metric(s) for s in samples])), float(low), float(high))


def bootstrap_difference(
    labels: Labels, first: Scores, second: Scores, groups: NDArray[np.str_], *,
    resamples: int, seed: int,
) -> Interval:  # fmt: skip
    """AUROC of the first scores minus that of the second, on the same images, paired by group."""
    places = Scored(labels, np.arange(len(labels), dtype=float), groups)

    def difference(drawn: Scored) -> float:
        chosen = drawn.scores.astype(int)
        return auroc(Scored(drawn.labels, first[chosen], drawn.groups)) - auroc(
            Scored(drawn.labels, second[chosen], drawn.groups)
        )

    return bootstrap([places], difference, resamples=resamples, seed=seed)


def calibration_error(
    labels: Labels,
    probabilities: Scores,
    bins: int = CALIBRATION_BINS,
    *,
    balanced: bool = False,
) -> float:
    """Mean gap between predicted and observed share of fakes, over bins of equal width (ECE).

    Guo et al. 2017 (arXiv 1706.04599), eq. 3. `balanced` weighs both classes the same, whatever
    their numbers.
    """
    weights = balanced_weights(labels) if balanced else np.ones(len(labels))
    places = _bins_of(probabilities, bins)
    gaps = np.bincount(places, weights=weights * (probabilities - labels), minlength=bins)
    return float(np.abs(gaps).sum() / weights.sum())


def reliability(
    labels: Labels, probabilities: Scores, bins: int = CALIBRATION_BINS
) -> list[tuple[float, float, int]]:
    """Mean prediction, share of fakes and number of images of each bin that is not empty."""
    places = _bins_of(probabilities, bins)
    return [
        (float(probabilities[inside].mean()), float(labels[inside].mean()), int(inside.sum()))
        for inside in (places == place for place in range(bins))
        if inside.any()
    ]


def _bins_of(probabilities: Scores, bins: int) -> Places:
    return np.minimum((probabilities * bins).astype(np.intp), bins - 1)


def balanced_weights(labels: Labels) -> Scores:
    """Weights that sum to the number of labels, half of it to each class."""
    share = np.where(labels, labels.mean(), (~labels).mean())
    return np.asarray(0.5 / share, dtype=float)


def equal_error_rate(scored: Scored) -> float:
    """The error rate at which as many photographs are called fake as fakes are missed.

    Between two points of the ROC curve it is interpolated linearly.
    """
    false_rate, true_rate, _ = roc_curve(scored.labels, scored.scores, drop_intermediate=False)
    gap = false_rate - (1 - true_rate)
    after = int(np.argmax(gap >= 0))
    share = gap[after - 1] / (gap[after - 1] - gap[after])
    return float(false_rate[after - 1] + share * (false_rate[after] - false_rate[after - 1]))


def cllr(labels: Labels, log_likelihood_ratios: Scores) -> float:
    """Cost of log-likelihood ratios in bits; 1: no better than saying nothing, 0: perfect.

    Bruemmer and du Preez, Application-independent evaluation of speaker detection, Computer Speech
    and Language 20 (2006), eq. 31. The ratios are natural logarithms, positive for fake.
    """
    missed = np.logaddexp(0, -log_likelihood_ratios[labels]).mean()
    alarmed = np.logaddexp(0, log_likelihood_ratios[~labels]).mean()
    return float((missed + alarmed) / 2 / np.log(2))


def true_positive_rate(scored: Scored, *, false_positives: float) -> float:
    """Share of fakes found when at most this share of photographs is called fake."""
    false_rate, true_rate, _ = roc_curve(scored.labels, scored.scores, drop_intermediate=False)
    return float(true_rate[false_rate <= false_positives].max())


def summarise(scored: Scored, probabilities: Scores, *, threshold: float) -> dict[str, float]:
    """The figures of one set of predictions; `probabilities` belong to the scores."""
    called_fake = probabilities >= threshold
    labels = scored.labels
    return {
        "auroc": auroc(scored),
        "average_precision": float(average_precision_score(labels, scored.scores)),
        "accuracy": float((called_fake == labels).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(labels, called_fake)),
        "equal_error_rate": equal_error_rate(scored),
        "true_positive_rate_at_1_percent_false": true_positive_rate(scored, false_positives=0.01),
        "true_positive_rate_at_5_percent_false": true_positive_rate(scored, false_positives=0.05),
        "calibration_error": calibration_error(labels, probabilities),
        "balanced_calibration_error": calibration_error(labels, probabilities, balanced=True),
        "negative_log_likelihood": float(log_loss(labels, probabilities)),
        "brier": float(brier_score_loss(labels, probabilities)),
    }
