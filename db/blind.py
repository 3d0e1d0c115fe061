"""Blind labels, append-only, and the guidance that they came to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sqlalchemy import exists, func, insert, select, update
from sqlalchemy.orm import Session

from core.records import BlindLabel, Guidance, ImageRecord
from db.images import IMAGE_COLUMNS, image_of, of_sources
from db.statements import batches, change, insert_missing, stream
from db.tables import BlindLabelRow, GuidanceRow, ImageRow, table_of
from db.tombstones import is_withdrawn

LABELS = table_of(BlindLabelRow)
LABEL_FIELDS = (
    "label_id",
    "image_id",
    "expert",
    "version",
    "verdict",
    "confidence",
    "categories",
)
GUIDANCE = table_of(GuidanceRow)
GUIDANCE_FIELDS = ("image_id", "categories", "experts", "hard")


def save_label(session: Session, label: BlindLabel) -> bool:
    """Append one version of an expert's label; False when it is there already."""
    if session.scalar(select(LABELS.c.number).where(LABELS.c.label_id == label.label_id)):
        return False
    values = {name: getattr(label, name) for name in LABEL_FIELDS}
    session.connection().execute(insert(LABELS), [values])
    return True


def next_label_version(session: Session, image_id: str, expert: str) -> int:
    """The number of the next version of an expert's label of an image."""
    newest = select(func.max(LABELS.c.version)).where(
        LABELS.c.image_id == image_id, LABELS.c.expert == expert
    )
    return (session.scalar(newest) or 0) + 1


def withdraw_labels(session: Session, label_ids: Sequence[str]) -> None:
    """Let labels count no longer: their expert took them back. The rows stay."""
    for batch in batches(sorted(label_ids)):
        change(
            session,
            update(LABELS)
            .where(LABELS.c.label_id.in_(batch), LABELS.c.withdrawn_at.is_(None))
            .values(withdrawn_at=datetime.now(UTC)),
        )


def labels_among(session: Session, image_ids: Sequence[str]) -> dict[str, list[BlindLabel]]:
    """The label of each expert that counts, by image, in the order of their first arrival."""
    newest: dict[tuple[str, str], BlindLabel] = {}
    for batch in batches(sorted(set(image_ids))):
        statement = (
            select(*(LABELS.c[name] for name in LABEL_FIELDS))
            .where(LABELS.c.image_id.in_(batch), LABELS.c.withdrawn_at.is_(None))
            .order_by(LABELS.c.number)
        )
        for row in session.execute(statement).mappings():
            newest[row["image_id"], row["expert"]] = BlindLabel(**row)
    found: dict[str, list[BlindLabel]] = defaultdict(list)
    for (image_id, _), label in newest.items():
        found[image_id].append(label)
    return dict(found)


def save_guidance(session: Session, guidance: Sequence[Guidance]) -> int:
    """Settle images; what was settled before stays. Returns how many are new."""
    rows = [{name: getattr(each, name) for name in GUIDANCE_FIELDS} for each in guidance]
    return insert_missing(session, GUIDANCE, rows)


def guidance_among(session: Session, image_ids: Sequence[str]) -> dict[str, Guidance]:
    """What was settled, by image id."""
    found = {}
    for batch in batches(sorted(set(image_ids))):
        statement = select(*(GUIDANCE.c[name] for name in GUIDANCE_FIELDS))
        rows = session.execute(statement.where(GUIDANCE.c.image_id.in_(batch))).mappings()
        found.update({row["image_id"]: Guidance(**row) for row in rows})
    return found


def unsettled_images(session: Session, *, sources: Sequence[str] | None) -> list[ImageRecord]:
    """Labelled images of these sources (None: of all) that nothing was settled for, by id."""
    is_settled = exists().where(GuidanceRow.image_id == ImageRow.image_id)
    statement = of_sources(
        select(*IMAGE_COLUMNS).where(
            ImageRow.label.is_not(None), ~is_settled, ~is_withdrawn(ImageRow.image_id)
        ),
        sources,
        (),
    )
    return [image_of(row) for rows in stream(session, statement, ImageRow.image_id) for row in rows]


def judged_images(session: Session) -> Iterator[tuple[ImageRecord, list[BlindLabel]]]:
    """The images that blind experts have labelled, with the labels that count, by image id."""
    is_judged = exists().where(
        BlindLabelRow.image_id == ImageRow.image_id, BlindLabelRow.withdrawn_at.is_(None)
    )
    statement = select(*IMAGE_COLUMNS).where(is_judged, ~is_withdrawn(ImageRow.image_id))
    for rows in stream(session, statement, ImageRow.image_id):
        labels = labels_among(session, [row["image_id"] for row in rows])
        for row in rows:
            yield image_of(row), labels[row["image_id"]]


def count_guidance(session: Session) -> tuple[int, int]:
    """How many images are guided, and how many are hard."""
    hard = select(func.count()).where(GUIDANCE.c.hard.is_not(None))
    total = select(func.count()).select_from(GUIDANCE)
    number = session.execute(hard).scalar_one()
    return session.execute(total).scalar_one() - number, number
