"""Question and answer patterns: the instruction files of a recipe, read and checked.

A pattern is text with `{slots}`. What a form may ask, what it answers in which case and which slots
are filled when is checked here once, so that no chain can meet a form without a fitting answer, a
closed answer that contradicts the label, or an empty slot.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from string import Formatter
from typing import Literal

from pydantic import Field, model_validator

from core.errors import ConfigError
from core.recipe import Recipe, Strict, parse_model
from core.records import Authenticity, Confidence
from core.taxonomy import TraceCategory

LETTERS = ("A", "B", "C", "D")
YES, NO = "yes", "no"

Scope = Literal["image", "aspect"]
Answering = Literal["open", "verdict", "yes_no", "choice"]

_ASPECT_SLOTS = frozenset({"aspect", "Aspect"})
_CHAIN_SLOTS = frozenset(
    {
        "verdict",
        "Verdict",
        "next_aspect",
        "next_fake_signs",
        "next_real_signs",
        "other_aspect",
        "other_fake_signs",
        "other_real_signs",
    }
)
_FINDING_SLOTS = frozenset(
    {"findings", "numbered", "aspects", "main_evidence", "image_advice", "generation_advice"}
)
_UNSURE_SLOTS = frozenset({"conclusion"})
"""filled for some chains only; a pattern that asks for an empty slot is passed over"""
_SIGN_SLOTS = frozenset({"fake_signs", "real_signs"})


@dataclass(frozen=True, slots=True)
class Case:
    """What decides which answers fit: one chain, and one aspect where the form has one."""

    label: Authenticity
    has_findings: bool
    confidence: Confidence
    present: bool = False
    """the chain has a finding on the aspect asked about"""


class When(Strict):
    """A condition on a case; what is not named holds always."""

    label: Authenticity | None = None
    findings: Literal["some", "none"] | None = None
    finding: Literal["present", "absent"] | None = None
    confidence: tuple[Confidence, ...] = ()

    def holds(self, case: Case) -> bool:
        """Whether the case fits."""
        return (
            self.label in (None, case.label)
            and self.findings in (None, "some" if case.has_findings else "none")
            and self.finding in (None, "present" if case.present else "absent")
            and (not self.confidence or case.confidence in self.confidence)
        )


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed pattern: literal text and slots in turn."""

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @property
    def slots(self) -> frozenset[str]:
        return frozenset(slot for _, slot in self.parts if slot is not None)

    def fill(self, values: Mapping[str, str]) -> str:
        """The text with its slots filled; inserted text is never read as a pattern."""
        return "".join(
            literal if slot is None else literal + values[slot] for literal, slot in self.parts
        )


def parse_pattern(text: str) -> Pattern:
    """Split a pattern into literals and slots; a ValueError says what is wrong with it."""
    parts = []
    for literal, slot, spec, conversion in Formatter().parse(text):
        if slot is not None and (spec or conversion or not slot.isidentifier()):
            raise ValueError(f"{text!r}: a slot is a name in braces, as in {{aspect}}")
        parts.append((literal, slot))
    return Pattern(text, tuple(parts))


class Answers(Strict):
    """Answer patterns that fit one condition."""

    when: When = When()
    patterns: tuple[str, ...] = Field(min_length=1)


class Form(Strict):
    """One kind of instruction: what it asks, and how it is answered."""

    scope: Scope
    """`image`: about the whole chain; `aspect`: about one trace category"""
    answer: Answering
    asks: Authenticity | None = None
    """yes-no forms: the authenticity that the question asks about"""
    states_verdict: bool = False
    """the question itself says whether the image is real"""
    needs: When = When()
    """which chains, and in aspect forms which findings, the form suits"""
    rows: int = Field(1, ge=1)
    """at most so many from one chain; in aspect forms about aspects with a finding"""
    absent: Literal["none", "any", "matched"] = "none"
    """aspects without such a finding: not asked about, any of them, or each as often as with one"""
    absent_rows: int = Field(1, ge=1)
    """at most so many from one chain about aspects without such a finding"""
    opener: str = ""
    """the words that every answer starts with"""
    questions: tuple[str, ...] = Field(min_length=1)
    answers: tuple[Answers, ...] = Field(min_length=1)

    @cached_property
    def question_patterns(self) -> tuple[Pattern, ...]:
        return tuple(parse_pattern(text) for text in self.questions)

    def question_at(self, place: int) -> tuple[int, Pattern]:
        """The numbered question pattern at a place, counted round and round."""
        position = place % len(self.question_patterns)
        return position + 1, self.question_patterns[position]

    @cached_property
    def answer_patterns(self) -> tuple[tuple[When, Pattern], ...]:
        """Each with its condition, in file order: the position numbers a pattern."""
        return tuple(
            (group.when, parse_pattern(text)) for group in self.answers for text in group.patterns
        )

    def fitting(self, case: Case, *, has_conclusion: bool) -> Sequence[tuple[int, Pattern]]:
        """The numbered answer patterns for a case whose slots all are filled."""
        return self._fitting[case, has_conclusion]

    @cached_property
    def _fitting(self) -> Mapping[tuple[Case, bool], Sequence[tuple[int, Pattern]]]:
        return {
            (case, has_conclusion): [
                (number, pattern)
                for number, (when, pattern) in enumerate(self.answer_patterns, start=1)
                if when.holds(case)
                and pattern.slots - (_UNSURE_SLOTS if has_conclusion else set())
                <= self.filled_slots(case)
            ]
            for case in self.cases()
            for has_conclusion in (True, False)
        }

    @property
    def targets(self) -> tuple[str, ...]:
        """The closed answers that the form can have."""
        closed: dict[Answering, tuple[str, ...]] = {
            "open": (),
            "verdict": tuple(Authenticity),
            "yes_no": (YES, NO),
            "choice": LETTERS,
        }
        return closed[self.answer]

    def target(self, case: Case, letter: str | None = None) -> str | None:
        """The closed answer in a case; for a choice the given letter."""
        if self.answer == "verdict":
            return case.label.value
        if self.answer == "yes_no":
            applies = case.label is self.asks and (self.scope == "image" or case.present)
            return YES if applies else NO
        return letter if self.answer == "choice" else None

    def cases(self) -> Iterator[Case]:
        """Every case that the form can meet."""
        for label, found, sure in itertools.product(Authenticity, (True, False), Confidence):
            presence = (True, False) if self.scope == "aspect" else (False,)
            for present in presence:
                case = Case(label, found, sure, present)
                if (found or not present) and self._meets(case):
                    yield case

    def _meets(self, case: Case) -> bool:
        affirms = self.scope == "image" or case.present
        return (affirms and self.needs.holds(case)) or (self.absent != "none" and self.denies(case))

    def denies(self, case: Case) -> bool:
        """Whether nothing found under the aspect says what the question asks about."""
        return not case.present or (self.asks is not None and case.label is not self.asks)

    def filled_slots(self, case: Case) -> frozenset[str]:
        """The answer slots that are filled for every chain of a case."""
        if self.scope == "image":
            return _CHAIN_SLOTS | (_FINDING_SLOTS if case.has_findings else frozenset())
        slots = _ASPECT_SLOTS | _SIGN_SLOTS | {"verdict", "Verdict"}
        slots |= {"evidence"} if case.present else set()
        return slots | ({"letter"} if self.answer == "choice" else set())

    @model_validator(mode="after")
    def _is_sound(self) -> Form:
        _check_settings(self)
        _check_questions(self)
        _check_answers(self)
        return self


class Family(Strict):
    """One file below `instructions/`: the forms of one family, most important first."""

    forms: dict[str, Form] = Field(min_length=1)


@dataclass(frozen=True)
class Templates:
    """The families of a recipe and the rows that each may take from one chain."""

    families: Mapping[str, Family]
    caps: Mapping[str, int]

    def forms(self) -> Iterator[tuple[str, str, Form]]:
        """Family name, form name and form, in file order."""
        for family, content in self.families.items():
            for name, form in content.forms.items():
                yield family, name, form

    @cached_property
    def named(self) -> Mapping[str, tuple[str, Form]]:
        """Family name and form by form name."""
        return {name: (family, form) for family, name, form in self.forms()}


def read_templates(recipe: Recipe) -> Templates:
    """The instruction files of a recipe; problems of a file come in one ConfigError."""
    families = {
        name: parse_model(
            content, Family, where=str(recipe.folder / "instructions" / f"{name}.yaml")
        )
        for name, content in recipe.instructions.items()
    }
    caps = recipe.settings.build.rows_per_chain  # its order is the order of the rows
    _check_caps(families, caps)
    templates = Templates({name: families[name] for name in caps}, caps)
    _check_form_names([name for _, name, _ in templates.forms()])
    return templates


def category_words(category: TraceCategory) -> dict[str, str]:
    """What the slots about an aspect hold: its name, and its hints as parts of a sentence."""
    return {
        "aspect": category.name,
        "Aspect": category.name[:1].upper() + category.name[1:],
        "fake_signs": _inside_sentence(category.fake_hint),
        "real_signs": _inside_sentence(category.real_hint),
    }


def _inside_sentence(text: str) -> str:
    """Without the full stop, and with a small letter unless the first word is an abbreviation."""
    line = text.rstrip().rstrip(".")
    lower = len(line) < 2 or not line[1].isupper()
    return line[:1].lower() + line[1:] if lower else line


def _check_caps(families: Mapping[str, Family], caps: Mapping[str, int]) -> None:
    if not families:
        raise ConfigError("the recipe has no instructions/*.yaml")
    for name in caps:
        if name not in families:
            known = ", ".join(families)
            raise ConfigError(f"build.rows_per_chain: no family {name!r}; there are: {known}")
    for name in families:
        if name not in caps:
            raise ConfigError(f"build.rows_per_chain: family {name!r} is missing; 0 leaves it out")


def _check_form_names(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"form {name!r} is in two families; form names must differ")


def _check_settings(form: Form) -> None:
    if (form.answer == "yes_no") != (form.asks is not None):
        raise ValueError("`asks` belongs to yes_no forms, and to each of them")
    if form.scope == "image" and (form.absent != "none" or form.needs.finding or _is_choice(form)):
        raise ValueError("`absent`, `needs.finding` and choices belong to forms of scope aspect")
    if form.scope == "aspect" and form.answer == "verdict":
        raise ValueError("a verdict is about the whole image: scope image")
    if _is_choice(form) and form.absent != "none":
        raise ValueError("a choice has a right option only where there is a finding")


def _is_choice(form: Form) -> bool:
    return form.answer == "choice"


def _check_questions(form: Form) -> None:
    allowed = _ASPECT_SLOTS if form.scope == "aspect" else frozenset[str]()
    allowed |= {"options"} if _is_choice(form) else set()
    for pattern in form.question_patterns:
        _check_slots(pattern, allowed)
        if form.scope == "aspect" and not pattern.slots:
            raise ValueError(f"{pattern.text!r}: the question names no aspect")
        if _is_choice(form) and "options" not in pattern.slots:
            raise ValueError(f"{pattern.text!r}: the question shows no {{options}}")


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
    fitting = [pattern for when, pattern in form.answer_patterns if when.holds(case)]
    if not any(pattern.slots <= form.filled_slots(case) for pattern in fitting):
        raise ValueError(f"no answer pattern for {_describe(form, case)}")
    for pattern in fitting:
        _check_target(form, case, pattern)


def _describe(form: Form, case: Case) -> str:
    found = "some" if case.has_findings else "none"
    text = f"label {case.label}, findings {found}, confidence {case.confidence}"
    present = "present" if case.present else "absent"
    return text if form.scope == "image" else f"{text}, finding {present}"


def _check_target(form: Form, case: Case, pattern: Pattern) -> None:
    """A closed answer is the first target that stands in the text, whatever the slots bring."""
    target = form.target(case, LETTERS[0])
    if target is None:
        return
    words = {"verdict": case.label.value, "Verdict": case.label.capitalize(), "letter": LETTERS[0]}
    wrong = next(other for other in reversed(form.targets) if other != target)
    text = pattern.fill({slot: words.get(slot, wrong) for slot in pattern.slots})
    if first_target(form, text) != target:
        raise ValueError(f"{pattern.text!r}: should answer {target} for {_describe(form, case)}")


def first_target(form: Form, text: str) -> str | None:
    """The closed answer that a text gives: yes, no and letters at its start, a verdict anywhere."""
    words = "|".join(form.targets)
    flags = re.NOFLAG if _is_choice(form) else re.IGNORECASE
    search = re.search if form.answer == "verdict" else re.match
    found = search(rf"\b({words})\b", text, flags)
    if found is None:
        return None
    return found[1] if _is_choice(form) else found[1].lower()


def _check_slots(pattern: Pattern, allowed: frozenset[str]) -> None:
    for slot in sorted(pattern.slots - allowed):
        close = difflib.get_close_matches(slot, sorted(allowed), n=1)
        hint = f"did you mean {close[0]}?" if close else f"it may use: {', '.join(sorted(allowed))}"
        raise ValueError(f"{pattern.text!r}: no slot {slot!r} here; {hint}")
