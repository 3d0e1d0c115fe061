"""From blind labels to guidance, and who labels what. Pure.

FakeScope (arXiv 2503.24267): two experts judge an image without knowing what it is; only who is
right chooses categories that count, and guidance is what both chose. The paper does not say what
follows from wrong verdicts and from choices that have nothing in common; here further experts are
asked, and a majority decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.ids import unit_interval
from core.records import Authenticity, BlindLabel, Guidance

AGREEING = 2
"""right experts whose common choice is guidance"""
MOST_ASKED_FOR_A_CHOICE = 3
"""right experts after whom a majority decides, even for nothing"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Not settled yet: so many more experts are to label the image."""

    needed: int


def settle(
    image_id: str, labels: Sequence[BlindLabel], truth: Authenticity, *, misses: int
) -> Guidance | Open:
    """What the labels of one image come to; the newest of each expert, in their order of arrival.

    `misses` wrong verdicts make an image hard. Two right experts settle it with what both chose;
    where that is nothing a third one is asked, and categories of at least two of them count.
    """
    wrong = [label.expert for label in labels if label.verdict is not truth]
    right = [label for label in labels if label.verdict is truth]
    if len(wrong) >= misses:
        reason = f"{len(wrong)} experts took it for {truth.opposite}, which it is not"
        return Guidance(image_id=image_id, categories=(), experts=tuple(wrong), hard=reason)
    if len(right) < AGREEING:
        return Open(needed=AGREEING - len(right))
    common = _chosen_by(right[:AGREEING], AGREEING)
    if common:
        return _guidance(image_id, common, right[:AGREEING])
    if len(right) < MOST_ASKED_FOR_A_CHOICE:
        return Open(needed=1)
    asked = right[:MOST_ASKED_FOR_A_CHOICE]
    return _guidance(image_id, _chosen_by(asked, AGREEING), asked)


def _chosen_by(labels: Sequence[BlindLabel], least: int) -> tuple[str, ...]:
    """Categories that at least so many chose, in the order in which the labels hold them."""
    votes = Counter(category for label in labels for category in label.categories)
    return tuple(category for category, count in votes.items() if count >= least)


def _guidance(image_id: str, categories: tuple[str, ...], labels: Iterable[BlindLabel]) -> Guidance:
    experts = tuple(label.expert for label in labels)
    return Guidance(image_id=image_id, categories=tuple(sorted(categories)), experts=experts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlabelled:
    """An image that more experts are to label."""

    image_id: str
    needed: int
    taken_by: frozenset[str]
    """experts who have labelled it, or have it before them"""


def assign(
    images: Iterable[Unlabelled],
    experts: Collection[str],
    *,
    load: Mapping[str, int],
    seed: int,
) -> dict[str, list[str]]:
    """Image ids by the expert who is to label them, each image by different experts.

    Whoever has least before them is next, `load` counting what they have already; among equals a
    hash decides. An image gets fewer experts than it needs where there are no more.
    """
    before = {expert: load.get(expert, 0) for expert in sorted(experts)}
    given: dict[str, list[str]] = {expert: [] for expert in before}
    for image in sorted(images, key=lambda image: unit_interval("blind", seed, image.image_id)):
        free = [expert for expert in before if expert not in image.taken_by]
        free.sort(key=lambda e: (before[e], unit_interval("blind", seed, image.image_id, e)))
        for expert in free[: image.needed]:
            before[expert] += 1
            given[expert].append(image.image_id)
    return {expert: image_ids for expert, image_ids in given.items() if image_ids}
