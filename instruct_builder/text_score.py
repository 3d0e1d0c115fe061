"""How well words alone tell an answer: cross-validated, with an interval. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

LEAST_ROWS: Final = 200
LEAST_COMPONENTS: Final = 10
"""what is drawn for the interval; of fewer it would say nothing"""
MOST_ROWS: Final = 20_000
"""the classifier looks at about so many: the interval is narrow by then"""
FOLDS: Final = 5
LEARNING: Final = sqrt(1 + FOLDS / (FOLDS - 1))
"""what learning from shared rows adds to a standard error that knows of tested rows only"""
RESAMPLES: Final = 400
FEATURES: Final = 2**18
DIGITS: Final = 9
"""of a score; equal scores differ in the digits after these"""

Values = NDArray[np.float64]
Numbers = NDArray[np.int64]
Truths = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScore:
    """Area under the ROC curve, 0..1, and its standard error."""

    rows: int
    auc: float
    error: float

    def interval(self, *, among: int) -> tuple[float, float]:
        """Both ends of its interval, one of `among` that all hold in 95 % of the cases.

        Normal, with the share of misses divided among the intervals (C. E. Bonferroni, 1936).
        """
        reach = NormalDist().inv_cdf(1 - 0.05 / 2 / among) * self.error
        return max(0.0, self.auc - reach), min(1.0, self.auc + reach)


@dataclass(frozen=True, slots=True, kw_only=True)
class NoScore:
    """Why no figure is given."""

    reason: str


def score_texts(texts: pa.Array, truths: Truths, components: Numbers) -> TextScore | NoScore:
    """Cross-validate a logistic regression that reads words and pairs of words.

    All three have one entry per row: the text, whether the answer is the one asked for, and the
    number (from 0) of what a split keeps together, no part of which is in two folds. The standard
    error is the bootstrap's over components (B. Efron, R. J. Tibshirani, "An Introduction to the
    Bootstrap", 1993, chapter 6), which takes the classifier as given, times `LEARNING`: the
    classifiers of two folds learn from the same rows (C. Nadeau, Y. Bengio, "Inference for the
    Generalization Error", 2003, section 3). Where answers are exactly as frequent for each text,
    the AUC is below 0.5: what one fold has too many of, the others have too few of.
    """
    if reason := _why_none(truths, components):
        return NoScore(reason=reason)
    kept = _choose(components)
    texts, truths, components = texts.filter(pa.array(kept)), truths[kept], components[kept]
    encoded = texts.dictionary_encode()
    codes = encoded.indices.to_numpy().astype(np.int64)
    folds = _fold_of(components)
    scores = _cross_validate(encoded.dictionary.to_pylist(), codes, truths, folds)
    _, bins = np.unique(np.round(scores, DIGITS), return_inverse=True)
    auc = _auc(bins, truths, np.ones(len(truths)))
    error = LEARNING * float(_resample(bins, truths, components).std(ddof=1))
    return TextScore(rows=len(truths), auc=auc, error=error)


def _why_none(truths: Truths, components: Numbers) -> str:
    if len(truths) < LEAST_ROWS:
        return f"too few: {len(truths)} rows"
    if (number := len(np.unique(components))) < LEAST_COMPONENTS:
        return f"too few: {number} independent groups of images"
    if truths.all() or not truths.any():
        return "one answer only"
    return ""


def _choose(components: Numbers) -> Truths:
    """All rows, or whole components in a mixed order with about `MOST_ROWS`."""
    present, places, sizes = np.unique(components, return_inverse=True, return_counts=True)
    order = np.random.default_rng(1).permutation(len(present))
    before = np.empty(len(present), dtype=np.int64)
    before[order] = np.cumsum(sizes[order]) - sizes[order]
    kept: Truths = (before < MOST_ROWS)[places]
    return kept


def _fold_of(components: Numbers) -> Numbers:
    """Components in a fixed mixed order, dealt out to the folds in turn."""
    present, places = np.unique(components, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(present))
    folds: Numbers = (order % FOLDS)[places]
    return folds


def _cross_validate(texts: list[str], codes: Numbers, truths: Truths, folds: Numbers) -> Values:
    """For each row how much its text speaks for a true answer, learnt from the other folds.

    A text that occurs often is read once, with the number of its rows as its weight.
    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    reader = HashingVectorizer(
        n_features=FEATURES,
        ngram_range=(1, 2),
        alternate_sign=False,
        tokenizer=str.split,
        token_pattern=None,
    )
    words = reader.transform(texts)
    words = words[:, np.unique(words.indices)]
    scores = np.full(len(codes), 0.5)
    for fold in range(FOLDS):
        out = folds == fold
        pairs = codes[~out] * 2 + truths[~out]
        weights = np.bincount(pairs, minlength=2 * len(texts))
        seen = np.flatnonzero(weights)
        if len({*(seen % 2).tolist()}) < 2 or not out.any():
            continue
        model = LogisticRegression(solver="liblinear", random_state=0)
        model.fit(words[seen // 2], seen % 2, sample_weight=weights[seen])
        scores[out] = model.decision_function(words)[codes[out]]
    return scores


def _resample(bins: Numbers, truths: Truths, components: Numbers) -> Values:
    """The AUC of as many components, drawn with replacement, again and again."""
    present, places = np.unique(components, return_inverse=True)
    draw = np.random.default_rng(0)
    number = len(present)
    return np.array(
        [
            _auc(
                bins,
                truths,
                np.bincount(draw.integers(number, size=number), minlength=number)[places],
            )
            for _ in range(RESAMPLES)
        ]
    )


def _auc(bins: Numbers, truths: Truths, weights: NDArray[np.generic]) -> float:
    """Share of pairs of a true and another answer whose scores are in order; ties count half."""
    true = np.bincount(bins[truths], weights[truths], minlength=bins.max() + 1)
    other = np.bincount(bins[~truths], weights[~truths], minlength=bins.max() + 1)
    below = np.cumsum(other) - other / 2
    pairs = true.sum() * other.sum()
    return float(true @ below / pairs) if pairs else 0.5
