"""What each chain is asked: forms, aspects and options, balanced over the whole set. Pure.

A question about an aspect is worth asking only if the question does not give its answer away. So a
`matched` form asks about each aspect as often where a chain has no finding as where it has one, and
a category is the right option of a choice about once in the four times that it is shown.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import DataError
from core.ids import seed_of
from core.records import ReasoningChain
from core.taxonomy import Taxonomy
from instruct_builder.templates import LETTERS, Case, Form, Templates, category_words

WRONG_OPTIONS = len(LETTERS) - 1
MOST_OWED = 2 * WRONG_OPTIONS
SLACK = 24
"""a category may be owed a quarter of a showing more for each time that it was right"""
_64_BITS = 2**64 - 1
Order = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Ask:
    """One instruction to be worded: a form, and in aspect forms the aspect and its rivals."""

    form: str
    aspect: str | None = None
    present: bool = False
    letter: str | None = None
    """where the right option of a choice stands"""
    distractors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """What the plan must know of a chain."""

    chain_id: str
    number: int
    """63 bits of the hash of the chain id"""
    case: Case
    found: Mapping[str, tuple[str, ...]]
    """evidence by category, in the order of the findings"""
    can_deny: bool
    """no finding was left out, so an aspect without a finding is one where none was made"""

    def case_of(self, aspect: str) -> Case:
        """The case of a question about one aspect."""
        case = self.case
        return Case(case.label, case.has_findings, case.confidence, aspect in self.found)


@dataclass(frozen=True)
class Plan:
    """All that decides the instructions of a set besides chains and images."""

    templates: Templates
    taxonomy: Taxonomy
    seed: int
    asks: Mapping[str, tuple[Ask, ...]]
    """by chain id"""

    @cached_property
    def seeds(self) -> Mapping[str, int]:
        """A 63-bit seed for each form."""
        return {name: seed_of(self.seed, name) for _, name, _ in self.templates.forms()}

    @cached_property
    def words(self) -> Mapping[str, Mapping[str, str]]:
        """What the slots about an aspect hold, by category."""
        return {category.id: category_words(category) for category in self.taxonomy.categories}


def subject_of(chain: ReasoningChain, taxonomy: Taxonomy) -> Subject:
    """Read a chain; a DataError when it names a category that the taxonomy does not have."""
    found: dict[str, list[str]] = defaultdict(list)
    for finding in chain.reasoning.supporting():
        if finding.category not in taxonomy:
            raise DataError(f"chain {chain.chain_id}: unknown trace category {finding.category!r}")
        if finding.evidence not in found[finding.category]:
            found[finding.category].append(finding.evidence)
    return Subject(
        chain_id=chain.chain_id,
        number=seed_of(chain.chain_id),
        case=Case(chain.reasoning.verdict, bool(found), chain.reasoning.confidence),
        found={category: tuple(evidence) for category, evidence in found.items()},
        can_deny=chain.contradictions == 0,
    )


def plan_asks(
    chains: Iterable[ReasoningChain], templates: Templates, taxonomy: Taxonomy, *, seed: int
) -> Plan:
    """Decide what every chain is asked; the same chains in any order give the same plan."""
    subjects = sorted(
        (subject_of(chain, taxonomy) for chain in chains), key=lambda subject: subject.chain_id
    )
    asks: dict[str, list[Ask]] = {subject.chain_id: [] for subject in subjects}
    numbers = {aspect: seed_of(aspect) for aspect in taxonomy.ids}
    for family in templates.families:
        planner = _Planner(subjects, taxonomy, seed, templates.caps[family], numbers)
        for name, form in templates.families[family].forms.items():
            planner.plan(name, form)
        for chain_id, chosen in planner.asks.items():
            asks[chain_id] += chosen
    return Plan(templates, taxonomy, seed, {name: tuple(chosen) for name, chosen in asks.items()})


@dataclass(slots=True)
class _Planner:
    """Fills the rows of one family, form by form, while a chain has room."""

    subjects: Sequence[Subject]
    taxonomy: Taxonomy
    seed: int
    room: int
    numbers: Mapping[str, int]
    """63 bits of the hash of each aspect"""
    asks: dict[str, list[Ask]] = field(default_factory=lambda: defaultdict(list))

    def plan(self, name: str, form: Form) -> None:
        """Add the instructions of one form."""
        if form.scope == "image":
            self._ask_images(name, form)
        elif form.answer == "choice":
            self._ask_choices(name, form)
        else:
            self._ask_findings(name, form)
            if form.absent == "matched":
                self._match_findings(name, form)
            elif form.absent == "any":
                self._ask_anything(name, form)

    def _ask_images(self, name: str, form: Form) -> None:
        for subject in self.subjects:
            if form.needs.holds(subject.case):
                for _ in range(form.rows):
                    self._add(subject, Ask(name))

    def _ask_findings(self, name: str, form: Form) -> None:
        for subject in self.subjects:
            for aspect in self._suitable(name, form, subject)[: form.rows]:
                self._add(subject, Ask(name, aspect, present=True))

    def _ask_anything(self, name: str, form: Form) -> None:
        for subject in self.subjects:
            missing = [aspect for aspect in self.taxonomy.ids if aspect not in subject.found]
            if subject.can_deny:
                for aspect in self._shuffled(name, subject, missing)[: form.absent_rows]:
                    self._add(subject, Ask(name, aspect))

    def _match_findings(self, name: str, form: Form) -> None:
        """Ask about each aspect as often without a finding, the most frequent aspect first."""
        wanted = Counter(
            ask.aspect for asks in self.asks.values() for ask in asks if ask.form == name
        )
        taken: Counter[str] = Counter()
        for aspect, number in sorted(wanted.items(), key=lambda item: (-item[1], item[0] or "")):
            for subject in self._deniers(name, form, aspect or "", number, taken):
                taken[subject.chain_id] += 1
                self._add(subject, Ask(name, aspect, present=aspect in subject.found))

    def _deniers(
        self, name: str, form: Form, aspect: str, number: int, taken: Mapping[str, int]
    ) -> list[Subject]:
        """Chains with room and without such a finding on the aspect, from both labels alike."""
        queues: dict[bool, list[Subject]] = {True: [], False: []}
        for index in shuffle(self.subjects, seed_of(self.seed, name, aspect)):
            subject = self.subjects[index]
            free = taken.get(subject.chain_id, 0) < form.absent_rows and self._has_room(subject)
            if free and subject.can_deny and form.denies(subject.case_of(aspect)):
                queues[subject.case.label is form.asks].append(subject)
        pairs = itertools.zip_longest(queues[True], queues[False])
        mixed = [subject for pair in pairs for subject in pair if subject is not None]
        return mixed[:number]

    def _ask_choices(self, name: str, form: Form) -> None:
        """Questions with options; what can rarely be a wrong option is asked about less."""
        able = [subject for subject in self.subjects if self._suitable(name, form, subject)]
        balance, letters = _OptionBalance(able), itertools.cycle(LETTERS)
        for index in shuffle(able, seed_of(self.seed, name)):
            subject = able[index]
            rivals = [aspect for aspect in self.taxonomy.ids if aspect not in subject.found]
            if len(rivals) >= WRONG_OPTIONS:
                for aspect in balance.choose(self._suitable(name, form, subject), form.rows):
                    drawn = balance.draw(self._shuffled(name, subject, rivals))
                    ask = Ask(name, aspect, True, letter=next(letters), distractors=drawn)
                    self._add(subject, ask)

    def _suitable(self, name: str, form: Form, subject: Subject) -> list[str]:
        fitting = [a for a in subject.found if form.needs.holds(subject.case_of(a))]
        return self._shuffled(name, subject, fitting)

    def _shuffled(self, name: str, subject: Subject, aspects: Sequence[str]) -> list[str]:
        if len(aspects) < 2:
            return list(aspects)
        key = subject.number ^ seed_of(self.seed, name)
        return sorted(aspects, key=lambda aspect: scramble(key ^ self.numbers[aspect]))

    def _has_room(self, subject: Subject) -> bool:
        return len(self.asks[subject.chain_id]) < self.room

    def _add(self, subject: Subject, ask: Ask) -> None:
        if self._has_room(subject):
            self.asks[subject.chain_id].append(ask)


class _OptionBalance:
    """Keeps each category about three times as often wrong as right among the options shown."""

    def __init__(self, subjects: Sequence[Subject]) -> None:
        self._known = {aspect for subject in subjects for aspect in subject.found}
        self._right: Counter[str] = Counter()
        self._owed: Counter[str] = Counter()
        """how often a category is still to be shown as a wrong option"""

    def choose(self, aspects: Sequence[str], number: int) -> list[str]:
        """Aspects to be right next, those that are owed least; none that is owed too much."""
        able = [aspect for aspect in aspects if self._owed[aspect] <= self._most_owed(aspect)]
        chosen = sorted(able, key=lambda aspect: self._owed[aspect])[:number]
        self._owed.update(dict.fromkeys(chosen, WRONG_OPTIONS))
        self._right.update(chosen)
        return chosen

    def _most_owed(self, aspect: str) -> float:
        return MOST_OWED * (1 + self._right[aspect] / SLACK)

    def draw(self, rivals: Sequence[str]) -> tuple[str, ...]:
        """The wrong options: categories that can be right, those that are owed most."""
        drawn = sorted(rivals, key=self._reluctance)[:WRONG_OPTIONS]
        self._owed.subtract(drawn)
        return tuple(drawn)

    def _reluctance(self, aspect: str) -> tuple[bool, int]:
        return aspect not in self._known, -self._owed[aspect]


def shuffle(subjects: Sequence[Subject], salt: int) -> Order:
    """Positions in an order of each chain's own hash, so that it survives new chains."""
    mixed = np.array([subject.number for subject in subjects], dtype=np.uint64) ^ np.uint64(salt)
    order: Order = np.argsort(scramble(mixed), kind="stable")
    return order


def scramble(value: Any) -> Any:
    """The multiplications and shifts of SplitMix64, on one 64-bit number or on an array of them."""
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _64_BITS
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _64_BITS
    return value ^ (value >> 31)
