"""What several teachers say of one image, counted: which points enough of them raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from core.records import Authenticity, Confidence, Correction, Draft, TraceFinding
from core.taxonomy import Taxonomy


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One point of the inspection, and who raised it."""

    category: str
    points_to: Authenticity
    findings: tuple[TraceFinding, ...]
    """one of each draft that raised it, in the order of the drafts"""
    arms: tuple[str, ...]
    """of these drafts"""
    glaring: tuple[str, ...]
    """the arms among them that call it glaring"""
    is_kept: bool
    """enough drafts raised it, or one called it glaring"""

    @property
    def point(self) -> Point:
        return self.category, self.points_to


Point = tuple[str, Authenticity]
"""category, and what it points to"""


def count_votes(drafts: Sequence[Draft], taxonomy: Taxonomy, *, needed: int) -> tuple[Vote, ...]:
    """The points that any of the drafts raises, in the taxonomy's order.

    A draft has one vote on a point, however often it raises it.
    """
    order = {name: place for place, name in enumerate(taxonomy.ids)}
    votes = _count(drafts, lambda vote: len(vote.arms) >= needed or bool(vote.glaring))
    return tuple(sorted(votes, key=lambda vote: (order[vote.category], vote.points_to)))


def votes_behind(merged: Draft, drafts: Sequence[Draft]) -> tuple[Vote, ...]:
    """The votes that a merged draft words, by category; kept is what it holds."""
    kept = {(finding.category, finding.points_to) for finding in merged.reasoning.findings}
    votes = _count(drafts, lambda vote: vote.point in kept)
    return tuple(sorted(votes, key=lambda vote: vote.point))


class Ruling(StrEnum):
    """What an expert makes of a vote."""

    UPHELD = "upheld"
    DENIED = "denied"


def ruling_on(vote: Vote, word: Correction | None) -> Ruling | None:
    """What a correction says of a vote behind the draft that it corrects; None where nothing.

    A dropped point was not shown to the expert: it is upheld where they added it, and never denied.
    """
    if word is None:
        return None
    if vote.point in {(finding.category, finding.points_to) for finding in word.reasoning.findings}:
        return Ruling.UPHELD
    return Ruling.DENIED if vote.is_kept else None


def _count(drafts: Sequence[Draft], is_kept: Callable[[Vote], bool]) -> list[Vote]:
    raised: dict[Point, dict[str, TraceFinding]] = {}
    glaring = {draft.arm: draft.glaring for draft in drafts}
    for draft in drafts:
        for finding in draft.reasoning.findings:
            voters = raised.setdefault((finding.category, finding.points_to), {})
            voters.setdefault(draft.arm, finding)
    votes = [
        Vote(
            category=category,
            points_to=points_to,
            findings=tuple(voters.values()),
            arms=tuple(voters),
            glaring=tuple(arm for arm in voters if category in glaring[arm]),
            is_kept=False,
        )
        for (category, points_to), voters in raised.items()
    ]
    return [replace(vote, is_kept=is_kept(vote)) for vote in votes]


def common_confidence(drafts: Sequence[Draft]) -> Confidence:
    """The middle one of what the drafts say; of two the lower."""
    order = list(Confidence)
    places = sorted(order.index(draft.reasoning.confidence) for draft in drafts)
    return order[places[(len(places) - 1) // 2]]
