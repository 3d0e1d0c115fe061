"""From a stored reply to what an image shows. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from core.errors import DataError
from core.records import TeacherReply
from core.topics import Topic, topic_among
from generation.parse import check_whole, read_json, shorten


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    topic: str


def parse_topic(reply: TeacherReply, *, topics: Sequence[Topic]) -> Topic:
    """The topic that a reply names; raises DataError with the reason."""
    check_whole(reply)
    said = read_json(reply.content or "", _Reply).topic
    topic = topic_among(topics, {reply.model: said})
    if topic is None:
        raise DataError(f"unknown topic: {shorten(said)}")
    return topic
