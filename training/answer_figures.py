"""Figures of answers in words: verdicts by word, texts, marks of a judge. Pure.

The protocols are FakeBench's (IEEE TIFS 2025) and that of FakeVLM's FakeClue (arXiv 2503.14905).
An answer without a verdict counts as wrong and is reported as a rate; it is never guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from core.records import Authenticity
from training.answers import DETECTION, Answered, Question
from training.text_metrics import (
    Embed,
    TextScores,
    TextSettings,
    automatic_average,
    mean_of,
    overall_average,
    score_texts,
)
from training.verdicts import read_verdict, read_yes_or_no

VERDICT_AXES: Final = (DETECTION, "explanation")
"""whose answers state a verdict"""
WHAT, YES_NO = "what", "yes-no"
FAKE, REAL = Authenticity.FAKE, Authenticity.REAL

Decide = Callable[[Answered], Authenticity | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How many of some questions were answered right."""

    by: str
    """what they have in common: `label`, `question`, `generator` or `topic`"""
    name: str
    questions: int
    right: int
    unanswered: int
    """without a verdict, or without any answer"""

    @property
    def accuracy(self) -> float:
        return self.right / self.questions


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictFigures:
    """Verdicts that replies state in words."""

    questions: int
    accuracy: float
    balanced: float | None
    """mean of the accuracy on fakes and on photographs; None: there is one class only"""
    f1_fake: float
    f1_real: float
    f1_macro: float
    unanswered: float
    """share of the questions; they count as wrong"""
    majority: float
    """accuracy of who always says what is more frequent"""
    shares: tuple[Share, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """A judge's marks from 0 to 2, or the mean of many."""

    completeness: float
    preciseness: float
    relevance: float

    @property
    def average(self) -> float:
        return (self.completeness + self.preciseness + self.relevance) / 3


@dataclass(frozen=True, slots=True, kw_only=True)
class AxisFigures:
    """The texts of one axis against what was expected."""

    axis: str
    questions: int
    compared: int
    """with something expected; without an answer they score 0"""
    scores: TextScores | None
    """None: nothing could be compared"""
    automatic: float | None
    judged: int
    marks: Marks | None
    overall: float | None
    """FakeBench's; None without a similarity or without marks"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFigures:
    """All that can be said of the answers to one benchmark."""

    questions: int
    answered: int
    verdicts: VerdictFigures | None
    """None: no question asks for one"""
    axes: tuple[AxisFigures, ...]
    how: str
    """libraries and settings of the text scores"""


def tried(answers: Sequence[Answered]) -> list[Answered]:
    """Those of an axis in which anything was answered."""
    axes = {each.question.axis for each in answers if each.reply is not None}
    return [each for each in answers if each.question.axis in axes]


def measure_answers(
    answers: Sequence[Answered],
    settings: TextSettings,
    *,
    embed: Embed | None = None,
    marks: Mapping[tuple[str, str], Marks] | None = None,
) -> AnswerFigures:
    """Figures by axis, where no answer is a wrong one; `marks` by image and key of a question."""
    deciding = [each for each in answers if each.question.axis in VERDICT_AXES]
    labelled = [each for each in deciding if each.question.label is not None]
    wordy = dict.fromkeys(each.question.axis for each in answers if each.question.is_open_ended)
    return AnswerFigures(
        questions=len(answers),
        answered=sum(each.reply is not None for each in answers),
        verdicts=measure_verdicts(labelled) if labelled else None,
        axes=tuple(
            _measure_axis(
                axis, [a for a in answers if a.question.axis == axis], settings, embed, marks or {}
            )
            for axis in wordy
        ),
        how=settings.describe(),
    )


# Verdicts


def kind_of(question: Question) -> str:
    """Whether a question offers fake and real, or yes and no; by its reference, else its words."""
    if question.reference is not None and read_yes_or_no(question.reference) is not None:
        return YES_NO
    return WHAT


def decide(answered: Answered) -> Authenticity | None:
    """The verdict of a reply; a yes or no means what the question's own answer says it means."""
    question, reply = answered.question, answered.reply or ""
    if kind_of(question) == WHAT:
        return read_verdict(reply)
    said = read_yes_or_no(reply)
    expected = read_yes_or_no(question.reference or "")
    if said is None or question.label is None:
        return None
    return question.label if said is expected else question.label.opposite


def measure_verdicts(answers: Sequence[Answered]) -> VerdictFigures:
    """Accuracy and F1 over labelled questions, at least one, and their shares."""
    decided = [(each.question, decide(each)) for each in answers]
    labels = Counter(question.label for question, _ in decided)
    accuracies = [
        fmean(verdict is label for question, verdict in decided if question.label is label)
        for label in (FAKE, REAL)
        if labels[label]
    ]
    return VerdictFigures(
        questions=len(decided),
        accuracy=fmean(verdict is question.label for question, verdict in decided),
        balanced=fmean(accuracies) if len(accuracies) == 2 else None,
        f1_fake=_f1(decided, FAKE),
        f1_real=_f1(decided, REAL),
        f1_macro=fmean(_f1(decided, label) for label in (FAKE, REAL)),
        unanswered=fmean(verdict is None for _, verdict in decided),
        majority=max(labels.values()) / len(decided),
        shares=tuple(_shares(decided)),
    )


Decided = Sequence[tuple[Question, Authenticity | None]]


def _f1(decided: Decided, label: Authenticity) -> float:
    right = sum(question.label is verdict is label for question, verdict in decided)
    there = sum(question.label is label for question, _ in decided)
    said = sum(verdict is label for _, verdict in decided)
    return 2 * right / (there + said) if there + said else 0.0


def _shares(decided: Decided) -> list[Share]:
    names: dict[str, Callable[[Question], str | None]] = {
        "label": lambda question: str(question.label),
        "question": kind_of,
        "generator": lambda question: question.generator,
        "topic": lambda question: question.topic,
    }
    shares = []
    for by, name_of in names.items():
        parts: dict[str, list[tuple[Question, Authenticity | None]]] = {}
        for question, verdict in decided:
            name = name_of(question)
            if name is not None:
                parts.setdefault(name, []).append((question, verdict))
        shares += [_share(by, name, parts[name]) for name in sorted(parts)]
    return shares


def _share(by: str, name: str, decided: Decided) -> Share:
    return Share(
        by=by,
        name=name,
        questions=len(decided),
        right=sum(verdict is question.label for question, verdict in decided),
        unanswered=sum(verdict is None for _, verdict in decided),
    )


# Texts


def _measure_axis(
    axis: str,
    answers: Sequence[Answered],
    settings: TextSettings,
    embed: Embed | None,
    marks: Mapping[tuple[str, str], Marks],
) -> AxisFigures:
    pairs = [
        (each.reply or "", each.question.reference)
        for each in answers
        if each.question.reference is not None
    ]
    keys = [(each.question.image, each.question.key) for each in answers]
    own = [marks[key] for key in keys if key in marks]
    scores = mean_of(score_texts(pairs, settings, embed)) if pairs else None
    automatic = automatic_average(scores) if scores else None
    mean = mean_marks(own) if own else None
    return AxisFigures(
        axis=axis,
        questions=len(answers),
        compared=len(pairs),
        scores=scores,
        automatic=automatic,
        judged=len(own),
        marks=mean,
        overall=None
        if automatic is None or mean is None
        else overall_average(automatic, mean.average),
    )


def mean_marks(marks: Sequence[Marks]) -> Marks:
    """Plain mean of at least one."""
    return Marks(
        completeness=fmean(each.completeness for each in marks),
        preciseness=fmean(each.preciseness for each in marks),
        relevance=fmean(each.relevance for each in marks),
    )
