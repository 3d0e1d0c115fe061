"""What images show, in one word, by who said it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from core.records import ImageTopic
from db.statements import batches, insert_into
from db.tables import TopicRow, table_of


def save_topics(session: Session, topics: Sequence[ImageTopic]) -> None:
    """Store what was said; somebody's later word on an image takes the place of the earlier one."""
    if not topics:
        return
    statement = insert_into(session, table_of(TopicRow))
    newest = {"topic": statement.excluded["topic"]}
    session.connection().execute(
        statement.on_conflict_do_update(index_elements=["image_id", "said_by"], set_=newest),
        [asdict(topic) for topic in topics],
    )


def topics_among(session: Session, image_ids: Sequence[str]) -> Mapping[str, Mapping[str, str]]:
    """What these images show, by image id and by who said it; nothing of whom nobody spoke."""
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for batch in batches(list(image_ids)):
        statement = select(TopicRow).where(TopicRow.image_id.in_(batch))
        for row in session.scalars(statement):
            said[row.image_id][row.said_by] = row.topic
    return said
