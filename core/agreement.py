"""How far raters agree: Krippendorff's alpha, kappa, overlap of regions, distance of texts.

A *unit* is one thing that was rated, given as the values that raters gave it, in any order; who did
not rate it gave none. Sources: K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011);
J. Cohen, Educational and Psychological Measurement 20 (1960); J. L. Fleiss, Psychological Bulletin
76 (1971).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import shapely
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from core.records import Mask, Region

Value = str | float
Unit = Sequence[Value]
Values = NDArray[np.float64]

REPLICATES: Final = 1000
"""of the bootstrap"""
LEAST_CLUSTERS: Final = 10
"""with fewer no interval is given: it would look narrower than it is"""
INTERVAL_95: Final = (0.025, 0.975)
MOST_CHARACTERS: Final = 20_000
"""of a text that are compared: the time grows with the square"""


class Metric(StrEnum):
    """How far two different values are apart: Krippendorff's difference functions."""

    NOMINAL = "nominal"
    """all equally far"""
    ORDINAL = "ordinal"
    """by how many ratings lie between them"""
    INTERVAL = "interval"
    """by the square of their difference"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alpha:
    """Krippendorff's alpha: 1 perfect agreement, 0 what chance would give, below 0 worse."""

    value: float | None
    """None: every value is the same, so that nothing can be said"""
    low: float | None
    """lower end of the 95 % bootstrap interval; None: too little to go by"""
    high: float | None
    agreement: float | None
    """share of equal values among pairs of values for the same unit; None: there is no pair"""
    units: int
    """with two values or more; the others tell nothing"""


def krippendorff_alpha(
    units: Sequence[Unit],
    metric: Metric = Metric.NOMINAL,
    *,
    clusters: Sequence[Hashable] | None = None,
    seed: int = 1,
) -> Alpha:
    """Alpha over `units`; `ORDINAL` takes numbers in their order, `INTERVAL` numbers as they are.

    The bootstrap draws whole clusters, one name per unit: what was rated together is not
    independent. By default each unit is one. Neither the order of units nor that of the values
    decides anything.
    """
    scale = _scale(units)
    names = range(len(units)) if clusters is None else clusters
    places: dict[Hashable, int] = {}
    numbers = np.array([places.setdefault(name, len(places)) for name in names], dtype=np.intp)
    return alpha_of_counts(_counts(units, scale), scale, metric, clusters=numbers, seed=seed)


def alpha_of_counts(
    counts: Values,
    scale: Sequence[Value],
    metric: Metric = Metric.NOMINAL,
    *,
    clusters: NDArray[np.intp],
    seed: int = 1,
) -> Alpha:
    """The same of how often each value of the scale was given to each unit: (units, values)."""
    is_pairable = counts.sum(axis=1) > 1
    if not is_pairable.any():
        return Alpha(value=None, low=None, high=None, agreement=None, units=0)
    by_cluster = _coincidences(counts[is_pairable], clusters[is_pairable])
    total = by_cluster.sum(axis=0)
    low, high = _bootstrap(by_cluster, scale, metric, seed)
    return Alpha(
        value=_number(_alpha(total, scale, metric)),
        low=low,
        high=high,
        agreement=float(np.trace(total) / total.sum()),
        units=int(is_pairable.sum()),
    )


def cohen_kappa(pairs: Sequence[tuple[Value, Value]]) -> float | None:
    """Cohen's kappa of two raters on the units that both rated; None where nothing varies."""
    from sklearn.metrics import cohen_kappa_score

    if len({value for pair in pairs for value in pair}) < 2:
        return None
    return float(cohen_kappa_score([one for one, _ in pairs], [other for _, other in pairs]))


def fleiss_kappa(counts: Values) -> float | None:
    """Fleiss' kappa (1971, equations 3, 5 and 7) of units that all have equally many values.

    `counts`: how often each value was given to each unit, of shape (units, values). None where
    units have not equally many, or fewer than two, or where nothing varies. It differs from nominal
    alpha by alpha's correction for small samples alone.
    """
    sizes = np.unique(counts.sum(axis=1))
    if len(sizes) != 1 or sizes[0] < 2 or np.count_nonzero(counts.sum(axis=0)) < 2:
        return None
    (size,) = sizes
    observed = ((counts**2).sum(axis=1) - size).mean() / (size * (size - 1))
    expected = ((counts.sum(axis=0) / counts.sum()) ** 2).sum()
    return float((observed - expected) / (1 - expected))


def region_overlap(one: Region | Mask, other: Region | Mask) -> float:
    """Intersection over union of two regions of one image, 0..1; the same as in pixels.

    Exact to rounding for two polygons and for two masks. Beside a mask a polygon is the pixels
    whose middle lies in it, which differs from its area by less than a pixel along its outline.
    An outline that crosses itself encloses what its even-odd rule says. Polygons without an area
    overlap when they are the same.
    """
    if isinstance(one, Mask) or isinstance(other, Mask):
        return _mask_overlap(one, other)
    first, second = _shape(one), _shape(other)
    union = shapely.union(first, second).area
    if not union:
        return float(one == other)
    return float(min(shapely.intersection(first, second).area / union, 1.0))


def edit_distance(one: str, other: str) -> int:
    """Least number of characters to insert, delete or replace (Levenshtein 1966)."""
    return Levenshtein.distance(one[:MOST_CHARACTERS], other[:MOST_CHARACTERS])


def text_similarity(one: str, other: str) -> float:
    """1 for equal texts, 0 for such as share nothing: 1 - edit distance / the longer length."""
    return Levenshtein.normalized_similarity(one[:MOST_CHARACTERS], other[:MOST_CHARACTERS])


def _scale(units: Sequence[Unit]) -> list[Value]:
    return sorted({value for unit in units for value in unit})


def _counts(units: Sequence[Unit], scale: Sequence[Value]) -> Values:
    """How often each value of the scale was given to each unit: shape (units, values)."""
    place = {value: number for number, value in enumerate(scale)}
    counts = np.zeros((len(units), len(scale)))
    for number, unit in enumerate(units):
        for value in unit:
            counts[number, place[value]] += 1
    return counts


def _coincidences(counts: Values, clusters: NDArray[np.intp]) -> Values:
    """The coincidence matrix of each cluster (section C, step 2): (clusters, values, values)."""
    pairs = counts[:, :, None] * counts[:, None, :] - counts[:, :, None] * np.eye(counts.shape[1])
    of_units = pairs / (counts.sum(axis=1) - 1)[:, None, None]
    names, places = np.unique(clusters, return_inverse=True)
    found = np.zeros((len(names), *of_units.shape[1:]))
    np.add.at(found, places, of_units)
    return found


def _alpha(coincidences: Values, scale: Sequence[Value], metric: Metric) -> Values:
    """Alpha of coincidence matrices (..., values, values); NaN where only one value occurs."""
    marginals = coincidences.sum(axis=-1)
    differences = _differences(marginals, scale, metric)
    observed = (coincidences * differences).sum(axis=(-2, -1))
    by_chance = marginals[..., :, None] * marginals[..., None, :] * differences
    expected = by_chance.sum(axis=(-2, -1)) / (marginals.sum(axis=-1) - 1)
    with np.errstate(invalid="ignore"):
        ratio: Values = observed / expected
    return 1 - ratio


def _differences(marginals: Values, scale: Sequence[Value], metric: Metric) -> Values:
    """Delta squared of each pair of values (section C, step 4): (..., values, values)."""
    if metric is Metric.NOMINAL:
        return 1 - np.eye(len(scale))
    if metric is Metric.INTERVAL:
        places = np.asarray(scale, dtype=np.float64)
    else:  # the sum of the ratings between two values is the distance of their middle ranks
        places = np.cumsum(marginals, axis=-1) - marginals / 2
    differences: Values = (places[..., :, None] - places[..., None, :]) ** 2
    return differences


def _bootstrap(
    by_cluster: Values, scale: Sequence[Value], metric: Metric, seed: int
) -> tuple[float | None, float | None]:
    """The 95 % interval of alpha over clusters drawn with replacement.

    Equal clusters are drawn together, so a draw is as large as the number of different ones.
    Replicates in which nothing varies have no alpha and are left out.
    """
    size = len(by_cluster)
    if size < LEAST_CLUSTERS:
        return None, None
    kinds, counts = np.unique(by_cluster, axis=0, return_counts=True)
    draws = np.random.default_rng(seed).multinomial(size, counts / size, size=REPLICATES)
    replicates = _alpha(np.tensordot(draws, kinds, axes=1), scale, metric)
    known = replicates[np.isfinite(replicates)]
    if not len(known):
        return None, None
    low, high = np.quantile(known, INTERVAL_95)
    return float(low), float(high)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _shape(region: Region) -> Any:
    return shapely.make_valid(shapely.Polygon(region.points))


def _mask_overlap(one: Region | Mask, other: Region | Mask) -> float:
    (mask, *_) = [region for region in (one, other) if isinstance(region, Mask)]
    first, second = (_pixels(region, mask.width, mask.height) for region in (one, other))
    return float((first & second).sum() / (first | second).sum())


def _pixels(region: Region | Mask, width: int, height: int) -> NDArray[np.bool_]:
    """The pixels of a region: shape (width, height)."""
    if isinstance(region, Mask):
        marked = np.arange(len(region.counts)) % 2 == 1
        return np.repeat(marked, region.counts).reshape(width, height)
    middles = ((np.arange(side) + 0.5) / side for side in (width, height))
    inside: NDArray[np.bool_] = shapely.contains_xy(
        _shape(region), *np.meshgrid(*middles, indexing="ij")
    )
    return inside
