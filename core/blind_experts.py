"""What blind experts agree on, and how often they are right."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

from core.agreement import Alpha, Metric, cohen_kappa
from core.chain import jaccard_index
from core.dawid_skene import Vote, dawid_skene
from core.experts import ALIKE_SECONDS, LEAST_EXPERTS, SURENESS, Units, alpha_over_images
from core.records import Authenticity, BlindLabel


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindImage:
    """An image that blind experts have labelled."""

    image_id: str
    truth: Authenticity
    labels: tuple[BlindLabel, ...]
    """one per expert"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindExpert:
    """How one expert judges images of which nothing is said."""

    images: int
    right: float
    """share of right verdicts"""
    verdict: Alpha
    """with each other expert"""
    accuracy: float | None
    """share of verdicts that are probably right, from all verdicts alone (Dawid and Skene); None
    with fewer than three experts"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindPair:
    """How far two experts agree on the images that both labelled."""

    experts: tuple[str, str]
    images: int
    kappa: float | None
    """Cohen's, of the verdict; None: nothing varies"""
    same_answers: int
    """equal verdict, confidence and categories"""
    of_answers: int
    """images for which either chose two categories or more"""
    same_times: int
    """lead times that are nearly the same"""
    of_times: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlindAgreement:
    """How far blind experts agree on the images that two or more of them labelled."""

    images: int
    verdict: Alpha
    confidence: Alpha
    """ordinal"""
    chosen: Alpha
    """chosen or not, of each category in each image by each expert with a right verdict"""
    categories: float | None
    """mean Jaccard index of the categories of two such experts"""
    by_category: dict[str, Alpha]
    by_expert: dict[str, BlindExpert]
    """over every image that the expert labelled"""
    pairs: tuple[BlindPair, ...]


def blind_agreement(
    images: Iterable[BlindImage], categories: Sequence[str], seconds: Mapping[str, float]
) -> BlindAgreement:
    """How far experts agree; `seconds` by label id say how long a task was open."""
    judged = list(images)
    shared = [image for image in judged if len(image.labels) > 1]
    overlaps = [
        jaccard_index([frozenset(one.categories), frozenset(other.categories)])
        for image in shared
        for one, other in combinations(_right(image), 2)
    ]
    return BlindAgreement(
        images=len(shared),
        verdict=alpha_over_images(
            [(i.image_id, [str(label.verdict) for label in i.labels]) for i in shared]
        ),
        confidence=alpha_over_images(
            [(i.image_id, [SURENESS[label.confidence] for label in i.labels]) for i in shared],
            Metric.ORDINAL,
        ),
        chosen=_chosen(shared, categories),
        categories=fmean(overlaps) if overlaps else None,
        by_category={category: _chosen(shared, [category]) for category in categories},
        by_expert=_by_expert(judged),
        pairs=_pairs(shared, seconds),
    )


def _right(image: BlindImage) -> list[BlindLabel]:
    return [label for label in image.labels if label.verdict is image.truth]


def _chosen(images: Iterable[BlindImage], categories: Sequence[str]) -> Alpha:
    units: Units = [
        (image.image_id, [category in label.categories for label in _right(image)])
        for image in images
        for category in categories
    ]
    return alpha_over_images(units)


def _by_expert(images: Sequence[BlindImage]) -> dict[str, BlindExpert]:
    mine: dict[str, list[tuple[BlindImage, BlindLabel]]] = defaultdict(list)
    for image in images:
        for label in image.labels:
            mine[label.expert].append((image, label))
    accuracy = _accuracy(images) if len(mine) >= LEAST_EXPERTS else {}
    return {
        expert: BlindExpert(
            images=len(mine[expert]),
            right=fmean(label.verdict is image.truth for image, label in mine[expert]),
            verdict=alpha_over_images(
                [
                    (image.image_id, [str(label.verdict), str(other.verdict)])
                    for image, label in mine[expert]
                    for other in image.labels
                    if other is not label
                ]
            ),
            accuracy=accuracy.get(expert),
        )
        for expert in sorted(mine)
    }


def _accuracy(images: Iterable[BlindImage]) -> dict[str, float]:
    return dawid_skene(
        Vote(item=image.image_id, rater=label.expert, choice=str(label.verdict))
        for image in images
        for label in image.labels
    ).accuracy


def _pairs(images: Iterable[BlindImage], seconds: Mapping[str, float]) -> tuple[BlindPair, ...]:
    both: dict[tuple[str, str], list[tuple[BlindLabel, BlindLabel]]] = defaultdict(list)
    for image in images:
        labels = sorted(image.labels, key=lambda label: label.expert)
        for one, other in combinations(labels, 2):
            both[one.expert, other.expert].append((one, other))
    return tuple(_pair(experts, both[experts], seconds) for experts in sorted(both))


def _pair(
    experts: tuple[str, str],
    both: Sequence[tuple[BlindLabel, BlindLabel]],
    seconds: Mapping[str, float],
) -> BlindPair:
    telling = [pair for pair in both if any(len(label.categories) > 1 for label in pair)]
    timed = [
        (seconds[one.label_id], seconds[other.label_id])
        for one, other in both
        if one.label_id in seconds and other.label_id in seconds
    ]
    return BlindPair(
        experts=experts,
        images=len(both),
        kappa=cohen_kappa([(str(one.verdict), str(other.verdict)) for one, other in both]),
        same_answers=sum(_said(one) == _said(other) for one, other in telling),
        of_answers=len(telling),
        same_times=sum(abs(mine - theirs) <= ALIKE_SECONDS for mine, theirs in timed),
        of_times=len(timed),
    )


def _said(label: BlindLabel) -> tuple[object, ...]:
    return label.verdict, label.confidence, frozenset(label.categories)
