"""What is probably true of each item, and how often each rater errs, from the votes alone.

A. P. Dawid and A. M. Skene, Maximum Likelihood Estimation of Observer Error-Rates Using the EM
Algorithm, Applied Statistics 28 (1979). Raters err independently of one another, each in a way of
their own. With two raters the rates cannot be told apart from the truth: ask three or more.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Counts = NDArray[np.intp]

TOLERANCE: Final = 1e-6
"""least growth of the log-likelihood that is worth another step"""
MOST_STEPS: Final = 300
TINY: Final = 1e-300
"""stands for 0 under a logarithm"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One rater's opinion on one item; the same rater may vote several times."""

    item: str
    rater: str
    choice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Consensus:
    """The estimate, with names in sorted order."""

    choices: tuple[str, ...]
    posterior: dict[str, dict[str, float]]
    """by item: how probable it is that each choice is the true one"""
    prevalence: dict[str, float]
    """by choice: how frequent it is among the items"""
    confusion: dict[str, dict[str, dict[str, float]]]
    """by rater and true choice: how often the rater says what; nothing for a choice that none of
    the rater's items can be"""
    accuracy: dict[str, float]
    """by rater: share of the votes that are probably true"""
    log_likelihoods: tuple[float, ...]
    """after each step"""

    def truth(self, item: str) -> str:
        """The most probable choice; of equally probable ones the first by name."""
        return max(self.choices, key=lambda choice: self.posterior[item][choice])


def dawid_skene(votes: Iterable[Vote]) -> Consensus:
    """Estimate truth and errors from at least one vote; starts from each item's shares of votes."""
    votes = list(votes)
    items = sorted({vote.item for vote in votes})
    raters = sorted({vote.rater for vote in votes})
    choices = sorted({vote.choice for vote in votes})
    counts = _counts(votes, items, raters, choices)
    kinds, kind_of, times = np.unique(counts, axis=0, return_inverse=True, return_counts=True)
    truth_of_kind = kinds.sum(axis=1) / kinds.sum(axis=(1, 2))[:, None]
    steps: list[float] = []
    while len(steps) < MOST_STEPS:
        prevalence, confusion = _maximise(kinds, times, truth_of_kind)
        truth_of_kind, log_likelihood = _expect(kinds, times, prevalence, confusion)
        steps.append(log_likelihood)
        if len(steps) > 1 and steps[-1] - steps[-2] < TOLERANCE:
            break
    truth = truth_of_kind[kind_of]
    right = np.einsum("ik,irk->r", truth, counts) / counts.sum(axis=(0, 2))
    return Consensus(
        choices=tuple(choices),
        posterior={item: _named(choices, row) for item, row in zip(items, truth, strict=True)},
        prevalence=_named(choices, prevalence),
        confusion={
            rater: {
                choice: _named(choices, row)
                for choice, row in zip(choices, rows, strict=True)
                if row.any()
            }
            for rater, rows in zip(raters, confusion, strict=True)
        },
        accuracy=_named(raters, right),
        log_likelihoods=tuple(steps),
    )


def _counts(votes: list[Vote], items: list[str], raters: list[str], choices: list[str]) -> Values:
    """How often each rater said what of each item: shape (items, raters, choices)."""
    places = [{name: n for n, name in enumerate(names)} for names in (items, raters, choices)]
    counts = np.zeros((len(items), len(raters), len(choices)))
    for vote in votes:
        counts[places[0][vote.item], places[1][vote.rater], places[2][vote.choice]] += 1
    return counts


def _maximise(kinds: Values, times: Counts, truth: Values) -> tuple[Values, Values]:
    """Prevalence and error rates given what is true (equations 2.3 and 2.4).

    Items with the same votes are of one kind, which occurs so many times. Rates have shape
    (raters, true choices, choices said).
    """
    _, raters, choices = kinds.shape
    sums = kinds.reshape(len(kinds), -1).T @ (truth * times[:, None])
    confusion = sums.reshape(raters, choices, choices).transpose(0, 2, 1)
    totals = confusion.sum(axis=2, keepdims=True)
    rates = np.divide(confusion, totals, out=np.zeros_like(confusion), where=totals > 0)
    return times @ truth / times.sum(), rates


def _expect(
    kinds: Values, times: Counts, prevalence: Values, confusion: Values
) -> tuple[Values, float]:
    """What is true given the rates (equation 2.5), and the log-likelihood of the rates."""
    rates = np.log(np.maximum(confusion, TINY)).transpose(0, 2, 1)
    votes = kinds.reshape(len(kinds), -1) @ rates.reshape(-1, len(prevalence))
    joint = votes + np.log(np.maximum(prevalence, TINY))
    most = joint.max(axis=1, keepdims=True)
    weights = np.exp(joint - most)
    totals = weights.sum(axis=1, keepdims=True)
    return weights / totals, float(times @ (most + np.log(totals))[:, 0])


def _named(names: list[str], values: Values) -> dict[str, float]:
    return {name: float(value) for name, value in zip(names, values, strict=True)}
