"""What several teachers say of one image, counted: which points enough of them raise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.records import Authenticity, Confidence, Draft, TraceFinding
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
    def point(self) -> tuple[str, Authenticity]:
        return self.category, self.points_to


def count_votes(drafts: Sequence[Draft], taxonomy: Taxonomy, *, needed: int) -> tuple[Vote, ...]:
    """The points that any of the drafts raises, in the taxonomy's order.

    A draft has one vote on a point, however often it raises it.
    """
    raised: dict[tuple[str, Authenticity], dict[str, TraceFinding]] = {}
    glaring: dict[str, frozenset[str]] = {draft.arm: frozenset(draft.glaring) for draft in drafts}
    for draft in drafts:
        for finding in draft.reasoning.findings:
            voters = raised.setdefault((finding.category, finding.points_to), {})
            voters.setdefault(draft.arm, finding)
    order = {name: place for place, name in enumerate(taxonomy.ids)}
    votes = []
    for category, points_to in sorted(raised, key=lambda point: (order[point[0]], point[1])):
        voters = raised[category, points_to]
        calling = tuple(arm for arm in voters if category in glaring[arm])
        votes.append(
            Vote(
                category=category,
                points_to=points_to,
                findings=tuple(voters.values()),
                arms=tuple(voters),
                glaring=calling,
                is_kept=len(voters) >= needed or bool(calling),
            )
        )
    return tuple(votes)


def common_confidence(drafts: Sequence[Draft]) -> Confidence:
    """The middle one of what the drafts say; of two the lower."""
    order = list(Confidence)
    places = sorted(order.index(draft.reasoning.confidence) for draft in drafts)
    return order[places[(len(places) - 1) // 2]]
