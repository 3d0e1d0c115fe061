"""Patterns as columns: each is a run of pieces, literal texts and slots in turn. Pure.

So many texts of many patterns are put together at once: one array says which pieces follow one
another, and every slot is looked up once for all texts that have it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from instruct_builder.columns import Places, Positions, Wholes
from instruct_builder.forms import Form
from instruct_builder.patterns import Pattern

EMPTY = 0
"""the piece that says nothing"""


@dataclass(frozen=True)
class Pieces:
    """The pieces of all patterns of some forms."""

    literals: pa.Array
    """by piece"""
    slots: tuple[str, ...]
    """by ~piece: those of slots are below 0"""
    first_question: Positions
    """of each form, among the patterns; follow-ups come after its other questions"""
    first_answer: Positions
    names: pa.Array
    """of each pattern: `form/q01`, or, of an answer, `/a01`"""
    starts: Positions
    """(patterns + 1): where each begins in `piece`"""
    piece: Places

    def of_texts(self, patterns: Positions) -> tuple[Places, Places]:
        """Where each text begins and the last ends (texts + 1), and the pieces of all of them."""
        first = self.starts[patterns]
        lengths = self.starts[patterns + 1] - first
        begins = np.concatenate([[0], np.cumsum(lengths)])
        at = np.repeat(first - begins[:-1], lengths)
        at += np.arange(len(at))
        return begins.astype(np.int32), self.piece[at]

    def slots_among(self, piece: Places) -> Iterator[tuple[str, Positions]]:
        """Each slot that is among some pieces, and where."""
        at = np.flatnonzero(piece < 0)
        slot = ~piece[at]
        at = at[np.argsort(slot.astype(np.uint16), kind="stable")]
        ends = np.cumsum(np.bincount(slot, minlength=len(self.slots)))
        for name, places in zip(self.slots, np.split(at, ends[:-1]), strict=True):
            if len(places):
                yield name, places


def pieces_of(forms: Sequence[tuple[str, Form]]) -> Pieces:
    """The patterns of some forms, by name; questions and answers."""
    literals, slots = {"": EMPTY}, dict[str, int]()
    runs: list[list[int]] = []
    names: list[str] = []
    first_question, first_answer = [], []
    for name, form in forms:
        questions = (*form.question_patterns, *form.follow_up_patterns)
        answers = [pattern for _, pattern in form.answer_patterns]
        first_question.append(len(runs))
        first_answer.append(len(runs) + len(questions))
        runs += [_run(pattern, literals, slots) for pattern in (*questions, *answers)]
        names += [f"{name}/q{number:02d}" for number in range(1, len(questions) + 1)]
        names += [f"/a{number:02d}" for number in range(1, len(answers) + 1)]
    return Pieces(
        literals=pa.array(list(literals), pa.string()),
        slots=tuple(slots),
        first_question=np.array(first_question),
        first_answer=np.array(first_answer),
        names=pa.array(names, pa.string()),
        starts=np.cumsum([0, *map(len, runs)]),
        piece=np.array([piece for run in runs for piece in run], dtype=np.int32),
    )


def _run(pattern: Pattern, literals: dict[str, int], slots: dict[str, int]) -> list[int]:
    run = []
    for literal, slot in pattern.parts:
        if literal:
            run.append(literals.setdefault(literal, len(literals)))
        if slot is not None:
            run.append(~slots.setdefault(slot, len(slots)))
    return run


def distinct(codes: Wholes, number: int) -> tuple[Positions, Positions]:
    """The codes, all from 0 to below `number`, that occur, and for each entry which of them."""
    found = np.flatnonzero(np.bincount(codes, minlength=number))
    place = np.empty(number, dtype=np.int64)
    place[found] = np.arange(len(found))
    return found, place[codes]
