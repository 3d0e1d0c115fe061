"""Images with known right answers, and how experts do on them.

An answer to a gold item is scored and nothing else: it never becomes part of a chain.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.records import Authenticity


@dataclass(frozen=True, slots=True, kw_only=True)
class RightAnswer:
    """What is true of a gold image."""

    verdict: Authenticity
    categories: frozenset[str]
    """of the traces that speak for the verdict"""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldAnswer:
    """What an expert says of a gold image."""

    image_id: str
    expert: str
    verdict: Authenticity | None
    """None: the form does not ask for it"""
    categories: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldScore:
    """How one expert does on gold items so far."""

    items: int
    verdicts: int
    """items whose form asks for a verdict"""
    right_verdicts: int
    right_verdict_share: float | None
    precision: float | None
    """share of the categories named that are right; categories count where the verdict is not
    wrong. None: none was named"""
    recall: float | None
    """share of the right categories that are named. None: there is none to name"""


def score_gold(
    answers: Iterable[GoldAnswer], right: Mapping[str, RightAnswer]
) -> dict[str, GoldScore]:
    """The score of each expert; answers to images that are gold no longer are left out."""
    by_expert: dict[str, list[GoldAnswer]] = defaultdict(list)
    for answer in answers:
        if answer.image_id in right:
            by_expert[answer.expert].append(answer)
    return {expert: _score(by_expert[expert], right) for expert in sorted(by_expert)}


def _score(answers: list[GoldAnswer], right: Mapping[str, RightAnswer]) -> GoldScore:
    verdicts = [a for a in answers if a.verdict is not None]
    right_verdicts = [a for a in verdicts if a.verdict is right[a.image_id].verdict]
    counting = [a for a in answers if a.verdict in (None, right[a.image_id].verdict)]
    named = sum(len(a.categories) for a in counting)
    to_name = sum(len(right[a.image_id].categories) for a in counting)
    hits = sum(len(a.categories & right[a.image_id].categories) for a in counting)
    return GoldScore(
        items=len(answers),
        verdicts=len(verdicts),
        right_verdicts=len(right_verdicts),
        right_verdict_share=_share(len(right_verdicts), len(verdicts)),
        precision=_share(hits, named),
        recall=_share(hits, to_name),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
