"""What an image shows, and which traces are then looked for: read from a recipe's `topics.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from core.records import Authenticity
from core.taxonomy import Taxonomy, TraceCategory

COLLECTION = "collection"
"""who said it: the table that an image came with"""

Points = Annotated[dict[str, str], Field(min_length=1)]
"""what to inspect, by trace category, in their order"""


class Topic(BaseModel):
    """One kind of image, with the points to inspect in fakes and in photographs of that kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str
    definition: str
    also: tuple[str, ...] = ()
    """other names that collections have for it"""
    fake: Points
    real: Points

    def points(self, label: Authenticity) -> Mapping[str, str]:
        return self.fake if label is Authenticity.FAKE else self.real

    def taxonomy(self, whole: Taxonomy, label: Authenticity | None) -> Taxonomy:
        """The categories to inspect; of both lists where the label is not told."""
        hints = {side: self.points(side) for side in Authenticity}
        names = [*hints[label]] if label else list(dict.fromkeys([*self.fake, *self.real]))
        return Taxonomy(categories=tuple(_for_topic(whole[name], hints) for name in names))


def _for_topic(
    category: TraceCategory, hints: Mapping[Authenticity, Mapping[str, str]]
) -> TraceCategory:
    return category.model_copy(
        update={
            f"{side.value}_hint": hints[side][category.id]
            for side in Authenticity
            if category.id in hints[side]
        }
    )


class Topics(BaseModel):
    """`topics.yaml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topics: tuple[Topic, ...] = Field(min_length=1)

    @field_validator("topics")
    @classmethod
    def _names_differ(cls, topics: tuple[Topic, ...]) -> tuple[Topic, ...]:
        names = [name for topic in topics for name in (topic.id, *topic.also)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names of topics must differ: {', '.join(twice)}")
        return topics


def topic_among(topics: Sequence[Topic], said: Mapping[str, str]) -> Topic | None:
    """What an image shows, by who said it: the collection's word counts most.

    None where nobody named one of these topics.
    """
    named = {name: topic for topic in topics for name in (topic.id, *topic.also)}
    for who in sorted(said, key=lambda who: (who != COLLECTION, who)):
        if (topic := named.get(said[who].strip().lower())) is not None:
            return topic
    return None
