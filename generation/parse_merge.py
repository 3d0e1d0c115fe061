"""From a stored reply to the draft that words what several teachers agree on. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field

from core.consensus import Vote
from core.errors import DataError
from core.records import Authenticity, Confidence, Reasoning, TeacherReply, TraceFinding
from generation.parse import Text, check_whole, clean, read_json, shorten


class _Point(BaseModel):
    model_config = ConfigDict(extra="ignore")

    category: str
    points_to: Authenticity
    evidence: Text


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    findings: list[_Point] = Field(max_length=80)
    conclusion: Text


def parse_merge(
    reply: TeacherReply,
    kept: Sequence[Vote],
    *,
    label: Authenticity,
    opening: str,
    confidence: Confidence,
) -> Reasoning:
    """Read a reply about the points that were kept; raises DataError with the reason.

    The reply decides the words alone: it has each of these points once and no other.
    """
    check_whole(reply)
    parsed = read_json(reply.content or "", _Reply)
    said = Counter((point.category, point.points_to) for point in parsed.findings)
    wanted = Counter(vote.point for vote in kept)
    if said != wanted:
        raise DataError(f"its points are not those that were kept: {_difference(said, wanted)}")
    conclusion = clean(parsed.conclusion)
    if not conclusion.startswith(opening):
        raise DataError(f"its conclusion does not begin with {opening!r}")
    words = {(point.category, point.points_to): clean(point.evidence) for point in parsed.findings}
    if empty := [category for (category, _), text in words.items() if not text]:
        raise DataError(f"the finding on {shorten(empty[0])} has no word of evidence")
    return Reasoning(
        verdict=label,
        findings=tuple(_finding(vote, words[vote.point]) for vote in kept),
        conclusion=conclusion,
        confidence=confidence if any(vote.points_to is label for vote in kept) else Confidence.LOW,
    )


def _finding(vote: Vote, evidence: str) -> TraceFinding:
    """The place is that of the first teacher who gave one."""
    regions = [finding.region for finding in vote.findings if finding.region is not None]
    return TraceFinding(
        category=vote.category,
        evidence=evidence,
        points_to=vote.points_to,
        region=regions[0] if regions else None,
    )


def _difference(
    said: Counter[tuple[str, Authenticity]], wanted: Counter[tuple[str, Authenticity]]
) -> str:
    lacks, adds = ([f"{c} ({side})" for c, side in some] for some in (wanted - said, said - wanted))
    parts = [("lacks", lacks), ("adds", adds)]
    return shorten("; ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names))
