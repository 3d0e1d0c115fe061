"""Marks of a judge, a model behind an endpoint, for answers in words: 0 to 2 in three respects.

The judge sees one question, the expected answer and one answer at a time, never who wrote it; which
of both stands first changes from round to round, and requests leave in an order that says nothing.
FakeBench publishes neither its judge nor its prompt: marks of different judges do not compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from core.errors import DataError
from core.ids import canonical_json, sha256_text, unit_interval
from core.records import TeacherReply, TeacherRequest
from teacher.request import schema_text
from training.answer_figures import Marks, mean_marks
from training.answers import Answered
from training.endpoint import TEMPERATURE, Connection, Endpoint, connect, read_object

MARKS: Final = ("completeness", "preciseness", "relevance")
SCHEMA: Final = {
    "type": "object",
    "properties": {name: {"type": "integer", "enum": [0, 1, 2]} for name in MARKS},
    "required": list(MARKS),
    "additionalProperties": False,
}
Key = tuple[str, str]
"""image and key of a question"""
NOTHING: Final = Marks(completeness=0, preciseness=0, relevance=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Who marks, and how often each answer."""

    endpoint: Endpoint
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """What a judge has done."""

    judge: str
    simulated: bool
    """marks by counted words, not by a model"""
    rounds: int
    marked: int
    """answers"""
    failed: int
    """requests without a usable reply; their rounds are left out"""
    usd: float
    instructions: str


def judge_answers(
    answers: Sequence[Answered], judge: Judge, folder: Path
) -> tuple[dict[Key, Marks], Judging]:
    """Mean marks of every answer that has something to be compared with, and how they came about.

    No answer has marks of 0 without asking. `folder` keeps the ledger.
    """
    judged = [each for each in answers if each.question.is_open_ended and each.question.reference]
    silent = {_key(each): NOTHING for each in judged if not each.reply}
    with connect(judge.endpoint, folder) as connection:
        marks, failed = _mark_all([a for a in judged if a.reply], connection, judge.rounds)
        usd, instructions = connection.ledger.committed_usd, connection.prompts.judging
    return marks | silent, Judging(
        judge=judge.endpoint.name,
        simulated=judge.endpoint.is_simulated,
        rounds=judge.rounds,
        marked=len(marks),
        failed=failed,
        usd=usd,
        instructions=instructions,
    )


def _mark_all(
    answers: Sequence[Answered], connection: Connection, rounds: int
) -> tuple[dict[Key, Marks], int]:
    """Mean marks, and how many requests brought none."""
    asked = sorted(
        ((each, number) for each in answers for number in range(rounds)),
        key=lambda pair: _place(*pair),
    )
    found = connection.ask_all([partial(_ask, connection, *pair) for pair in asked])
    marks: dict[Key, list[Marks]] = {}
    for (each, _), outcome in zip(asked, found, strict=True):
        if not isinstance(outcome, DataError):
            marks.setdefault(_key(each), []).append(outcome)
    failed = sum(isinstance(each, DataError) for each in found)
    return {key: mean_marks(own) for key, own in marks.items()}, failed


def _key(answered: Answered) -> Key:
    return answered.question.image, answered.question.key


def _place(answered: Answered, number: int) -> str:
    return sha256_text(canonical_json([*_key(answered), number]))


def _ask(connection: Connection, answered: Answered, number: int) -> Marks:
    request = TeacherRequest(
        model=connection.endpoint.model,
        instructions=connection.prompts.judging,
        question=json.dumps(_task(answered, number), ensure_ascii=False, indent=1),
        pictures=(),
        reply_schema=schema_text(SCHEMA),
        temperature=TEMPERATURE,
        max_output_tokens=1000,
    )
    about = f"{answered.question.image} {answered.question.key}"
    return connection.ask(request, about=about, arm="judging", parse=read_marks)


def _task(answered: Answered, number: int) -> Mapping[str, Any]:
    """What the judge reads; the round makes it another request than the last one."""
    parts = {"reference": answered.question.reference, "answer": answered.reply}
    starts = int(unit_interval("first", *_key(answered)) < 0.5)
    names = ("reference", "answer") if (number + starts) % 2 else ("answer", "reference")
    task = {"round": number + 1, "question": answered.question.text}
    return task | {name: parts[name] for name in names}


def read_marks(reply: TeacherReply) -> Marks:
    """DataError when a mark is missing, or is none of 0, 1 and 2."""
    value = read_object(reply)
    if any(type(value.get(name)) is not int or value[name] not in (0, 1, 2) for name in MARKS):
        raise DataError("a mark is none of 0, 1 and 2")
    return Marks(**{name: value[name] for name in MARKS})
