"""From a plan to rows in ROW_SCHEMA, pattern by pattern over whole columns. Pure.

A pattern is worded for all its turns at once: its literal texts and the columns of its slots are
joined element by element, then every turn goes to its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.taxonomy import Taxonomy
from instruct_builder.columns import (
    LABELS,
    NOWHERE,
    Chains,
    Places,
    Positions,
    Wholes,
    join_names,
    take_or_empty,
)
from instruct_builder.forms import CASES, Form
from instruct_builder.hashing import scramble, spell_ids
from instruct_builder.options import OPTIONS, SETS
from instruct_builder.patterns import LETTERS, Pattern, in_words
from instruct_builder.plan import Plan, units_of
from instruct_builder.shards import MESSAGE, ROW_SCHEMA
from instruct_builder.templates import Templates, category_words

MOST_ADVICE = 3
"""pieces of advice in one answer"""
SPELT_SETS = tuple(in_words(letters) for letters in SETS)


@dataclass(frozen=True)
class ImageColumns:
    """What rows say of their images, one entry per chain: columns of ROW_SCHEMA by name."""

    columns: Mapping[str, pa.Array]

    def take(self, chain: Positions) -> dict[str, pa.Array]:
        """For some rows."""
        places = pa.array(chain)
        return {name: column.take(places) for name, column in self.columns.items()}

    def slice(self, start: int, stop: int) -> ImageColumns:
        """The chains from `start` to before `stop`."""
        columns = {name: each.slice(start, stop - start) for name, each in self.columns.items()}
        return ImageColumns(columns)


IMAGE_COLUMNS = (
    "chain_id",
    "image_id",
    "image_path",
    "image_sha256",
    "label",
    "generator",
    "source",
    "split",
    "review_level",
)


@dataclass(frozen=True)
class Words:
    """Words rows; holds what is the same for all of them."""

    templates: Templates
    taxonomy: Taxonomy

    def table(self, plan: Plan, chains: Chains, images: ImageColumns) -> pa.Table:
        """Rows in ROW_SCHEMA. `chains` and `images` are those that the plan numbers."""
        block = _Block(self, plan, chains)
        columns = images.take(plan.chain) | block.columns()
        columns["messages"] = block.messages()
        return pa.Table.from_arrays([columns[name] for name in ROW_SCHEMA.names], schema=ROW_SCHEMA)

    @cached_property
    def forms(self) -> tuple[tuple[str, Form], ...]:
        """Name and form, by code."""
        return tuple((name, form) for _, name, form in self.templates.forms())

    @cached_property
    def units(self) -> tuple[tuple[str, str], ...]:
        """Family and name of what makes rows, by code."""
        return units_of(self.templates)

    @cached_property
    def category(self) -> Mapping[str, pa.Array]:
        """What the slots about an aspect hold, by category."""
        words = [category_words(category) for category in self.taxonomy.categories]
        return {slot: pa.array([each[slot] for each in words], pa.string()) for slot in words[0]}

    @cached_property
    def names(self) -> list[str]:
        return [category.name for category in self.taxonomy.categories]

    def pattern(self, form: Form, place: int) -> Pattern:
        """A question, or a follow-up after the questions."""
        patterns = form.question_patterns
        return (
            patterns[place]
            if place < len(patterns)
            else form.follow_up_patterns[place - len(patterns)]
        )

    def target(self, form: Form, case: int, right: int) -> str | None:
        """The closed answer of a turn."""
        return form.target(CASES[case], SPELT_SETS[right] if right >= 0 else None)


class _Block:
    """Some rows of a plan, and of the chains those alone that lie between them."""

    def __init__(self, words: Words, plan: Plan, chains: Chains) -> None:
        first, stop = (int(plan.chain[0]), int(plan.chain[-1]) + 1) if len(plan) else (0, 0)
        self._words, self._plan, self._chains = words, plan, chains.take(first, stop)
        self._turns = plan.turns
        self._chain = plan.chain[plan.turns.row] - first
        """of each turn"""
        finding = plan.turns.finding
        self._finding = np.where(finding >= 0, finding - chains.finding_starts[first], NOWHERE)
        """of each turn"""

    # Columns

    def columns(self) -> dict[str, pa.Array]:
        """All that a row says of itself but its words."""
        plan, words = self._plan, self._words
        families, names = zip(*words.units, strict=True)
        unit = pa.array(plan.unit.astype(np.int32))
        return {
            "instruction_id": spell_ids("ins", plan.upper, plan.lower),
            "family": pa.array(families, pa.string()).take(unit),
            "form": pa.array(names, pa.string()).take(unit),
            "template_id": self._template_ids(),
            "aspect": self._aspects(),
            "target": self._targets(),
        }

    def _template_ids(self) -> pa.Array:
        """`form/q01/a02`, of a dialogue those of its turns with a space between."""
        turns = self._turns
        widest = int(max(turns.question.max(initial=0), turns.answer.max(initial=0))) + 1
        code = (turns.form.astype(np.int64) * widest + turns.question) * widest + turns.answer
        unique, at = np.unique(code, return_inverse=True)
        spelt = []
        for each in unique.tolist():
            form, question, answer = each // widest**2, each // widest % widest, each % widest
            spelt.append(f"{self._words.forms[form][0]}/q{question + 1:02d}/a{answer + 1:02d}")
        texts = pa.array(spelt, pa.string()).take(pa.array(at))
        starts = pa.array(self._plan.first_turn.astype(np.int32))
        return pc.binary_join(pa.ListArray.from_arrays(starts, texts), " ")

    def _aspects(self) -> pa.Array:
        """The category that a row of one turn asks about."""
        first = self._plan.first_turn[:-1]
        aspect = self._turns.aspect[first].astype(np.int32)
        alone = (self._plan.num_turns == 1) & (aspect >= 0)
        ids = pa.array(self._words.taxonomy.ids, pa.string())
        return ids.take(pa.array(np.where(alone, aspect, 0), mask=~alone))

    def _targets(self) -> pa.Array:
        """The closed answer of the last turn; dialogues have none."""
        last = self._plan.first_turn[1:] - 1
        form, case = self._turns.form[last].astype(np.int64), self._turns.case[last]
        right = self._turns.right[last].astype(np.int64)
        code = (form * len(CASES) + case) * (len(SETS) + 1) + right + 1
        code[self._plan.num_turns > 1] = -1
        unique, at = np.unique(code, return_inverse=True)
        targets = [self._target_of(each) for each in unique.tolist()]
        return pa.array(targets, pa.string()).take(pa.array(at))

    def _target_of(self, code: int) -> str | None:
        if code < 0:
            return None
        rest, right = divmod(code, len(SETS) + 1)
        form, case = divmod(rest, len(CASES))
        return self._words.target(self._words.forms[form][1], case, right - 1)

    # Words

    def messages(self) -> pa.Array:
        """Question and answer of each turn in turn."""
        questions, asked = self._word(self._turns.question, self._words.pattern)
        answers, answered = self._word(
            self._turns.answer, lambda form, at: form.answer_patterns[at][1]
        )
        number = len(self._turns.form)
        order = np.stack([asked, answered + number], axis=1).reshape(-1)
        texts = [*questions, *answers, pa.array([], pa.string())]
        content = pa.concat_arrays(texts).take(pa.array(order))
        roles = pa.array(["user", "assistant"], pa.string())
        role = roles.take(pa.array(np.tile(np.array([0, 1], dtype=np.int8), number)))
        turns = pa.StructArray.from_arrays([role, content], fields=list(MESSAGE))
        starts = pa.array((2 * self._plan.first_turn).astype(np.int32))
        kind = ROW_SCHEMA.field("messages").type
        return pa.ListArray.from_arrays(starts, turns, type=kind)

    def _word(
        self, place: Wholes, pattern_at: Callable[[Form, int], Pattern]
    ) -> tuple[list[pa.Array], Positions]:
        """Texts pattern by pattern, and for each turn which of them is its own."""
        code = self._turns.form.astype(np.int64) * (1 << 16) + place
        order = np.argsort(code, kind="stable")
        borders = np.flatnonzero(np.diff(code[order])) + 1
        texts = []
        for turns in np.split(order, borders) if len(order) else []:
            form = self._words.forms[self._turns.form[turns[0]]][1]
            texts.append(self._fill(pattern_at(form, int(place[turns[0]])), turns))
        place_of = np.empty(len(order), dtype=np.int64)
        place_of[order] = np.arange(len(order))
        return texts, place_of

    def _fill(self, pattern: Pattern, turns: Positions) -> pa.Array:
        """One pattern for some turns; inserted text is never read as a pattern."""
        if not pattern.slots:
            text = "".join(literal for literal, _ in pattern.parts)
            return pa.repeat(pa.scalar(text, pa.string()), len(turns))
        values = {slot: self._slot(slot, turns) for slot in pattern.slots}
        parts: list[pa.Array | pa.Scalar] = []
        for literal, slot in pattern.parts:
            if literal:
                parts.append(pa.scalar(literal, pa.string()))
            if slot is not None:
                parts.append(values[slot])
        return pc.binary_join_element_wise(*parts, "")

    def _slot(self, slot: str, turns: Positions) -> pa.Array:
        return _SLOTS[slot](self, turns)

    def of_chain(self, texts: pa.Array, turns: Positions) -> pa.Array:
        """A text of the chain."""
        return texts.take(pa.array(self._chain[turns]))

    def of_category(self, slot: str, codes: Wholes) -> pa.Array:
        """A text of a category."""
        return self._words.category[slot].take(pa.array(codes.astype(np.int32)))

    def about(self, slot: str, turns: Positions) -> pa.Array:
        """Of the aspect that is asked about."""
        return self.of_category(slot, self._turns.aspect[turns])

    def about_second(self, slot: str, turns: Positions) -> pa.Array:
        """Of the second aspect."""
        return self.of_category(slot, self._turns.second[turns])

    def verdict(self, turns: Positions, *, upper: bool) -> pa.Array:
        """`fake`, or `Fake`."""
        spelt = [label.capitalize() if upper else label.value for label in LABELS]
        return pa.array(spelt, pa.string()).take(pa.array(self._chains.label[self._chain[turns]]))

    def evidence(self, turns: Positions) -> pa.Array:
        """Of one finding where one is asked about, else of all under the aspect."""
        finding = self._finding[turns]
        if (finding >= 0).all():
            return self._chains.finding_text.take(pa.array(finding))
        return self._evidence_of(self._turns.aspect[turns], turns)

    def second_evidence(self, turns: Positions) -> pa.Array:
        return self._evidence_of(self._turns.second[turns], turns)

    def _evidence_of(self, codes: Wholes, turns: Positions) -> pa.Array:
        places = self._chains.aspect_evidence[self._chain[turns], codes]
        return take_or_empty(self._chains.evidence, places)

    def of_finding(self, texts: pa.Array, turns: Positions) -> pa.Array:
        """Box or place of the finding that is asked about."""
        return texts.take(pa.array(self._finding[turns]))

    def aspects(self, turns: Positions) -> pa.Array:
        """The names of all categories with a finding."""
        return self.of_chain(self._aspect_names, turns)

    @cached_property
    def _aspect_names(self) -> pa.Array:
        return self._chains.join_names(self._words.names)

    def image_advice(self, turns: Positions) -> pa.Array:
        """What would mend the image."""
        return self.of_chain(self._image_advice, turns)

    @cached_property
    def _image_advice(self) -> pa.Array:
        return self._advise([each.image_advice for each in self._words.taxonomy.categories])

    def generation_advice(self, turns: Positions) -> pa.Array:
        """What would mend the generation."""
        return self.of_chain(self._generation_advice, turns)

    @cached_property
    def _generation_advice(self) -> pa.Array:
        return self._advise([each.generation_advice for each in self._words.taxonomy.categories])

    def _advise(self, given: Sequence[str]) -> pa.Array:
        return self._chains.join_aspects(given, most=MOST_ADVICE)

    def drawn(self, place: int, slot: str, turns: Positions) -> pa.Array:
        """One of two aspects worth a look: without a finding where there are two such."""
        found = self._chains.found[self._chain[turns]]
        missing = ~found
        pool = np.where((missing.sum(axis=1) > 1)[:, None], missing, True)
        steps = np.arange(1, found.shape[1] + 1, dtype=np.uint64)
        keys = scramble(self._turns.draw[turns][:, None] ^ (steps << np.uint64(32)))
        order = np.argsort(np.where(pool, keys >> np.uint64(1), np.uint64(2**63)), axis=1)
        return self.of_category(slot, order[:, place])

    # Options

    def options(self, turns: Positions) -> pa.Array:
        """Four lines, `A. Name` to `D. Name`."""
        names = self._words.category["Aspect"]
        lines = [
            pc.binary_join_element_wise(
                pa.scalar(f"{letter}. "), names.take(pa.array(self._shown(turns, at))), ""
            )
            for at, letter in enumerate(LETTERS)
        ]
        return pc.binary_join_element_wise(*lines, "\n")

    def _shown(self, turns: Positions, at: int) -> Places:
        return np.asarray(self._turns.shown[turns, at].astype(np.int32))

    def letters(self, turns: Positions) -> pa.Array:
        """`C`, or `A and C`."""
        return pa.array(SPELT_SETS, pa.string()).take(pa.array(self._turns.right[turns]))

    def option_names(self, turns: Positions, *, right: bool) -> pa.Array:
        """The names of the right, or of the wrong, options as in a sentence."""
        shown = self._turns.shown[turns].astype(np.int64)
        code = self._turns.right[turns].astype(np.int64)
        for letter in range(OPTIONS):
            code = code * 64 + shown[:, letter]
        _, first, at = np.unique(code, return_index=True, return_inverse=True)
        names = []
        for row in turns[first]:
            letters = SETS[self._turns.right[row]]
            places = [p for p, letter in enumerate(LETTERS) if (letter in letters) is right]
            names.append(join_names([self._words.names[self._turns.shown[row, p]] for p in places]))
        return pa.array(names, pa.string()).take(pa.array(at))

    def right_evidence(self, turns: Positions) -> pa.Array:
        """What was found under the right options, in the order of their letters."""
        is_right = np.array([[letter in letters for letter in LETTERS] for letters in SETS])
        right = is_right[self._turns.right[turns]]
        texts = []
        for at in range(OPTIONS):
            codes = self._turns.shown[turns, at]
            places = self._chains.aspect_evidence[self._chain[turns], codes]
            shown = np.where(right[:, at], places, NOWHERE)
            missing = pa.array(shown, mask=shown < 0)
            texts.append(self._chains.evidence.take(missing))
        return pc.binary_join_element_wise(*texts, " ", null_handling="skip")


_Slot = Callable[[_Block, Positions], pa.Array]


def _chain_slot(name: str) -> _Slot:
    return lambda block, turns: block.of_chain(getattr(block._chains, name), turns)


def _drawn_slot(place: int, slot: str) -> _Slot:
    return lambda block, turns: block.drawn(place, slot, turns)


def _aspect_slot(slot: str) -> _Slot:
    return lambda block, turns: block.about(slot, turns)


_DRAWN = itertools.product(enumerate(("next", "other")), ("aspect", "fake_signs", "real_signs"))

_SLOTS: Mapping[str, _Slot] = {
    "verdict": lambda b, t: b.verdict(t, upper=False),
    "Verdict": lambda b, t: b.verdict(t, upper=True),
    **{name: _chain_slot(name) for name in ("findings", "numbered", "main_evidence", "reason",
                                            "conclusion")},
    "aspects": _Block.aspects,
    "image_advice": _Block.image_advice,
    "generation_advice": _Block.generation_advice,
    **{f"{prefix}_{slot}": _drawn_slot(place, slot) for (place, prefix), slot in _DRAWN},
    **{name: _aspect_slot(name) for name in ("aspect", "Aspect", "fake_signs", "real_signs")},
    "second_aspect": lambda b, t: b.about_second("aspect", t),
    "Second_aspect": lambda b, t: b.about_second("Aspect", t),
    "evidence": _Block.evidence,
    "second_evidence": _Block.second_evidence,
    "box": lambda b, t: b.of_finding(b._chains.box, t),
    "place": lambda b, t: b.of_finding(b._chains.place, t),
    "options": _Block.options,
    "letter": _Block.letters,
    "letters": _Block.letters,
    "right_aspects": lambda b, t: b.option_names(t, right=True),
    "wrong_aspects": lambda b, t: b.option_names(t, right=False),
    "right_evidence": _Block.right_evidence,
}  # fmt: skip
"""how each slot is filled, for a block and some of its turns"""


def image_columns(columns: Mapping[str, Sequence[str | None]]) -> ImageColumns:
    """Read what rows say of their images; one entry per chain."""
    arrays = {name: pa.array(columns[name], pa.string()) for name in IMAGE_COLUMNS}
    return ImageColumns(arrays)
