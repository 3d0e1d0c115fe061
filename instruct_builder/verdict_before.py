"""A check of dialogues: none asks for a verdict that one of its earlier turns has stated.

Templates that would do so are refused when the recipe is read; this looks at the rows, by the forms
that their turns name and by their words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from instruct_builder.checks import Figures
from instruct_builder.questions import VerdictQuestions
from instruct_builder.templates import Templates

STATED: Final = re.compile(
    r"^(?:fake|real|yes|no)\b"
    r"|\bverdict(?: is|:) (?:fake|real)\b"
    r"|\b(?:image|picture|it|this|that) (?:is|was|has been|to be) (?:(?:indeed|clearly|a|an) )*"
    r"(?:fake|real|generated|AI-generated|authentic|genuine|photograph)\b(?! or\b)",
    re.IGNORECASE,
)
"""words in which an answer states a verdict; `whether it is real or fake` states none"""


class VerdictBefore:
    """Dialogues in which the verdict stands before the turn that asks for it, or is asked twice."""

    name = "verdict_before"
    says = "no dialogue asks for a verdict that an earlier turn has stated"

    def __init__(self, templates: Templates, *, most_share: float) -> None:
        self._forms = {name: form for _, name, form in templates.forms()}
        self._questions = VerdictQuestions(templates)
        self._most_share = most_share
        self._dialogues = self._asking = 0
        self._stated: list[str] = []

    def see_rows(self, table: pa.Table) -> None:
        """Look at the rows with more than one question."""
        turns = pc.list_value_length(table["messages"])
        rows = table.select(["instruction_id", "form", "template_id", "messages"])
        for row in rows.filter(pc.greater(turns, 2)).to_pylist():
            self._see(row)

    def _see(self, row: Mapping[str, Any]) -> None:
        texts = [turn["content"] for turn in row["messages"]]
        asked_at = self._questions.asked_at(texts[::2])
        self._dialogues += 1
        self._asking += bool(asked_at)
        if asked_at and self._is_stated(row["template_id"], texts[: 2 * asked_at[-1]]):
            self._stated.append(f"instruction {row['instruction_id']} of {row['form']}")

    def _is_stated(self, template_id: str, before: Sequence[str]) -> bool:
        """Whether the turns before the last question for the verdict have stated it."""
        names = [turn.partition("/")[0] for turn in template_id.split()][: len(before) // 2]
        known = [self._forms[name] for name in names if name in self._forms]
        asked_twice = bool(self._questions.asked_at(before[::2]))
        by_form = any(form.gives_verdict_away for form in known)
        return asked_twice or by_form or any(STATED.search(answer) for answer in before[1::2])

    def figures(self) -> Figures:
        """Dialogues that were read, that ask for a verdict, and that have stated it before."""
        return {
            "dialogues": self._dialogues,
            "asking": self._asking,
            "stated_before": len(self._stated),
            "threshold": self._most_share,
        }

    def failures(self) -> list[str]:
        """The dialogues, where they are more than may be."""
        return self._stated if len(self._stated) > self._most_share * self._asking else []
