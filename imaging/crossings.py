"""What a split keeps together, and what it would part if it knew less of what belongs together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.records import ImageRecord, Split
from core.split import SplitPlan, assign_splits, split_components

MOST_CROSSINGS: Final = 100
"""that a report names"""

Splits = Mapping[str, Split]
"""the split of each image id; held-out images may be in none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Images that belong together and stand in several splits."""

    kind: str
    """`group` or `near-duplicate cluster`"""
    name: str
    image_ids: dict[Split, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCheck:
    """One way of splitting: what it parts."""

    way: str
    images: dict[Split, int]
    groups: int
    """groups in several splits"""
    clusters: int
    """near-duplicate clusters in several splits"""
    exposed: int
    """images of val and test that have an image of their group or cluster in train"""
    examples: tuple[Crossing, ...]


def check_splits(images: Sequence[ImageRecord], plan: SplitPlan) -> tuple[SplitCheck, ...]:
    """The recipe's split, and beside it two that know less; the recipe's parts nothing."""
    return (
        _check("as the recipe splits", images, assign_splits(images, plan)),
        _check("by group alone", images, _split_by(images, plan, lambda image: image.group)),
        _check("image by image", images, _split_by(images, plan, lambda image: image.image_id)),
    )


def _split_by(
    images: Sequence[ImageRecord], plan: SplitPlan, key: Callable[[ImageRecord], str]
) -> Splits:
    split_of = split_components({key(image) for image in images}, plan)
    return {image.image_id: split_of[key(image)] for image in images}


def _check(way: str, images: Iterable[ImageRecord], splits: Splits) -> SplitCheck:
    placed = [image for image in images if image.image_id in splits]
    groups = _crossings("group", placed, splits, lambda image: image.group)
    clusters = _crossings("near-duplicate cluster", placed, splits, lambda image: image.cluster)
    return SplitCheck(
        way=way,
        images={split: sum(splits[i.image_id] is split for i in placed) for split in Split},
        groups=len(groups),
        clusters=len(clusters),
        exposed=len(_exposed([*groups, *clusters])),
        examples=tuple([*groups, *clusters][:MOST_CROSSINGS]),
    )


def _crossings(
    kind: str, images: Sequence[ImageRecord], splits: Splits, key: Callable[[ImageRecord], str]
) -> list[Crossing]:
    """By name."""
    first: dict[str, Split] = {}
    parted = {
        key(image)
        for image in images
        if first.setdefault(key(image), splits[image.image_id]) is not splits[image.image_id]
    }
    members: dict[str, dict[Split, list[str]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        if key(image) in parted:
            members[key(image)][splits[image.image_id]].append(image.image_id)
    return [
        Crossing(
            kind=kind,
            name=name,
            image_ids={split: tuple(sorted(own[split])) for split in Split if split in own},
        )
        for name, own in sorted(members.items())
    ]


def _exposed(crossings: Iterable[Crossing]) -> set[str]:
    return {
        image_id
        for crossing in crossings
        if Split.TRAIN in crossing.image_ids
        for split in (Split.VAL, Split.TEST)
        for image_id in crossing.image_ids.get(split, ())
    }
