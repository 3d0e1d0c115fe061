"""ACoTI's step "demonstrate": the fewest exemplars that show the categories asked for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from core.errors import ConfigError
from core.records import Authenticity, Exemplar


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The exemplars that stand in a prompt."""

    exemplars: tuple[Exemplar, ...] = ()
    """by id"""
    uncovered: tuple[str, ...] = ()
    """categories that were asked for and that no exemplar speaks of; sorted"""


def choose_exemplars(categories: Collection[str], exemplars: Sequence[Exemplar]) -> Chosen:
    """The smallest set that covers the categories, with a fake and a real exemplar in it.

    Exact (FakeScope, ACoTI step 2, a minimum set cover). Among sets of equal size the one wins
    whose exemplars speak of most of the categories, summed over exemplars; then the one whose ids
    come first. Without exemplars nothing is chosen. Each distinct question is solved once.
    """
    return _choose(frozenset(categories), tuple(exemplars))


@lru_cache(maxsize=4096)
def _choose(categories: frozenset[str], exemplars: tuple[Exemplar, ...]) -> Chosen:
    covered = categories & {name for exemplar in exemplars for name in exemplar.categories}
    uncovered = tuple(sorted(categories - covered))
    if not exemplars:
        return Chosen(uncovered=uncovered)
    ordered = sorted(exemplars, key=lambda exemplar: exemplar.exemplar_id)
    masks = _masks(ordered, covered)
    last = len(ordered) - 1
    overlaps = [len(covered.intersection(exemplar.categories)) for exemplar in ordered]
    # one integer compares two sets of equal size: the overlap decides, then the lowest ids
    values = [(overlaps[i] << len(ordered)) + (1 << (last - i)) for i in range(len(ordered))]
    best = _solve({i: masks[i] for i in _candidates(masks)}, values)
    chosen = tuple(exemplar for i, exemplar in enumerate(ordered) if best >> (last - i) & 1)
    return Chosen(exemplars=chosen, uncovered=uncovered)


def _masks(exemplars: Sequence[Exemplar], categories: frozenset[str]) -> list[int]:
    """Per exemplar the needs that it meets as bits: both labels and each category, rarest first."""
    needs = [
        *([c in e.categories for e in exemplars] for c in sorted(categories)),
        *([e.label is label for e in exemplars] for label in Authenticity),
    ]
    if not all(map(any, needs)):
        raise ConfigError("demonstrations need at least one fake and one real exemplar")
    needs.sort(key=sum)
    return [
        sum(meets << bit for bit, meets in enumerate(column)) for column in zip(*needs, strict=True)
    ]


def _candidates(masks: Sequence[int]) -> list[int]:
    """Without those whose needs another meets, too: more of them, or the same with an earlier id.

    None of them can be in the best set: the other one in its place gives an equal or smaller set
    with more overlap or an earlier id.
    """
    first: dict[int, int] = {}
    for i, mask in enumerate(masks):
        first.setdefault(mask, i)
    return [i for mask, i in first.items() if not any(mask & m == mask != m for m in first)]


def _solve(masks: Mapping[int, int], values: Sequence[int]) -> int:
    """The greatest sum of values among the smallest sets of indices that together meet all needs.

    Dynamic programming over the set of unmet needs, one more exemplar a round. Only those that
    meet the lowest unmet need are tried: one of them must be in the set.
    """
    unmet = 0
    for mask in masks.values():
        unmet |= mask
    frontier = {unmet: 0}
    while 0 not in frontier:
        further: dict[int, int] = {}
        for left, value in frontier.items():
            lowest = left & -left
            for i, mask in masks.items():
                if mask & lowest:
                    rest = left & ~mask
                    further[rest] = max(further.get(rest, 0), value + values[i])
        frontier = further
    return frontier[0]
