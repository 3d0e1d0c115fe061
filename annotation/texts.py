"""A reasoning as plain text, as experts read it beside a picture."""

from __future__ import annotations

from core.records import Reasoning
from core.sentences import as_sentences


def description_of(reasoning: Reasoning) -> str:
    """The verdict, then *because*, one numbered point for each trace, and the conclusion.

    Every teacher's reasoning is put the same way, so that the way tells nothing of the teacher.
    """
    points = [as_sentences(finding.evidence) for finding in reasoning.supporting()]
    opening = f"This image is {reasoning.verdict}, "
    opening += "because:" if points else "although nothing visible shows it."
    numbered = [f"{number}. {point}" for number, point in enumerate(points, start=1)]
    return "\n".join(filter(None, [opening, *numbered, as_sentences(reasoning.conclusion)]))
