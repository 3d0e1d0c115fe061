"""Which form asked a question, read back from its text: what a check may know of a dialogue."""

from __future__ import annotations

import re
from collections.abc import Sequence

from instruct_builder.forms import Form
from instruct_builder.patterns import Pattern
from instruct_builder.templates import Templates


class VerdictQuestions:
    """Finds the turns that ask for the verdict."""

    def __init__(self, templates: Templates) -> None:
        forms = [form for _, _, form in templates.forms()]
        self._asking = _Texts([form for form in forms if form.wants_verdict])

    def asked_at(self, questions: Sequence[str]) -> list[int]:
        """The places, from 0, of the questions that ask whether the image is real."""
        return [place for place, text in enumerate(questions) if text in self._asking]


class _Texts:
    """The questions that some forms can ask, with anything in their slots."""

    def __init__(self, forms: Sequence[Form]) -> None:
        patterns = [
            p for form in forms for p in (*form.question_patterns, *form.follow_up_patterns)
        ]
        self._plain = frozenset(pattern.text for pattern in patterns if not pattern.slots)
        self._slotted = [_matching(pattern) for pattern in patterns if pattern.slots]

    def __contains__(self, text: str) -> bool:
        return text in self._plain or any(pattern.fullmatch(text) for pattern in self._slotted)


def _matching(pattern: Pattern) -> re.Pattern[str]:
    parts = (
        re.escape(literal) + ("" if slot is None else ".+?") for literal, slot in pattern.parts
    )
    return re.compile("".join(parts), re.DOTALL)
