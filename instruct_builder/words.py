"""From a plan to rows in ROW_SCHEMA, slot by slot over whole columns. Pure.

Texts are runs of pieces (`pieces`): every slot is looked up once for all turns that have it, then
all pieces are taken from one array of texts and joined.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.taxonomy import Taxonomy
from instruct_builder.columns import (
    LABELS,
    NOWHERE,
    Chains,
    Positions,
    Wholes,
    join_names,
)
from instruct_builder.forms import CASES, Form
from instruct_builder.hashing import scramble, spell_ids
from instruct_builder.options import OPTIONS, SETS
from instruct_builder.patterns import LETTERS, in_words
from instruct_builder.pieces import EMPTY, Pieces, distinct, pieces_of
from instruct_builder.plan import Plan, units_of
from instruct_builder.shards import MESSAGE, ROW_SCHEMA
from instruct_builder.templates import Templates, category_words

MOST_ADVICE = 3
"""pieces of advice in one answer"""
SPELT_SETS = tuple(in_words(letters) for letters in SETS)
_AT_LETTER = np.array([[letter in letters for letter in LETTERS] for letters in SETS])
"""(sets, 4): which letters are in which set"""
_BASE = 64
_DIGITS = _BASE ** np.arange(OPTIONS)[::-1]
"""what the category at each letter counts in a number that stands for all four"""


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

    @cached_property
    def pieces(self) -> Pieces:
        """Of the patterns of all forms."""
        return pieces_of(self.forms)

    @cached_property
    def spell(self) -> Callable[[int], str]:
        """The names of some categories, given as digits, as in a sentence."""
        names = ["", *self.names]

        @cache
        def spelt(code: int) -> str:
            places = (code // digit % _BASE for digit in _DIGITS.tolist())
            return join_names([names[place] for place in places if place])

        return spelt

    def target(self, form: Form, case: int, right: int) -> str | None:
        """The closed answer of a turn."""
        return form.target(CASES[case], SPELT_SETS[right] if right >= 0 else None)


class _Inserted(NamedTuple):
    """What a slot says in some turns: which of some texts in each; NOWHERE for nothing."""

    texts: pa.Array
    place: Positions


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
        names = self._words.pieces.names
        asked, answered = self._patterns
        later = np.ones(len(asked), dtype=np.int64)
        later[self._plan.first_turn[:-1]] = 0
        spelt = pa.concat_arrays([names, pc.binary_join_element_wise(" ", names, "")])
        places = np.stack([asked + later * len(names), answered], axis=1).reshape(-1)
        starts = pa.array((2 * self._plan.first_turn).astype(np.int32))
        return pc.binary_join(pa.ListArray.from_arrays(starts, spelt.take(pa.array(places))), "")

    @property
    def _patterns(self) -> tuple[Positions, Positions]:
        """Question and answer of each turn, by their places among the patterns of all forms."""
        known, turns = self._words.pieces, self._turns
        form = turns.form.astype(np.int64)
        return known.first_question[form] + turns.question, known.first_answer[form] + turns.answer

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
        code = (form * len(CASES) + case) * (len(SETS) + 1) + right + 2
        code[self._plan.num_turns > 1] = 0
        codes, at = distinct(code, len(self._words.forms) * len(CASES) * (len(SETS) + 1) + 1)
        targets = [self._target_of(each - 1) for each in codes.tolist()]
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
        number = len(self._turns.form)
        roles = pa.array(["user", "assistant"], pa.string())
        role = roles.take(pa.array(np.tile(np.array([0, 1], dtype=np.int8), number)))
        turns = pa.StructArray.from_arrays([role, self._contents()], fields=list(MESSAGE))
        starts = pa.array((2 * self._plan.first_turn).astype(np.int32))
        kind = ROW_SCHEMA.field("messages").type
        return pa.ListArray.from_arrays(starts, turns, type=kind)

    def _contents(self) -> pa.Array:
        """What all messages say; inserted text is never read as a pattern."""
        known = self._words.pieces
        starts, piece = known.of_texts(np.stack(self._patterns, axis=1).reshape(-1))
        message = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        texts, number = [known.literals], len(known.literals)
        for slot, at in known.slots_among(piece):
            inserted = _SLOTS[slot](self, message[at] // 2)
            piece[at] = np.where(inserted.place < 0, EMPTY, inserted.place + number)
            texts.append(inserted.texts)
            number += len(inserted.texts)
        said = pa.concat_arrays(texts).take(pa.array(piece))
        return pc.binary_join(pa.ListArray.from_arrays(pa.array(starts), said), "")

    def of_chain(self, texts: pa.Array, turns: Positions) -> _Inserted:
        """A text of the chain."""
        return _Inserted(texts, self._chain[turns])

    def of_category(self, slot: str, codes: Wholes) -> _Inserted:
        """A text of a category."""
        return _Inserted(self._words.category[slot], codes.astype(np.int64))

    def about(self, slot: str, turns: Positions) -> _Inserted:
        """Of the aspect that is asked about."""
        return self.of_category(slot, self._turns.aspect[turns])

    def about_second(self, slot: str, turns: Positions) -> _Inserted:
        """Of the second aspect."""
        return self.of_category(slot, self._turns.second[turns])

    def verdict(self, turns: Positions, *, upper: bool) -> _Inserted:
        """`fake`, or `Fake`."""
        spelt = [label.capitalize() if upper else label.value for label in LABELS]
        label = self._chains.label[self._chain[turns]]
        return _Inserted(pa.array(spelt, pa.string()), label.astype(np.int64))

    def evidence(self, turns: Positions) -> _Inserted:
        """Of one finding where one is asked about, else of all under the aspect."""
        finding = self._finding[turns].astype(np.int64)
        of_all = self._evidence_of(self._turns.aspect[turns], turns)
        behind = np.where(of_all.place < 0, NOWHERE, of_all.place + len(self._chains.finding_text))
        texts = pa.concat_arrays([self._chains.finding_text, of_all.texts])
        return _Inserted(texts, np.where(finding < 0, behind, finding))

    def second_evidence(self, turns: Positions) -> _Inserted:
        return self._evidence_of(self._turns.second[turns], turns)

    def _evidence_of(self, codes: Wholes, turns: Positions) -> _Inserted:
        places = self._chains.aspect_evidence[self._chain[turns], codes]
        return _Inserted(self._chains.evidence, places.astype(np.int64))

    def of_finding(self, texts: pa.Array, turns: Positions) -> _Inserted:
        """Box or place of the finding that is asked about."""
        return _Inserted(texts, self._finding[turns].astype(np.int64))

    def aspects(self, turns: Positions) -> _Inserted:
        """The names of all categories with a finding."""
        return self.of_chain(self._chains.join_names(self._words.names), turns)

    def image_advice(self, turns: Positions) -> _Inserted:
        """What would mend the image."""
        given = [each.image_advice for each in self._words.taxonomy.categories]
        return self.of_chain(self._chains.join_aspects(given, most=MOST_ADVICE), turns)

    def generation_advice(self, turns: Positions) -> _Inserted:
        """What would mend the generation."""
        given = [each.generation_advice for each in self._words.taxonomy.categories]
        return self.of_chain(self._chains.join_aspects(given, most=MOST_ADVICE), turns)

    def drawn(self, place: int, slot: str, turns: Positions) -> _Inserted:
        """One of two aspects worth a look: without a finding where there are two such."""
        found = self._chains.found[self._chain[turns]]
        missing = ~found
        pool = np.where((missing.sum(axis=1) > 1)[:, None], missing, True)
        steps = np.arange(1, found.shape[1] + 1, dtype=np.uint64)
        keys = scramble(self._turns.draw[turns][:, None] ^ (steps << np.uint64(32)))
        order = np.argsort(np.where(pool, keys >> np.uint64(1), np.uint64(2**63)), axis=1)
        return self.of_category(slot, order[:, place])

    # Options

    def options(self, turns: Positions) -> _Inserted:
        """Four lines, `A. Name` to `D. Name`."""
        names, shown = self._words.category["Aspect"], self._turns.shown[turns]
        lines = [
            pc.binary_join_element_wise(
                pa.scalar(f"{letter}. "), names.take(pa.array(shown[:, at])), ""
            )
            for at, letter in enumerate(LETTERS)
        ]
        return _each(pc.binary_join_element_wise(*lines, "\n"))

    def letters(self, turns: Positions) -> _Inserted:
        """`C`, or `A and C`."""
        right = self._turns.right[turns].astype(np.int64)
        return _Inserted(pa.array(SPELT_SETS, pa.string()), right)

    def option_names(self, turns: Positions, *, right: bool) -> _Inserted:
        """The names of the right, or of the wrong, options as in a sentence."""
        kept = _AT_LETTER[self._turns.right[turns]] == right
        digits = np.where(kept, self._turns.shown[turns].astype(np.int64) + 1, 0)
        codes, place = np.unique(digits @ _DIGITS, return_inverse=True)
        spelt = [*map(self._words.spell, codes.tolist())]
        return _Inserted(pa.array(spelt, pa.string()), place)

    def right_evidence(self, turns: Positions) -> _Inserted:
        """What was found under the right options, in the order of their letters."""
        right = _AT_LETTER[self._turns.right[turns]]
        texts = []
        for at in range(OPTIONS):
            codes = self._turns.shown[turns, at]
            places = self._chains.aspect_evidence[self._chain[turns], codes]
            shown = np.where(right[:, at], places, NOWHERE)
            missing = pa.array(shown, mask=shown < 0)
            texts.append(self._chains.evidence.take(missing))
        return _each(pc.binary_join_element_wise(*texts, " ", null_handling="skip"))


def _each(texts: pa.Array) -> _Inserted:
    """A text of its own for each."""
    return _Inserted(texts, np.arange(len(texts)))


_Slot = Callable[[_Block, Positions], _Inserted]


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
