"""Corrections by experts: append-only, with what became of each trace as rows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import exists, func, insert, select
from sqlalchemy.orm import Session

from core.records import Correction, TraceOutcome
from db.reasonings import reasonings_of, save_reasonings
from db.statements import among, batches, insert_missing
from db.tables import CorrectionRow, OutcomeRow, WithdrawnCorrectionRow, table_of

CORRECTIONS = table_of(CorrectionRow)
CORRECTION_FIELDS = (
    "correction_id",
    "image_id",
    "draft_id",
    "expert",
    "version",
    "is_adjudication",
    "rejects_image",
)
COLUMNS = [CORRECTIONS.c[name] for name in CORRECTION_FIELDS]
_IS_WITHDRAWN = exists().where(WithdrawnCorrectionRow.correction_id == CorrectionRow.correction_id)


def save_correction(session: Session, correction: Correction) -> bool:
    """Append one version of an expert's work; False when it is there already."""
    known = select(CorrectionRow.number).where(
        CorrectionRow.correction_id == correction.correction_id
    )
    if session.scalar(known) is not None:
        return False
    save_reasonings(session, {correction.correction_id: correction.reasoning})
    values = {name: getattr(correction, name) for name in CORRECTION_FIELDS}
    session.connection().execute(insert(CORRECTIONS), [values])
    outcomes = [
        {"correction_id": correction.correction_id, "position": position, "outcome": outcome}
        for position, outcome in enumerate(correction.outcomes)
    ]
    if outcomes:
        session.connection().execute(insert(table_of(OutcomeRow)), outcomes)
    return True


def next_version(session: Session, draft_id: str, expert: str) -> int:
    """The number of the next version of an expert's work on a draft."""
    newest = select(func.max(CorrectionRow.version)).where(
        CorrectionRow.draft_id == draft_id, CorrectionRow.expert == expert
    )
    return (session.scalar(newest) or 0) + 1


def withdraw_corrections(session: Session, correction_ids: Sequence[str]) -> int:
    """Let corrections count no longer: their expert took them back. Returns how many did until now.

    The rows stay. What the same expert said elsewhere, or says later, counts again.
    """
    rows = [{"correction_id": correction_id} for correction_id in correction_ids]
    return insert_missing(session, table_of(WithdrawnCorrectionRow), rows)


def corrections(session: Session, image_ids: Sequence[str]) -> dict[str, list[Correction]]:
    """The corrections that count, by image: one per expert, in the order experts first appeared.

    It is the highest version, of those not withdrawn, on the draft that the expert worked on last.
    An adjudication stands beside what the same person said as an expert. Images without a
    correction are left out.
    """
    found: dict[str, list[Correction]] = {}
    for batch in batches(list(image_ids)):
        found |= _load(session, batch)
    return found


def corrections_by_id(session: Session, ids: Sequence[str]) -> list[Correction]:
    """The corrections of these ids, whether they still count or not, in the order of `ids`."""
    statement = select(*COLUMNS).where(CorrectionRow.correction_id.in_(ids))
    made = corrections_of(session, session.execute(statement).mappings().all())
    found = {correction.correction_id: correction for correction in made}
    return [found[correction_id] for correction_id in ids if correction_id in found]


def _load(session: Session, image_ids: Sequence[str]) -> dict[str, list[Correction]]:
    rows = session.execute(
        select(*COLUMNS)
        .where(among(session, CorrectionRow.image_id, image_ids), ~_IS_WITHDRAWN)
        .order_by(CorrectionRow.number)
    ).mappings()
    found: dict[str, list[Correction]] = defaultdict(list)
    for correction in corrections_of(session, _that_count(rows)):
        found[correction.image_id].append(correction)
    return dict(found)


def corrections_of(session: Session, rows: Sequence[Any]) -> Iterator[Correction]:
    """The corrections of rows that have `COLUMNS`, with what they say."""
    ids = [row["correction_id"] for row in rows]
    reasonings, outcomes = reasonings_of(session, ids), _outcomes_of(session, ids)
    for row in rows:
        correction_id = row["correction_id"]
        yield Correction(
            **{name: row[name] for name in CORRECTION_FIELDS},
            reasoning=reasonings[correction_id],
            outcomes=tuple(outcomes[correction_id]),
        )


def _that_count(rows: Iterable[Any]) -> list[Any]:
    """Of rows in the order of their arrival, the one that counts for each image and expert."""
    counting: dict[tuple[str, str, bool], Any] = {}
    for row in rows:
        key = (row["image_id"], row["expert"], row["is_adjudication"])
        held = counting.get(key)
        if held is None or held["draft_id"] != row["draft_id"] or held["version"] < row["version"]:
            counting[key] = row  # a dictionary keeps the place where the key first stood
    return list(counting.values())


def _outcomes_of(session: Session, ids: Sequence[str]) -> dict[str, list[TraceOutcome]]:
    outcomes: dict[str, list[TraceOutcome]] = defaultdict(list)
    for batch in batches(ids):
        rows = session.execute(
            select(OutcomeRow.correction_id, OutcomeRow.outcome)
            .where(among(session, OutcomeRow.correction_id, batch))
            .order_by(OutcomeRow.correction_id, OutcomeRow.position)
        )
        for correction_id, outcome in rows:
            outcomes[correction_id].append(outcome)
    return outcomes
