"""What the metadata of users' files said of where images come from: untrusted text, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.records import Authenticity
from db.statements import insert_missing
from db.tables import ImageRow, ProvenanceRow, table_of

_BY_LABEL = (
    func.count().filter(ImageRow.label == Authenticity.REAL),
    func.count().filter(ImageRow.label == Authenticity.FAKE),
    func.count().filter(ImageRow.label.is_(None)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenanceCount:
    """How many images say something, by their label."""

    name: str
    value: str | None
    """None: whatever the value is"""
    real: int
    fake: int
    unlabelled: int


def save_provenance(session: Session, statements: Mapping[str, Mapping[str, str]]) -> None:
    """Store what is said of images, by image id and name; what is there already stays."""
    rows = [
        {"image_id": image_id, "name": name, "value": value}
        for image_id, said in statements.items()
        for name, value in said.items()
    ]
    insert_missing(session, table_of(ProvenanceRow), rows)


def provenance_of(session: Session, image_id: str) -> dict[str, str]:
    """All that is said of one image, by name."""
    statement = (
        select(ProvenanceRow.name, ProvenanceRow.value)
        .where(ProvenanceRow.image_id == image_id)
        .order_by(ProvenanceRow.name)
    )
    return {row.name: row.value for row in session.execute(statement)}


def count_provenance(session: Session) -> list[ProvenanceCount]:
    """Images by label for each name, in the order of the names."""
    statement = (
        select(ProvenanceRow.name, *_BY_LABEL)
        .join(ImageRow, ImageRow.image_id == ProvenanceRow.image_id)
        .group_by(ProvenanceRow.name)
        .order_by(ProvenanceRow.name)
    )
    return [
        ProvenanceCount(name=name, value=None, real=real, fake=fake, unlabelled=unlabelled)
        for name, real, fake, unlabelled in session.execute(statement)
    ]


def commonest_values(session: Session, name: str, *, most: int) -> list[ProvenanceCount]:
    """Images by label for the values of one name that most images have."""
    statement = (
        select(ProvenanceRow.value, *_BY_LABEL)
        .join(ImageRow, ImageRow.image_id == ProvenanceRow.image_id)
        .where(ProvenanceRow.name == name)
        .group_by(ProvenanceRow.value)
        .order_by(func.count().desc(), ProvenanceRow.value)
        .limit(most)
    )
    return [
        ProvenanceCount(name=name, value=value, real=real, fake=fake, unlabelled=unlabelled)
        for value, real, fake, unlabelled in session.execute(statement)
    ]
