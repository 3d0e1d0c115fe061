"""Reasonings and their findings as rows, for drafts, corrections and chains alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from sys import intern

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core.records import Mask, Reasoning, Region, TraceFinding
from db.statements import among, batches
from db.tables import CornerRow, FindingRow, MaskRow, ReasoningRow, table_of

Regions = dict[tuple[str, int], Region | Mask]
"""by reasoning and position of the finding"""

MASKS = table_of(MaskRow)
INSERTS = tuple(insert(table_of(row)) for row in (ReasoningRow, FindingRow, CornerRow, MaskRow))


def save_reasonings(session: Session, reasonings: Mapping[str, Reasoning]) -> None:
    """Store the reasonings of new drafts, corrections or chains, by the id of their owner."""
    found = [
        (reasoning_id, position, finding)
        for reasoning_id, reasoning in reasonings.items()
        for position, finding in enumerate(reasoning.findings)
    ]
    rows = (
        [_reasoning_values(*item) for item in reasonings.items()],
        [_finding_values(*item) for item in found],
        [values for item in found for values in _corner_values(*item)],
        [values for item in found for values in _mask_values(*item)],
    )
    for statement, values in zip(INSERTS, rows, strict=True):
        if values:
            session.connection().execute(statement, values)


def reasonings_of(session: Session, ids: Sequence[str]) -> dict[str, Reasoning]:
    """The reasonings of these drafts, corrections or chains; four queries per batch."""
    found: dict[str, Reasoning] = {}
    for batch in batches(list(ids)):
        found |= _load(session, batch)
    return found


def _load(session: Session, ids: Sequence[str]) -> dict[str, Reasoning]:
    findings = _findings_of(session, ids)
    rows = session.execute(
        select(
            ReasoningRow.reasoning_id,
            ReasoningRow.verdict,
            ReasoningRow.conclusion,
            ReasoningRow.confidence,
        ).where(among(session, ReasoningRow.reasoning_id, ids))
    )
    return {
        reasoning_id: Reasoning(
            verdict=verdict,
            findings=tuple(findings[reasoning_id]),
            conclusion=conclusion,
            confidence=confidence,
        )
        for reasoning_id, verdict, conclusion, confidence in rows
    }


def _findings_of(session: Session, ids: Sequence[str]) -> dict[str, list[TraceFinding]]:
    regions = _polygons_of(session, ids) | _masks_of(session, ids)
    findings: dict[str, list[TraceFinding]] = defaultdict(list)
    rows = session.execute(
        select(
            FindingRow.reasoning_id,
            FindingRow.position,
            FindingRow.category,
            FindingRow.evidence,
            FindingRow.points_to,
        )
        .where(among(session, FindingRow.reasoning_id, ids))
        .order_by(FindingRow.reasoning_id, FindingRow.position)
    )
    for reasoning_id, position, category, evidence, points_to in rows:
        findings[reasoning_id].append(
            TraceFinding(
                category=intern(category),
                evidence=evidence,
                points_to=points_to,
                region=regions.get((reasoning_id, position)),
            )
        )
    return findings


def _polygons_of(session: Session, ids: Sequence[str]) -> Regions:
    corners: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    rows = session.execute(
        select(CornerRow.reasoning_id, CornerRow.position, CornerRow.x, CornerRow.y)
        .where(among(session, CornerRow.reasoning_id, ids))
        .order_by(CornerRow.reasoning_id, CornerRow.position, CornerRow.corner)
    )
    for reasoning_id, position, x, y in rows:
        corners[reasoning_id, position].append((x, y))
    return {place: Region(points=tuple(points)) for place, points in corners.items()}


def _masks_of(session: Session, ids: Sequence[str]) -> Regions:
    statement = select(*MASKS.columns).where(among(session, MaskRow.reasoning_id, ids))
    return {
        (reasoning_id, position): Mask(width=width, height=height, counts=counts)
        for reasoning_id, position, width, height, counts in session.execute(statement)
    }


def _reasoning_values(reasoning_id: str, reasoning: Reasoning) -> dict[str, object]:
    return {
        "reasoning_id": reasoning_id,
        "verdict": reasoning.verdict,
        "conclusion": reasoning.conclusion,
        "confidence": reasoning.confidence,
    }


def _finding_values(reasoning_id: str, position: int, finding: TraceFinding) -> dict[str, object]:
    return {
        "reasoning_id": reasoning_id,
        "position": position,
        "category": finding.category,
        "points_to": finding.points_to,
        "evidence": finding.evidence,
    }


def _corner_values(
    reasoning_id: str, position: int, finding: TraceFinding
) -> list[dict[str, object]]:
    points = finding.region.points if isinstance(finding.region, Region) else ()
    return [
        {"reasoning_id": reasoning_id, "position": position, "corner": corner, "x": x, "y": y}
        for corner, (x, y) in enumerate(points)
    ]


def _mask_values(
    reasoning_id: str, position: int, finding: TraceFinding
) -> list[dict[str, object]]:
    if not isinstance(finding.region, Mask):
        return []
    return [{"reasoning_id": reasoning_id, "position": position, **asdict(finding.region)}]
