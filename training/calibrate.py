"""Calibration: from the model's log-odds to log-likelihood ratios that mean what they say.

Fitted on validation images only. A log-likelihood ratio (natural logarithm, positive for fake)
says how much more probable the score is for a fake than for a photograph; with the odds that held
before the image was seen it gives the odds after.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from core.errors import DataError
from training.metrics import Labels, Scores, balanced_weights

LEAST_SCALE = 1e-6
"""a calibration never turns scores around"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A log-likelihood ratio is `scale` times the log-odds plus `bias`."""

    scale: float
    """one over the temperature"""
    bias: float
    threshold: float
    """least log-likelihood ratio that is called fake"""
    images: int
    """of the validation split that it was fitted on"""

    def log_likelihood_ratios(self, log_odds: Scores) -> Scores:
        """For the log-odds of some images."""
        return self.scale * log_odds + self.bias

    def probabilities(self, log_odds: Scores, *, prior: float = 0.5) -> Scores:
        """p_fake where a share `prior` of the images is fake before anything is known of them."""
        return np.asarray(expit(self.log_likelihood_ratios(log_odds) + logit(prior)))

    def ratio(self, log_odds: float) -> float:
        """The log-likelihood ratio of one image."""
        return self.scale * log_odds + self.bias

    def probability(self, log_odds: float, *, prior: float = 0.5) -> float:
        """p_fake of one image."""
        return float(self.probabilities(np.array([log_odds]), prior=prior)[0])

    def calls_fake(self, log_odds: Scores) -> Labels:
        """Which images are at or above the threshold."""
        return np.asarray(self.log_likelihood_ratios(log_odds) >= self.threshold)


def calibrate(labels: Labels, log_odds: Scores) -> Calibration:
    """Fit scale and bias, then choose the threshold of the highest balanced accuracy.

    Platt's method with his smoothed targets (Platt 1999, Probabilistic outputs for support vector
    machines, section 2.2), so that perfectly parted scores have a finite fit; both classes weigh
    the same, so the result is a likelihood ratio whatever their numbers. DataError without images
    of both classes.
    """
    fakes, photographs = int(labels.sum()), int((~labels).sum())
    if not fakes or not photographs:
        raise DataError(
            f"calibration needs fakes and photographs, the validation split has {fakes} and "
            f"{photographs}"
        )
    targets = np.where(labels, (fakes + 1) / (fakes + 2), 1 / (photographs + 2))
    scale, bias = _fit(targets, log_odds, balanced_weights(labels))
    return Calibration(
        scale=scale,
        bias=bias,
        threshold=_best_threshold(labels, scale * log_odds + bias),
        images=len(labels),
    )


def _fit(targets: Scores, log_odds: Scores, weights: Scores) -> tuple[float, float]:
    """Minimise the weighted cross-entropy; scores are standardised to make the problem round."""
    spread = float(log_odds.std()) or 1.0
    centre = float(log_odds.mean())
    standard = (log_odds - centre) / spread

    def cost(parameters: Scores) -> tuple[float, Scores]:
        ratios = parameters[0] * standard + parameters[1]
        losses = np.logaddexp(0, ratios) - targets * ratios
        slopes = weights * (expit(ratios) - targets)
        return float(weights @ losses), np.array([slopes @ standard, slopes.sum()])

    bounds = [(LEAST_SCALE, None), (None, None)]
    scale, bias = minimize(cost, np.array([1.0, 0.0]), jac=True, bounds=bounds).x
    return float(scale / spread), float(bias - scale * centre / spread)


def _best_threshold(labels: Labels, ratios: Scores) -> float:
    """Between two neighbouring ratios; of equally good places the one nearest to even odds."""
    ordered = np.unique(ratios)
    places = np.concatenate([[ordered[0]], (ordered[1:] + ordered[:-1]) / 2])
    found = (ratios[labels][:, None] >= places).mean(axis=0)
    alarms = (ratios[~labels][:, None] >= places).mean(axis=0)
    gain = found - alarms
    best = places[np.isclose(gain, gain.max())]
    return float(best[np.argmin(np.abs(best))])
