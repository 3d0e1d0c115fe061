"""How the rehearsal teacher words what several teachers agree on: it takes their own words.

Of each point it repeats what the first of them said; the conclusion names the points. No language
model is at work.
"""

from __future__ import annotations

import json
from typing import Any

from core.errors import DataError
from teacher.conclusions import join_names
from teacher.request import reply_keys

REPLY_KEYS = ("findings", "conclusion")


def is_merging(reply_schema: str) -> bool:
    """Whether a request asks to word kept points: its reply has these keys and no other."""
    return reply_keys(reply_schema) == REPLY_KEYS


def merge(question: str) -> str:
    """The reply, as JSON, to the task that stands in a question as JSON."""
    opening, points = _read_task(question)
    findings = [
        {
            "category": point["category"],
            "points_to": point["points_to"],
            "evidence": point["said"][0],
        }
        for point in points
    ]
    names = join_names([point["name"] for point in points])
    seen = f"The evidence lies in {names}." if names else "Nothing visible bears it out."
    return json.dumps({"findings": findings, "conclusion": f"{opening} {seen}"}, ensure_ascii=False)


def _read_task(question: str) -> tuple[str, list[dict[str, Any]]]:
    try:
        task, _ = json.JSONDecoder().raw_decode(question, question.index("{"))
        points = [
            {
                **{name: str(point[name]) for name in ("category", "name", "points_to")},
                "said": [str(text) for text in point["said"]],
            }
            for point in task["points"]
        ]
        if not all(point["said"] for point in points):
            raise ValueError("a point that nobody raised")
        return str(task["opening"]), points
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the request holds no points to word: {error}") from None
