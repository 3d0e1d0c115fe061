"""What experts say besides reviews: merged descriptions and preferences, append-only.

Both are kept alike. Of the versions of one expert about one subject (an image, or a pair of drafts)
the newest counts that was not taken back.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import Generic, TypeVar

from sqlalchemy import RowMapping, func, insert, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from core.records import MergedDescription, Preference
from db.statements import batches, change
from db.tables import MergedDescriptionRow, PreferenceRow, table_of
from db.tombstones import is_withdrawn

Record = TypeVar("Record", MergedDescription, Preference)


class Judgements(Generic[Record]):
    """One of the tables, with the record that its rows hold."""

    def __init__(
        self,
        record: type[Record],
        row: type[MergedDescriptionRow] | type[PreferenceRow],
        key: InstrumentedAttribute[str],
        *,
        subject: Callable[[RowMapping], Hashable],
    ) -> None:
        self._record: type[Record] = record
        self._row = row
        self._table = table_of(row)
        self._key = key
        self._subject = subject
        self._columns = [self._table.c[field.name] for field in fields(record)]

    def save(self, session: Session, judgement: Record) -> bool:
        """Append one version; False when it is there already."""
        values = {column.key: getattr(judgement, column.key) for column in self._columns}
        if session.scalar(select(self._row.number).where(self._key == values[self._key.key])):
            return False
        session.connection().execute(insert(self._table), [values])
        return True

    def next_version(self, session: Session, image_id: str, expert: str) -> int:
        """The number of an expert's next version about an image."""
        newest = select(func.max(self._row.version)).where(
            self._row.image_id == image_id, self._row.expert == expert
        )
        return (session.scalar(newest) or 0) + 1

    def withdraw(self, session: Session, ids: Sequence[str]) -> None:
        """These were taken back: they stay and no longer count."""
        for batch in batches(sorted(ids)):
            these = update(self._row).where(self._key.in_(batch), self._row.withdrawn_at.is_(None))
            change(session, these.values(withdrawn_at=datetime.now(UTC)))

    def counting(self, session: Session) -> list[Record]:
        """The one of each expert about each subject that counts, in the order of arrival.

        Those about withdrawn images are left out.
        """
        statement = select(*self._columns).where(
            self._row.withdrawn_at.is_(None), ~is_withdrawn(self._row.image_id)
        )
        newest: dict[Hashable, RowMapping] = {}
        for row in session.execute(statement.order_by(self._row.number)).mappings():
            key = (self._subject(row), row["expert"])
            newest.pop(key, None)  # a dictionary keeps the place where the key last was missing
            newest[key] = row
        return [self._record(**row) for row in newest.values()]


DESCRIPTIONS = Judgements(
    MergedDescription,
    MergedDescriptionRow,
    MergedDescriptionRow.description_id,
    subject=lambda row: row["image_id"],
)
PREFERENCES = Judgements(
    Preference,
    PreferenceRow,
    PreferenceRow.preference_id,
    subject=lambda row: frozenset((row["preferred"], row["other"])),
)
