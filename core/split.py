"""Leak-safe splits: whatever shares a photograph or is a near-duplicate stays together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.ids import unit_interval
from core.records import ImageRecord, Split

FEW_COMPONENTS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitPlan:
    """Shares of the three splits (sum 1), the seed, and generators that only the test may see."""

    train: float
    val: float
    test: float
    seed: int
    holdout_generators: tuple[str, ...] = ()


def assign_splits(images: Sequence[ImageRecord], plan: SplitPlan) -> dict[str, Split]:
    """The split of each image id; held-out generators stand in the test split or nowhere.

    Images connected through a group or a near-duplicate cluster form one component and never part.
    """
    component_of = connect((image.group, image.cluster) for image in images)
    keys = [component_of[image.group] for image in images]
    split_of = split_components(set(keys), plan)
    return {
        image.image_id: split_of[key]
        for image, key in zip(images, keys, strict=True)
        if image.generator not in plan.holdout_generators or split_of[key] is Split.TEST
    }


def split_components(components: Iterable[str], plan: SplitPlan) -> dict[str, Split]:
    """The split of each component from its own hash, so that a split survives new images.

    Below `FEW_COMPONENTS` the hash-ordered list is cut by the shares instead: with so few, chance
    alone could leave a split empty.
    """
    position = {name: unit_interval("split", plan.seed, name) for name in components}
    if len(position) < FEW_COMPONENTS:
        ordered = sorted(position, key=lambda name: (position[name], name))
        position = {name: (rank + 0.5) / len(ordered) for rank, name in enumerate(ordered)}
    return {name: _split_at(place, plan) for name, place in position.items()}


def _split_at(place: float, plan: SplitPlan) -> Split:
    if place < plan.test:
        return Split.TEST
    return Split.VAL if place < plan.test + plan.val else Split.TRAIN


def connect(pairs: Iterable[tuple[str, str]]) -> Mapping[str, str]:
    """For each group the name of its component: the smallest group reachable through clusters."""
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for group, cluster in pairs:
        first, second = sorted((root(("group", group)), root(("cluster", cluster))))
        parent[first] = second  # "group" sorts after "cluster": a group is always the root
    smallest: dict[tuple[str, str], str] = {}
    groups = [name for kind, name in list(parent) if kind == "group"]
    for name in sorted(groups):
        smallest.setdefault(root(("group", name)), name)
    return {name: smallest[root(("group", name))] for name in groups}
