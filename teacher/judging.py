"""How the rehearsal teacher marks answers: by shared words. No language model is at work.

Completeness: which share of the words of the reference the answer has. Preciseness: which share of
the words of the answer the reference has. Relevance: which share of the words of the answer the
question or the reference has. Words have four letters or more. A share of 0.5 earns 2, one of 0.2
earns 1, less earns 0; an answer without words earns 0 throughout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Set
from typing import Any

from core.errors import DataError
from teacher.request import reply_keys

REPLY_KEYS = ("completeness", "preciseness", "relevance")
FULL, HALF = 0.5, 0.2
LEAST_LETTERS = 4


def is_judging(reply_schema: str) -> bool:
    """Whether a request asks for marks: its reply has these keys and no other."""
    return reply_keys(reply_schema) == REPLY_KEYS


def judge(question: str) -> str:
    """The marks, as JSON, for the task that stands in a question as JSON."""
    task = _read_task(question)
    answer, reference = _words(task["answer"]), _words(task["reference"])
    asked = _words(task["question"])
    marks = (
        _mark(answer, of=reference),
        _mark(reference, of=answer),
        _mark(asked | reference, of=answer),
    )
    return json.dumps(dict(zip(REPLY_KEYS, marks if answer else (0, 0, 0), strict=True)))


def _read_task(question: str) -> dict[str, str]:
    try:
        task: Any
        task, _ = json.JSONDecoder().raw_decode(question, question.index("{"))
        return {name: str(task[name]) for name in ("question", "reference", "answer")}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"the request holds no answer to judge: {error}") from None


def _words(text: str) -> Set[str]:
    return set(re.findall(rf"\w{{{LEAST_LETTERS},}}", text.lower()))


def _mark(there: Set[str], *, of: Set[str]) -> int:
    share = len(there & of) / len(of) if of else 0.0
    return 2 if share >= FULL else 1 if share >= HALF else 0
