"""What teachers were told beside pictures, each text once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict
from functools import lru_cache

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.records import RequestText
from db.engine import Database
from db.statements import batches, insert_missing
from db.tables import RequestTextRow, table_of

TEXTS = table_of(RequestTextRow)


@lru_cache(maxsize=1024)
def keep_request_text(database: Database, text: RequestText) -> None:
    """Store a text; this process asks the database about each of them once."""
    with database.write() as session:
        insert_missing(session, TEXTS, [asdict(text)])


def request_texts(session: Session, text_ids: Collection[str]) -> dict[str, RequestText]:
    """The texts of these ids, by id."""
    found: dict[str, RequestText] = {}
    for batch in batches(sorted(text_ids)):
        rows = session.execute(select(*TEXTS.columns).where(TEXTS.c.text_id.in_(batch))).mappings()
        found.update({row["text_id"]: RequestText(**row) for row in rows})
    return found
