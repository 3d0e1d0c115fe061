"""Reasonings and their findings as rows, for drafts, corrections and chains alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from core.records import Reasoning, Region, TraceFinding
from db.statements import batches
from db.tables import CornerRow, FindingRow, ReasoningRow, table_of

INSERTS = tuple(insert(table_of(row)) for row in (ReasoningRow, FindingRow, CornerRow))


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
    )
    for statement, values in zip(INSERTS, rows, strict=True):
        if values:
            session.connection().execute(statement, values)


def reasonings_of(session: Session, ids: Sequence[str]) -> dict[str, Reasoning]:
    """The reasonings of these drafts, corrections or chains; three queries per batch."""
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
        ).where(ReasoningRow.reasoning_id.in_(ids))
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
    corners = _corners_of(session, ids)
    findings: dict[str, list[TraceFinding]] = defaultdict(list)
    rows = session.execute(
        select(
            FindingRow.reasoning_id,
            FindingRow.position,
            FindingRow.category,
            FindingRow.evidence,
            FindingRow.points_to,
        )
        .where(FindingRow.reasoning_id.in_(ids))
        .order_by(FindingRow.reasoning_id, FindingRow.position)
    )
    for reasoning_id, position, category, evidence, points_to in rows:
        points = corners.get((reasoning_id, position))
        findings[reasoning_id].append(
            TraceFinding(
                category=category,
                evidence=evidence,
                points_to=points_to,
                region=Region(points=tuple(points)) if points else None,
            )
        )
    return findings


def _corners_of(
    session: Session, ids: Sequence[str]
) -> dict[tuple[str, int], list[tuple[float, float]]]:
    corners: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    rows = session.execute(
        select(CornerRow.reasoning_id, CornerRow.position, CornerRow.x, CornerRow.y)
        .where(CornerRow.reasoning_id.in_(ids))
        .order_by(CornerRow.reasoning_id, CornerRow.position, CornerRow.corner)
    )
    for reasoning_id, position, x, y in rows:
        corners[reasoning_id, position].append((x, y))
    return corners


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
    points = finding.region.points if finding.region else ()
    return [
        {"reasoning_id": reasoning_id, "position": position, "corner": corner, "x": x, "y": y}
        for corner, (x, y) in enumerate(points)
    ]
