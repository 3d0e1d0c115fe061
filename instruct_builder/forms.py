"""Forms: what a kind of instruction may ask, what it answers in which case, which slots are filled.

All of it is checked here once, when the recipe is read, so that no chain can meet a form without a
fitting answer, a closed answer that contradicts the label, or an empty slot.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from core.recipe import Strict
from core.records import Authenticity, Confidence
from instruct_builder.patterns import LETTERS, NO, PHRASES, YES, Pattern, parse_pattern

Scope = Literal["image", "aspect", "region", "pair"]
Answering = Literal["open", "verdict", "yes_no", "choice", "choices"]
Presence = Literal["present", "absent"]

_VERDICT_SLOTS = frozenset({"verdict", "Verdict"})
_NEXT_SLOTS = frozenset(
    f"{prefix}_{slot}"
    for prefix in ("next", "other")
    for slot in ("aspect", "fake_signs", "real_signs")
)
_FINDING_SLOTS = frozenset(
    {
        "findings",
        "numbered",
        "aspects",
        "main_evidence",
        "reason",
        "image_advice",
        "generation_advice",
    }
)
_UNSURE_SLOTS = frozenset({"conclusion"})
"""filled for some chains only; a pattern that asks for an empty slot is passed over"""
_ASPECT_SLOTS = frozenset({"aspect", "Aspect"})
_SIGN_SLOTS = frozenset({"fake_signs", "real_signs"})
_SECOND_SLOTS = frozenset({"second_aspect", "Second_aspect"})
_PLACE_SLOTS = frozenset({"place", "box"})
_OPTION_SLOTS = frozenset({"right_aspects", "wrong_aspects"})
_NEUTRAL_SLOTS = _NEXT_SLOTS | _ASPECT_SLOTS | _SIGN_SLOTS | _SECOND_SLOTS | _PLACE_SLOTS
"""say nothing of the label"""

_QUESTION_SLOTS: Mapping[Scope, frozenset[str]] = {
    "image": frozenset(),
    "aspect": _ASPECT_SLOTS,
    "region": _ASPECT_SLOTS | _PLACE_SLOTS,
    "pair": _ASPECT_SLOTS | _SECOND_SLOTS,
}


@dataclass(frozen=True, slots=True)
class Case:
    """What decides which answers fit: one chain, and one or two aspects where the form has some."""

    label: Authenticity
    has_findings: bool
    confidence: Confidence
    present: bool = False
    """the chain has a finding on the aspect asked about"""
    second: bool = False
    """the chain has a finding on the second aspect of a pair"""


CASES = tuple(
    Case(*values)
    for values in itertools.product(
        Authenticity, (False, True), Confidence, (False, True), (False, True)
    )
)


class When(Strict):
    """A condition on a case; what is not named holds always."""

    label: Authenticity | None = None
    findings: Literal["some", "none"] | None = None
    finding: Presence | None = None
    second: Presence | None = None
    confidence: tuple[Confidence, ...] = ()

    def holds(self, case: Case) -> bool:
        """Whether the case fits."""
        return (
            self.label in (None, case.label)
            and self.findings in (None, "some" if case.has_findings else "none")
            and self.finding in (None, _presence(case.present))
            and self.second in (None, _presence(case.second))
            and (not self.confidence or case.confidence in self.confidence)
        )


def _presence(is_present: bool) -> Presence:
    return "present" if is_present else "absent"


class Answers(Strict):
    """Answer patterns that fit one condition."""

    when: When = When()
    patterns: tuple[str, ...] = Field(min_length=1)


class Form(Strict):
    """One kind of instruction: what it asks, and how it is answered."""

    scope: Scope
    """`image`: about the whole chain; `aspect`: about one trace category; `region`: about a finding
    that has a place in the image; `pair`: about two categories, one with a finding at least"""
    answer: Answering
    asks: Authenticity | None = None
    """yes-no forms: the authenticity that the question asks about"""
    negated: bool = False
    """yes-no forms about an aspect: the question asks whether there is no such finding"""
    right: Presence = "present"
    """choices: the right options are aspects with a finding, or those without"""
    states_verdict: bool = False
    """the question itself says whether the image is real"""
    asks_verdict: bool = False
    """open forms: the question asks whether the image is real; closed ones about the image do"""
    needs: When = When()
    """which chains, and in aspect forms which findings, the form suits"""
    rows: int = Field(1, ge=0)
    """at most so many from one chain in a round; in aspect forms about aspects with a finding"""
    absent: Literal["none", "any", "matched"] = "none"
    """aspects without such a finding: not asked about, any of them, or each as often as with one"""
    absent_rows: int = Field(1, ge=1)
    """at most so many from one chain in a round about aspects without such a finding"""
    opener: str = ""
    """the words that every answer starts with"""
    questions: tuple[str, ...] = ()
    follow_ups: tuple[str, ...] = ()
    """questions for a turn of a dialogue that is not its first; without them `questions`"""
    answers: tuple[Answers, ...] = Field(min_length=1)

    @cached_property
    def question_patterns(self) -> tuple[Pattern, ...]:
        return tuple(parse_pattern(text) for text in self.questions)

    @cached_property
    def follow_up_patterns(self) -> tuple[Pattern, ...]:
        return tuple(parse_pattern(text) for text in self.follow_ups)

    @cached_property
    def answer_patterns(self) -> tuple[tuple[When, Pattern], ...]:
        """Each with its condition, in file order: the position numbers a pattern."""
        return tuple(
            (group.when, parse_pattern(text)) for group in self.answers for text in group.patterns
        )

    def fitting(self, case: Case, *, has_conclusion: bool) -> Sequence[int]:
        """The positions of the answer patterns for a case whose slots all are filled."""
        filled = self.filled_slots(case) | (_UNSURE_SLOTS if has_conclusion else frozenset())
        return [
            position
            for position, (when, pattern) in enumerate(self.answer_patterns)
            if when.holds(case) and pattern.slots <= filled
        ]

    @property
    def is_choice(self) -> bool:
        return self.answer in ("choice", "choices")

    @property
    def stands_alone(self) -> bool:
        """Whether it makes rows of its own, and not turns of dialogues only."""
        return self.rows > 0 or self.absent != "none"

    @property
    def wants_verdict(self) -> bool:
        """The question asks whether the image is real or fake."""
        closed = self.answer == "verdict" or (self.answer == "yes_no" and self.scope == "image")
        return closed or self.asks_verdict

    @property
    def gives_verdict_away(self) -> bool:
        """Whoever has read question and answer may know whether the image is real or fake."""
        return self.states_verdict or any(
            when.label is not None or not pattern.slots <= _NEUTRAL_SLOTS
            for when, pattern in self.answer_patterns
        )

    @property
    def targets(self) -> tuple[str, ...]:
        """The closed answers that the form can have."""
        closed: dict[Answering, tuple[str, ...]] = {
            "open": (),
            "verdict": tuple(Authenticity),
            "yes_no": (YES, NO),
            "choice": LETTERS,
            "choices": PHRASES,
        }
        return closed[self.answer]

    def target(self, case: Case, letters: str | None = None) -> str | None:
        """The closed answer in a case; for a choice the given letters."""
        if self.answer == "verdict":
            return case.label.value
        if self.answer == "yes_no":
            applies = case.label is self.asks and (self.scope == "image" or case.present)
            return YES if applies is not self.negated else NO
        return letters if self.is_choice else None

    def cases(self) -> Iterator[Case]:
        """Every case that the form can meet."""
        return (case for case in CASES if self._occurs(case) and self._meets(case))

    def _occurs(self, case: Case) -> bool:
        """Whether there is such a case in the form's scope."""
        if case.second and self.scope != "pair":
            return False
        if self.scope == "image":
            return not case.present
        if self.scope == "region":
            return case.has_findings and case.present
        if self.scope == "pair":
            return case.has_findings and (case.present or case.second)
        if self.is_choice:
            return case.has_findings and case.present is (self.right == "present")
        return case.has_findings or not case.present

    def _meets(self, case: Case) -> bool:
        affirms = self.scope != "aspect" or self.is_choice or (case.present and self.rows > 0)
        return (affirms and self.needs.holds(case)) or (self.absent != "none" and self.denies(case))

    def denies(self, case: Case) -> bool:
        """Whether nothing found under the aspect says what the question asks about."""
        return not case.present or (self.asks is not None and case.label is not self.asks)

    def filled_slots(self, case: Case) -> frozenset[str]:
        """The answer slots that are filled for every chain of a case, but for `conclusion`."""
        slots = _VERDICT_SLOTS | (_FINDING_SLOTS if case.has_findings else frozenset())
        if self.scope == "image":
            return slots | _NEXT_SLOTS
        if self.is_choice:
            return slots | self._filled_option_slots()
        slots |= _ASPECT_SLOTS | _SIGN_SLOTS | ({"evidence"} if case.present else set())
        if self.scope == "region":
            slots |= _PLACE_SLOTS
        if self.scope == "pair":
            slots |= _SECOND_SLOTS | ({"second_evidence"} if case.second else set())
        return slots

    def _filled_option_slots(self) -> frozenset[str]:
        slots = _OPTION_SLOTS | ({"right_evidence"} if self.right == "present" else set())
        if self.answer == "choices":
            return slots | {"letters"}
        own = {"evidence"} if self.right == "present" else set()
        return slots | {"letter"} | _ASPECT_SLOTS | _SIGN_SLOTS | own

    @model_validator(mode="after")
    def _is_sound(self) -> Form:
        _check_settings(self)
        _check_questions(self)
        _check_answers(self)
        return self


def _check_settings(form: Form) -> None:
    if (form.answer == "yes_no") != (form.asks is not None):
        raise ValueError("`asks` belongs to yes_no forms, and to each of them")
    if form.scope != "aspect" and (form.absent != "none" or form.is_choice or form.negated):
        raise ValueError("`absent`, `negated` and choices belong to forms of scope aspect")
    if form.scope == "image" and form.needs.finding:
        raise ValueError("`needs.finding` belongs to forms about aspects")
    if form.scope != "pair" and any(
        when.second for when in (form.needs, *(group.when for group in form.answers))
    ):
        raise ValueError("`second` belongs to forms of scope pair")
    if form.scope != "image" and form.answer == "verdict":
        raise ValueError("a verdict is about the whole image: scope image")
    if form.scope in ("region", "pair") and form.answer != "open":
        raise ValueError(f"a form of scope {form.scope} is answered freely: answer open")
    if form.negated and form.answer != "yes_no":
        raise ValueError("`negated` belongs to yes_no forms")
    if form.right == "absent" and not form.is_choice:
        raise ValueError("`right` belongs to choices")
    if form.asks_verdict and (form.scope != "image" or form.answer != "open"):
        raise ValueError("`asks_verdict` belongs to open forms about the image")
    if form.is_choice and form.absent != "none":
        raise ValueError("the options of a choice are both with and without a finding: no `absent`")
    if form.absent == "matched" and form.rows == 0:
        raise ValueError("`absent: matched` goes by the rows about findings: `rows` at least 1")


def _check_questions(form: Form) -> None:
    if not form.questions and (form.stands_alone or not form.follow_ups):
        raise ValueError("the form has no `questions`")
    allowed = _QUESTION_SLOTS[form.scope]
    if form.is_choice:
        allowed = frozenset({"options"})
    for pattern in (*form.question_patterns, *form.follow_up_patterns):
        _check_slots(pattern, allowed)
        if form.is_choice and not pattern.text.endswith("\n{options}"):
            raise ValueError(f"{pattern.text!r}: does not end with a line {{options}}")
        if form.scope == "aspect" and not pattern.slots:
            raise ValueError(f"{pattern.text!r}: the question names no aspect")
        if form.scope == "region" and not pattern.slots:
            raise ValueError(f"{pattern.text!r}: the question names no place, box or aspect")
        if form.scope == "pair" and not _names_both(pattern):
            raise ValueError(f"{pattern.text!r}: the question does not name both aspects")


def _names_both(pattern: Pattern) -> bool:
    return bool(pattern.slots & _ASPECT_SLOTS and pattern.slots & _SECOND_SLOTS)


def _check_answers(form: Form) -> None:
    known = frozenset[str]().union(*(form.filled_slots(case) for case in form.cases()))
    known |= _UNSURE_SLOTS if form.scope == "image" else set()
    for _, pattern in form.answer_patterns:
        _check_slots(pattern, known)
        if not pattern.text.startswith(form.opener):
            raise ValueError(f"{pattern.text!r}: does not start with the opener")
    for case in form.cases():
        _check_case(form, case)


def _check_case(form: Form, case: Case) -> None:
    """In each case some pattern can always be filled, and each gives the right closed answer."""
    if not form.fitting(case, has_conclusion=False):
        raise ValueError(f"no answer pattern for {_describe(form, case)}")
    for when, pattern in form.answer_patterns:
        if when.holds(case):
            _check_target(form, case, pattern)


def _describe(form: Form, case: Case) -> str:
    found = "some" if case.has_findings else "none"
    text = f"label {case.label}, findings {found}, confidence {case.confidence}"
    if form.scope == "image":
        return text
    text += f", finding {_presence(case.present)}"
    return f"{text}, second {_presence(case.second)}" if form.scope == "pair" else text


def _check_target(form: Form, case: Case, pattern: Pattern) -> None:
    """A closed answer is the first target that stands in the text, whatever the slots bring."""
    target = form.target(case, form.targets[0] if form.is_choice else None)
    if target is not None and said_by(form, pattern, case.label, target) != target:
        raise ValueError(f"{pattern.text!r}: should answer {target} for {_describe(form, case)}")


def said_by(form: Form, pattern: Pattern, label: Authenticity, target: str) -> str | None:
    """The closed answer that a pattern gives, when all other slots bring another answer.

    `target` is what the slots for letters hold.
    """
    words = {
        "verdict": label.value,
        "Verdict": label.capitalize(),
        "letter": target,
        "letters": target,
    }
    wrong = next(other for other in reversed(form.targets) if other != target)
    text = pattern.fill({slot: words.get(slot, wrong) for slot in pattern.slots})
    return first_target(form, text)


def first_target(form: Form, text: str) -> str | None:
    """The closed answer that a text gives: yes, no and letters at its start, a verdict anywhere."""
    found = re.search(_target_pattern(form), text)
    if found is None:
        return None
    return found[1] if form.is_choice else found[1].lower()


def first_targets(form: Form, texts: pa.Array) -> pa.Array:
    """`first_target` of each text; null where it gives none."""
    found = pc.extract_regex(texts, pattern=_target_pattern(form))
    said = pc.struct_field(found, "target")
    return said if form.is_choice else pc.utf8_lower(said)


def _target_pattern(form: Form) -> str:
    """For `re` and for Arrow."""
    words = "|".join(sorted(form.targets, key=len, reverse=True))
    case = "" if form.is_choice else "(?i)"
    start = "" if form.answer == "verdict" else r"\A"
    return rf"{case}{start}\b(?P<target>{words})\b"


def _check_slots(pattern: Pattern, allowed: frozenset[str]) -> None:
    for slot in sorted(pattern.slots - allowed):
        close = difflib.get_close_matches(slot, sorted(allowed), n=1)
        hint = f"did you mean {close[0]}?" if close else f"it may use: {', '.join(sorted(allowed))}"
        raise ValueError(f"{pattern.text!r}: no slot {slot!r} here; {hint}")
