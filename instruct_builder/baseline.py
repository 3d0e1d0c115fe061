"""The text-only baseline: a check that no answer can be told from the words before it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.records import Authenticity
from instruct_builder.checks import Figures
from instruct_builder.patterns import YES
from instruct_builder.questions import VerdictQuestions
from instruct_builder.templates import Form, Templates
from instruct_builder.text_score import NoScore, TextScore, score_texts
from instruct_builder.turns import whole

OPTION = re.compile(r"^([A-D])\. (.+)$", re.MULTILINE)
ALONE, AMONG = "each option", "option in its question"
"""what the classifier sees of a choice"""
REMEDY = {
    "verdict": "word the questions so that they lean to neither side",
    "yes_no": "ask of each aspect as often where the answer is no (`absent: matched`)",
    "choice": "ask less about aspects that are rarely a wrong option",
    "choices": "ask less about aspects that are rarely a wrong option",
    "open": "let nothing before the verdict question depend on the label",
}


@dataclass(slots=True)
class _Trials:
    """What the classifier is to tell: one entry per row, or per option of a choice."""

    remedy: str
    texts: list[pa.Array] = field(default_factory=list)
    truths: list[Any] = field(default_factory=list)
    images: list[pa.Array] = field(default_factory=list)

    def add(self, texts: pa.Array, truths: pa.Array, images: pa.Array) -> None:
        self.texts.append(texts)
        self.truths.append(truths.to_numpy(zero_copy_only=False))
        self.images.append(images)


class TextBaseline:
    """AUC with an interval for every closed answer, from the text that stands before it.

    The intervals hold together in 95 % of the cases.

    Verdict and yes-no forms, open forms that ask for the verdict, and dialogues that do: from all
    that was said up to the question, in dialogues to the label. Choices: for each option whether it
    is right, from the option alone, and from the option in its question. Forms that state the
    verdict are exempt.
    """

    name = "text_only"
    says = "no answer can be told from the text before it by a classifier that sees no image"

    def __init__(
        self, templates: Templates, component_of: Mapping[str, str], *, most_auc: float
    ) -> None:
        """`component_of`: by image id, what a split keeps together."""
        self._most_auc = most_auc
        self._forms = {name: form for _, name, form in templates.forms() if _is_tested(form)}
        self._exempt = sum(form.states_verdict for _, _, form in templates.forms())
        self._dialogues = [name for _, name, _ in templates.dialogues()]
        self._verdicts = VerdictQuestions(templates)
        self._image_ids = pa.array(list(component_of), type=pa.string())
        _, self._components = np.unique(list(component_of.values()), return_inverse=True)
        self._trials: dict[str, _Trials] = {}

    def see_rows(self, table: pa.Table) -> None:
        """Take the text before each closed answer, and the answer."""
        for name in pc.unique(table.column("form")).to_pylist():
            rows = table.filter(pc.equal(table.column("form"), name))
            if name in self._dialogues:
                self._see_dialogues(name, rows)
            elif name in self._forms:
                self._see_form(name, self._forms[name], rows)

    def _see_form(self, name: str, form: Form, rows: pa.Table) -> None:
        if form.is_choice:
            self._see_choices(name, form, rows)
            return
        column, truth = ("target", YES) if form.answer == "yes_no" else ("label", Authenticity.FAKE)
        questions = pc.struct_field(pc.list_element(rows.column("messages"), 0), "content")
        truths = pc.equal(rows.column(column), str(truth))
        self._add(name, form.answer, questions, truths, rows.column("image_id"))

    def _see_choices(self, name: str, form: Form, rows: pa.Table) -> None:
        shown = [
            (option, row["image_id"])
            for row in rows.select(("messages", "target", "image_id")).to_pylist()
            for option in read_options(row["messages"][0]["content"], row["target"])
        ]
        truths = pa.array([option.is_right for option, _ in shown], type=pa.bool_())
        images = pa.array([image_id for _, image_id in shown], type=pa.string())
        for seen, texts in (
            (ALONE, [option.alone for option, _ in shown]),
            (AMONG, [option.among for option, _ in shown]),
        ):
            texts_column = pa.array(texts, type=pa.string())
            self._add(f"{name}, {seen}", form.answer, texts_column, truths, images)

    def _see_dialogues(self, name: str, rows: pa.Table) -> None:
        """Up to the question for the verdict; dialogues without one have no closed answer."""
        before = []
        for row in rows.select(("messages", "label", "image_id")).to_pylist():
            turns = [turn["content"] for turn in row["messages"]]
            for place in self._verdicts.asked_at(turns[::2])[:1]:
                said = "\n".join(turns[: 2 * place + 1])
                before.append((said, row["label"] == Authenticity.FAKE, row["image_id"]))
        if not before:
            return
        texts, truths, images = zip(*before, strict=True)
        self._add(
            name,
            "open",
            pa.array(texts, type=pa.string()),
            pa.array(truths, type=pa.bool_()),
            pa.array(images, type=pa.string()),
        )

    def _add(self, name: str, answer: str, texts: Any, truths: Any, images: Any) -> None:
        columns = (whole(column) for column in (texts, truths, images))
        self._trials.setdefault(name, _Trials(REMEDY[answer])).add(*columns)

    @cached_property
    def _scores(self) -> Mapping[str, TextScore | NoScore]:
        return {name: self._score(trials) for name, trials in sorted(self._trials.items())}

    def _score(self, trials: _Trials) -> TextScore | NoScore:
        places = pc.index_in(pa.concat_arrays(trials.images), value_set=self._image_ids)
        return score_texts(
            pa.concat_arrays(trials.texts),
            np.concatenate(trials.truths),
            self._components[places.to_numpy()],
        )

    def figures(self) -> Figures:
        """AUC and interval of each form, to four decimals, or why there is none."""
        figures: Figures = {"threshold": self._most_auc, "exempt_forms": self._exempt}
        for name, score in self._scores.items():
            if isinstance(score, NoScore):
                figures[name] = score.reason
            else:
                low, high = self._interval(score)
                figures[f"{name}: rows"] = score.rows
                for key, value in (("auc", score.auc), ("low", low), ("high", high)):
                    figures[f"{name}: {key}"] = round(value, 4)
        return figures

    def failures(self) -> list[str]:
        """Forms whose interval lies above the threshold, with the remedy."""
        found = []
        for name, score in self._scores.items():
            if isinstance(score, NoScore):
                continue
            low, high = self._interval(score)
            if low > self._most_auc:
                found.append(
                    f"form {name}: AUC {score.auc:.3f}, 95 % interval {low:.3f} to {high:.3f}, "
                    f"threshold {self._most_auc:g}; {self._trials[name].remedy}"
                )
        return found

    def _interval(self, score: TextScore) -> tuple[float, float]:
        """Of 100 honest sets, 95 have every figure of theirs in its interval."""
        scored = sum(isinstance(other, TextScore) for other in self._scores.values())
        return score.interval(among=scored)


@dataclass(frozen=True, slots=True)
class ShownOption:
    """One option of a choice as the classifier reads it."""

    alone: str
    """its words and where it stands"""
    among: str
    """the same, and, marked as such, the words of the question and of the other options"""
    is_right: bool


def read_options(question: str, target: str) -> Iterator[ShownOption]:
    """The options of a question; `target` names the right ones: `C`, or `A and C`."""
    options = OPTION.findall(question)
    stem = [f"asked:{word}" for word in question.partition("\nA. ")[0].lower().split()]
    right = set(re.findall(r"\b[A-D]\b", target))
    for letter, name in options:
        alone = f"{name.lower()} at:{letter}"
        others = [
            f"beside:{word}" for other, text in options if other != letter for word in _words(text)
        ]
        yield ShownOption(alone, " ".join([alone, *stem, *others]), letter in right)


def _words(text: str) -> Sequence[str]:
    return text.lower().split()


def _is_tested(form: Form) -> bool:
    return (form.answer != "open" or form.wants_verdict) and not form.states_verdict
