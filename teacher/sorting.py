"""How the rehearsal teacher says what an image shows: by stated rules about what it measures.

Nothing is recognised. The first rule of the recipe whose figures lie within their bounds names the
topic; the last one has no bounds.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from pydantic import Field

from core.errors import ConfigError, DataError
from core.recipe import Strict
from teacher.findings import Bound
from teacher.request import reply_keys

REPLY_KEYS = ("topic",)


class TopicRule(Strict):
    """Which topic an image is said to have when its figures lie within these bounds."""

    topic: str
    when: dict[str, Bound] = Field(default_factory=dict)

    def holds(self, figures: Mapping[str, float]) -> bool:
        return all(bound.holds(figures[name]) for name, bound in self.when.items())


def check_topic_rules(rules: Sequence[TopicRule], *, figures: Collection[str], where: str) -> None:
    """ConfigError for a figure that nobody measures, and where some image would get no topic."""
    unknown = sorted({name for rule in rules for name in rule.when} - set(figures))
    if unknown:
        raise ConfigError(
            f"{where}: no figure {', '.join(unknown)}; there are: {', '.join(figures)}"
        )
    if rules and rules[-1].when:
        raise ConfigError(f"{where}: the last rule must hold always, without `when`")


def is_sorting(reply_schema: str) -> bool:
    """Whether a request asks for the topic of an image: its reply has no other key."""
    return reply_keys(reply_schema) == REPLY_KEYS


def sort(figures: Mapping[str, float], rules: Sequence[TopicRule]) -> str:
    """The topic, as JSON."""
    for rule in rules:
        if rule.holds(figures):
            return json.dumps({"topic": rule.topic})
    raise DataError("this teacher has no rules for topics")
