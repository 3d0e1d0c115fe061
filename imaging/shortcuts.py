"""What tells real from fake without looking at a picture: tables, a classifier, mixed clusters."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from core.ids import unit_interval
from core.records import Authenticity, ImageRecord
from core.split import connect

Values = NDArray[np.float64]

FOLDS: Final = 5
LEAST_IMAGES: Final = 20
"""of each label; with fewer no figure is given"""
LEAST_COMPONENTS: Final = 10
"""that hold each label; a component is what a split keeps together"""
MOST_IMAGES: Final = 10_000
"""the classifier looks at about so many: the interval is narrow by then"""
TREES: Final = 30
SMALLEST_LEAF: Final = 5
Z_95: Final = 1.96
GRID: Final = 10_000
"""steps between 0 and 1 at which the interval is looked for"""
BAND: Final = 5
"""JPEG qualities in one band of the table"""
NO_SUBSAMPLING: Final = "no JPEG, or not known"
MOST_ROWS: Final = 12
"""values that a table names; the others are one row"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRow:
    """How many photographs and fakes have one value."""

    value: str
    real: int
    fake: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelTable:
    """Labels against one property."""

    title: str
    rows: tuple[LabelRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TooFew:
    """There are not enough images to say anything."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataScore:
    """How well a classifier that sees metadata alone tells real from fake, cross-validated."""

    real: int
    fake: int
    components: int
    """groups and clusters, joined: none is in training and test at once"""
    auc: float
    low: float
    """lower end of the 95 % interval"""
    high: float
    alone: dict[str, float]
    """AUC of each feature alone"""

    @property
    def telling(self) -> str:
        """The feature that tells most by itself."""
        return max(self.alone, key=lambda name: self.alone[name])

    def warning(self, threshold: float) -> str:
        """One sentence without its full stop, for a score that is above `threshold`."""
        return (
            f"metadata alone tells photographs from fakes, most of all {self.telling}: AUC "
            f"{self.auc:.2f}, 95 % interval {self.low:.2f} to {self.high:.2f}, threshold "
            f"{threshold:g} ({self.telling} by itself {self.alone[self.telling]:.2f}); a model "
            "may learn this instead of traces"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedCluster:
    """Near-duplicates that hold both labels or several groups."""

    cluster: str
    image_ids: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sample:
    """What the classifier works on; arrays have one entry per image."""

    is_fake: NDArray[np.bool_]
    component: NDArray[np.intp]
    fold: NDArray[np.intp]
    features: dict[str, Values]
    """by name: shape (images, columns)"""


# Tables


class Described(Protocol):
    """An image, or many that have the same properties."""

    @property
    def format(self) -> str: ...
    @property
    def jpeg_quality(self) -> int | None: ...
    @property
    def subsampling(self) -> str | None: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def label(self) -> Authenticity | None: ...


def label_tables(
    images: Sequence[Described], *, numbers: Sequence[int] | None = None
) -> tuple[LabelTable, ...]:
    """Label against format, JPEG quality band, chroma subsampling, size and aspect.

    Unlabelled images are left out. `numbers`: how many images each stands for; None: one.
    """
    counted = list(zip(images, numbers or [1] * len(images), strict=True))
    return (
        _table("Format", counted, lambda image: image.format),
        _table("JPEG quality", counted, _quality_band, in_order=True),
        _table("Chroma subsampling", counted, lambda image: image.subsampling or NO_SUBSAMPLING),
        _table("Size in pixels", counted, lambda image: f"{image.width} x {image.height}"),
        _table("Aspect, width to height", counted, lambda i: f"{i.width / i.height:.2f}"),
    )


def _quality_band(image: Described) -> str:
    if image.jpeg_quality is None:
        return "no JPEG"
    first = (image.jpeg_quality - 1) // BAND * BAND + 1
    return f"{first:>3} to {first + BAND - 1}"


def _table(
    title: str,
    images: Iterable[tuple[Described, int]],
    value_of: Callable[[Described], str],
    *,
    in_order: bool = False,
) -> LabelTable:
    """The frequent values first, or all of them `in_order`."""
    counts: dict[str, Counter[Authenticity]] = defaultdict(Counter)
    for image, number in images:
        if image.label is not None:
            counts[value_of(image)][image.label] += number
    if in_order:
        return LabelTable(title=title, rows=tuple(_row(v, counts[v]) for v in sorted(counts)))
    values = sorted(counts, key=lambda value: (-counts[value].total(), value))
    rows = [_row(value, counts[value]) for value in values[:MOST_ROWS]]
    if others := values[MOST_ROWS:]:
        total = sum((counts[value] for value in others), Counter[Authenticity]())
        rows.append(_row(f"{len(others)} other values", total))
    return LabelTable(title=title, rows=tuple(rows))


def _row(value: str, counts: Counter[Authenticity]) -> LabelRow:
    return LabelRow(
        value=value.strip(), real=counts[Authenticity.REAL], fake=counts[Authenticity.FAKE]
    )


# Near-duplicates and groups


def mixed_clusters(images: Sequence[ImageRecord]) -> list[MixedCluster]:
    """Near-duplicate clusters that hold both labels or several groups, by name."""
    labelled = [image for image in images if image.label is not None]
    labelled.sort(key=lambda image: (image.cluster, image.image_id))
    clusters = (list(members) for _, members in groupby(labelled, lambda image: image.cluster))
    return [_describe(c) for c in clusters if len({(i.label, i.group) for i in c}) > 1]


def _describe(members: Sequence[ImageRecord]) -> MixedCluster:
    return MixedCluster(
        cluster=members[0].cluster,
        image_ids=tuple(image.image_id for image in members),
        labels=tuple(sorted({str(image.label) for image in members})),
        groups=tuple(sorted({image.group for image in members})),
        sources=tuple(sorted({image.source for image in members})),
    )


def groups_of_both_labels(images: Iterable[ImageRecord]) -> int:
    """How many groups hold photographs and fakes: pairs on purpose, or a mix-up."""
    labels: dict[str, set[Authenticity]] = defaultdict(set)
    for image in images:
        if image.label is not None:
            labels[image.group].add(image.label)
    return sum(len(found) > 1 for found in labels.values())


# The classifier


def measure_metadata(
    images: Iterable[ImageRecord], *, with_bytes: bool = False
) -> MetadataScore | TooFew:
    """Cross-validate a random forest on metadata alone; no component is in two folds.

    `with_bytes` adds bytes per pixel. The same images give the same figures in any order. Above
    `MOST_IMAGES`, components are drawn by hash, label by label.
    95 % interval: R. G. Newcombe, "Confidence intervals for an effect size measure based on the
    Mann-Whitney statistic. Part 2" (Statistics in Medicine, 2006), method 5, on numbers of images
    divided by the design effect of N. A. Obuchowski, "Nonparametric analysis of clustered ROC
    curve data" (Biometrics, 1997).
    """
    labelled = sorted((i for i in images if i.label is not None), key=lambda i: i.image_id)
    component_of = connect((image.group, image.cluster) for image in labelled)
    if reason := _why_too_few(labelled, component_of):
        return TooFew(reason=reason)
    sample = _prepare(_choose(labelled, component_of), component_of, with_bytes=with_bytes)
    together = _round(_cross_validate(sample, list(sample.features), trees=TREES))
    auc, low, high = _auc_with_interval(together, sample)
    return MetadataScore(
        real=int((~sample.is_fake).sum()),
        fake=int(sample.is_fake.sum()),
        components=len(np.unique(sample.component)),
        auc=auc,
        low=low,
        high=high,
        alone={
            name: _auc(_round(_cross_validate(sample, [name], trees=1)), sample.is_fake)
            for name in sample.features
        },
    )


def _why_too_few(images: Sequence[ImageRecord], component_of: Mapping[str, str]) -> str:
    """What is missing, in words; empty when there is enough."""
    for label in Authenticity:
        own = [component_of[image.group] for image in images if image.label is label]
        if len(own) < LEAST_IMAGES:
            return f"{len(own)} {label} images, at least {LEAST_IMAGES} are needed"
        if len(set(own)) < LEAST_COMPONENTS:
            return (
                f"{label} images from {len(set(own))} independent groups, "
                f"at least {LEAST_COMPONENTS} are needed"
            )
    return ""


def _choose(
    images: Sequence[ImageRecord], component_of: Mapping[str, str]
) -> Sequence[ImageRecord]:
    """All images, or for each label whole components, drawn by hash, with half of `MOST_IMAGES`."""
    if len(images) <= MOST_IMAGES:
        return images
    chosen: set[str] = set()
    for label in Authenticity:
        sizes = Counter(component_of[image.group] for image in images if image.label is label)
        names = sorted(sizes, key=lambda name: unit_interval("shortcuts", name))
        total = np.cumsum([sizes[name] for name in names])
        chosen.update(names[: max(LEAST_COMPONENTS, int((total <= MOST_IMAGES // 2).sum()))])
    return [image for image in images if component_of[image.group] in chosen]


def _prepare(
    images: Sequence[ImageRecord], component_of: Mapping[str, str], *, with_bytes: bool
) -> _Sample:
    names = [component_of[image.group] for image in images]
    number = {name: place for place, name in enumerate(sorted(set(names)))}
    is_fake = np.array([image.label is Authenticity.FAKE for image in images])
    fold_of = _assign_folds(names, is_fake)
    return _Sample(
        is_fake=is_fake,
        component=np.array([number[name] for name in names]),
        fold=np.array([fold_of[name] for name in names]),
        features=dict(_features(images, with_bytes=with_bytes)),
    )


def _assign_folds(components: Sequence[str], is_fake: NDArray[np.bool_]) -> dict[str, int]:
    """Large components first, each into the smallest fold; equally large ones sorted by label."""
    sizes = Counter(components)
    fakes = Counter(name for name, fake in zip(components, is_fake, strict=True) if fake)
    order = sorted(
        sizes, key=lambda c: (-sizes[c], fakes[c] / sizes[c], unit_interval("fold", c), c)
    )
    load = [0] * FOLDS
    fold_of = {}
    for name in order:
        fold_of[name] = load.index(min(load))
        load[fold_of[name]] += sizes[name]
    return fold_of


def _features(images: Sequence[ImageRecord], *, with_bytes: bool) -> Iterator[tuple[str, Values]]:
    width = np.array([image.width for image in images], dtype=float)
    height = np.array([image.height for image in images], dtype=float)
    yield "format", _one_column_each([image.format for image in images])
    yield "chroma subsampling", _one_column_each([image.subsampling or "" for image in images])
    yield "JPEG quality", _column([image.jpeg_quality or 0 for image in images])
    yield "aspect", _column(width / height)
    yield "pixels", _column(width * height)
    yield "width", _column(width)
    yield "height", _column(height)
    if with_bytes:
        known = [-1 if image.size_bytes is None else image.size_bytes for image in images]
        yield "bytes per pixel", _column(np.array(known) / (width * height))


def _one_column_each(names: Sequence[str]) -> Values:
    values = sorted(set(names))
    return np.array([[name == each for each in values] for name in names], dtype=float)


def _column(values: Any) -> Values:
    return np.asarray(values, dtype=float).reshape(-1, 1)


def _cross_validate(sample: _Sample, names: Sequence[str], *, trees: int) -> Values:
    """For each image how much it looks like a fake, 0..1, to a forest trained without its fold."""
    from sklearn.ensemble import RandomForestClassifier

    columns = np.hstack([sample.features[name] for name in names]).astype(float)
    scores = np.full(len(columns), 0.5)
    if (columns == columns[0]).all():
        return scores
    for fold in range(FOLDS):
        held_out = sample.fold == fold
        labels = sample.is_fake[~held_out]
        if labels.all() or not labels.any() or not held_out.any():
            continue
        forest = RandomForestClassifier(
            trees,
            min_samples_leaf=SMALLEST_LEAF,
            max_features=None,
            class_weight="balanced",
            bootstrap=trees > 1,
            random_state=0,
        )
        forest.fit(columns[~held_out], labels)
        scores[held_out] = forest.predict_proba(columns[held_out])[:, 1]
    return scores


def _round(scores: Values) -> Values:
    """Without the last digits, in which equal scores differ."""
    return np.round(scores, 9)


def _placements(scores: Values, is_fake: NDArray[np.bool_]) -> Values:
    """For each image the share of images of the other label that it stands right of or ties."""
    placed = np.empty(len(scores))
    placed[is_fake] = _share_below(scores[is_fake], scores[~is_fake])
    placed[~is_fake] = 1 - _share_below(scores[~is_fake], scores[is_fake])
    return placed


def _share_below(values: Values, others: Values) -> Values:
    ordered = np.sort(others)
    left, right = np.searchsorted(ordered, values), np.searchsorted(ordered, values, "right")
    share: Values = (left + right) / (2 * len(ordered))
    return share


def _auc(scores: Values, is_fake: NDArray[np.bool_]) -> float:
    return round(float(_placements(scores, is_fake)[is_fake].mean()), 4)


def _auc_with_interval(scores: Values, sample: _Sample) -> tuple[float, float, float]:
    """The AUC and both ends of its interval, 0..1, to four decimals."""
    placed, auc = _placements(scores, sample.is_fake), _auc(scores, sample.is_fake)
    numbers = np.where(sample.is_fake, sample.is_fake.sum(), (~sample.is_fake).sum())
    influence = (placed - placed[sample.is_fake].mean()) / numbers
    effect = _design_effect(influence, sample.component)
    theta = np.linspace(0, 1, GRID + 1)
    fakes, reals = sample.is_fake.sum() / effect, (~sample.is_fake).sum() / effect
    reach = Z_95 * np.sqrt(_variance(theta, fakes, reals)) + 1e-9
    inside = theta[np.abs(auc - theta) <= reach]
    return auc, round(float(inside.min()), 4), round(float(inside.max()), 4)


def _variance(theta: Values, fakes: float, reals: float) -> Values:
    """Newcombe's method 5, of an AUC of `theta`."""
    more = (fakes + reals) / 2 - 1
    spread: Values = 1 + more * (1 - theta) / (2 - theta) + more * theta / (1 + theta)
    return theta * (1 - theta) * spread / (fakes * reals)


def _design_effect(influence: Values, component: NDArray[np.intp]) -> float:
    """By how much images of one component tell less than as many independent ones; at least 1."""
    by_component = np.bincount(component, influence)
    number = len(by_component)
    independent = float((influence**2).sum())
    if independent == 0:
        return len(influence) / number
    return max(1.0, float((by_component**2).sum()) * number / (number - 1) / independent)
