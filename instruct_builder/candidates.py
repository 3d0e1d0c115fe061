"""What each form could ask of each chain in one round: rows before they are chosen. Pure.

Every choice follows from 64-bit hashes of content, so the same chains in any order give the same
candidates, and a new chain disturbs no other one's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from core.ids import seed_of
from core.taxonomy import Taxonomy
from instruct_builder.columns import LABELS, NOWHERE, Chains, Codes, Places, Positions
from instruct_builder.forms import CASES, Form
from instruct_builder.hashing import Mask, Numbers, by_key, fractions, ordered, scramble
from instruct_builder.options import Drawn, OptionBlocks
from instruct_builder.templates import Dialogue, Templates

PRESENT, SECOND = 2, 1
"""what an aspect with a finding, and a second one, add to the code of a case"""


@dataclass(frozen=True)
class Turn:
    """One turn of some rows; arrays have one entry per row."""

    form: Codes
    """place in `Asker.names`"""
    aspect: Codes
    """category asked about; NOWHERE where the form asks about none"""
    second: Codes
    finding: Places
    """the finding that a region form asks about; NOWHERE in others"""
    case: Codes
    """place in CASES"""
    nth: Places
    """how often the same was asked before: each time in other words"""
    options: Drawn | None = None

    def take(self, rows: npt.NDArray[Any]) -> Turn:
        """Some rows, by place or by mask."""
        return Turn(
            self.form[rows],
            self.aspect[rows],
            self.second[rows],
            self.finding[rows],
            self.case[rows],
            self.nth[rows],
            self.options.take(rows) if self.options else None,
        )


@dataclass(frozen=True)
class Asks:
    """Rows of one form or dialogue in one round."""

    unit: str
    chain: Positions
    turns: tuple[Turn, ...]
    round: int
    is_matched: bool = False
    """as many rows about aspects without such a finding are to follow"""

    def __len__(self) -> int:
        return len(self.chain)

    def take(self, rows: npt.NDArray[Any]) -> Asks:
        """Some rows, by place or by mask."""
        turns = tuple(turn.take(rows) for turn in self.turns)
        return replace(self, chain=self.chain[rows], turns=turns)


@dataclass(frozen=True)
class Asker:
    """Asks the chains of one split; the same chains give the same rows."""

    chains: Chains
    templates: Templates
    taxonomy: Taxonomy
    seed: int
    blocks: dict[str, OptionBlocks] = field(default_factory=dict)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """All forms, in the order of the recipe."""
        return tuple(name for _, name, _ in self.templates.forms())

    def units(self, family: str) -> Iterator[tuple[str, Form | Dialogue]]:
        """What makes rows of a family."""
        content = self.templates.families[family]
        yield from ((name, form) for name, form in content.forms.items() if form.stands_alone)
        yield from content.dialogues.items()

    def ask(self, family: str, turn_of: int) -> Iterator[Asks]:
        """The candidates of a family in one round."""
        for name, unit in self.units(family):
            if isinstance(unit, Dialogue):
                yield from self._talk(name, unit, turn_of)
            elif unit.scope == "image":
                yield from self._ask_images(name, unit, turn_of)
            elif unit.is_choice:
                yield from self._ask_choices(name, unit, turn_of)
            elif unit.scope == "aspect":
                yield from self._ask_aspects(name, unit, turn_of)
            elif unit.scope == "region":
                yield from self._ask_regions(name, unit, turn_of)
            else:
                yield from self._ask_pairs(name, unit, turn_of)

    # Keys

    def key(self, *names: Any) -> Numbers:
        """A number for each chain that depends on its image and the names alone."""
        keys: Numbers = scramble(self.chains.image ^ np.uint64(seed_of(self.seed, *names)))
        return keys

    def aspect_keys(self, *names: Any) -> Numbers:
        """The same for each chain and category."""
        own = np.array([seed_of("aspect", name) for name in self.taxonomy.ids], dtype=np.uint64)
        keys: Numbers = scramble(self.key(*names)[:, None] ^ own[None, :])
        return keys

    # Cases

    def fits(self, form: Form, *, present: bool = False, second: bool = False) -> Mask:
        """Which chains a form suits, for an aspect with a finding or without."""
        table = np.array([form.needs.holds(case) for case in CASES])
        return np.asarray(table[self.chains.case + PRESENT * present + SECOND * second])

    def denies(self, form: Form, *, present: bool) -> Mask:
        """Chains for which nothing under such an aspect says what the question asks about."""
        table = np.array([form.denies(case) for case in CASES])
        return np.asarray(table[self.chains.case + PRESENT * present]) & self.chains.can_deny

    def _turn(
        self,
        name: str,
        chain: Positions,
        *,
        nth: Any,
        aspect: Any = NOWHERE,
        second: Any = NOWHERE,
        finding: Any = NOWHERE,
        options: Drawn | None = None,
    ) -> Turn:
        rows = len(chain)

        def column(values: Any, kind: Any) -> Any:
            return np.broadcast_to(np.asarray(values, dtype=kind), rows).copy()

        aspects, seconds = column(aspect, np.int8), column(second, np.int8)
        found = self.chains.found
        case = self.chains.case[chain].astype(np.int8)
        case += np.int8(PRESENT) * ((aspects >= 0) & found[chain, aspects]).astype(np.int8)
        case += np.int8(SECOND) * ((seconds >= 0) & found[chain, seconds]).astype(np.int8)
        return Turn(
            column(self.names.index(name), np.int8),
            aspects,
            seconds,
            column(finding, np.int32),
            case,
            column(nth, np.int32),
            options,
        )

    # Forms

    def _ask_images(self, name: str, form: Form, turn_of: int) -> Iterator[Asks]:
        chain = np.flatnonzero(self.fits(form))
        for number in range(form.rows):
            nth = turn_of * form.rows + number
            if nth < len(form.questions):
                yield Asks(name, chain, (self._turn(name, chain, nth=nth),), turn_of)

    def _ask_aspects(self, name: str, form: Form, turn_of: int) -> Iterator[Asks]:
        matched = form.absent == "matched"
        present = self.chains.found & self.fits(form, present=True)[:, None]
        if form.rows:
            yield self._by_turns(name, form, present, turn_of, form.rows, matched=matched)
        if form.absent == "any":
            missing = ~self.chains.found & self.denies(form, present=False)[:, None]
            yield self._by_turns(name, form, missing, turn_of, form.absent_rows)

    def _by_turns(
        self,
        name: str,
        form: Form,
        fit: Mask,
        turn_of: int,
        rows: int,
        *,
        matched: bool = False,
    ) -> Asks:
        """The aspects that fit take turns; when all had theirs, in other words from the start."""
        order = np.argsort(np.where(fit, fractions(self.aspect_keys(name)), 2.0), axis=1)
        counts = fit.sum(axis=1)
        chains, aspects, nths = [], [], []
        for number in range(rows):
            place = turn_of * rows + number
            new = number < counts  # in one round no aspect comes twice
            chain = np.flatnonzero((counts > 0) & new)
            nth = place // np.maximum(counts[chain], 1)
            kept = nth < len(form.questions)
            chains.append(chain[kept])
            aspects.append(order[chain, place % np.maximum(counts[chain], 1)][kept])
            nths.append(nth[kept])
        chain, aspect = np.concatenate(chains), np.concatenate(aspects)
        turn = self._turn(name, chain, nth=np.concatenate(nths), aspect=aspect)
        return Asks(name, chain, (turn,), turn_of, is_matched=matched)

    def match(self, asks: Asks, room: Positions) -> Asks:
        """As many rows without such a finding, aspect by aspect, from both labels alike.

        `room` is how many rows each chain still takes; it is changed.
        """
        name = asks.unit
        form = self.templates.named[name][1]
        wanted = np.bincount(asks.turns[0].aspect, minlength=len(self.taxonomy.ids))
        free = np.full(len(self.chains), form.absent_rows)
        chains, aspects = [], []
        absent, present = (self.denies(form, present=side) for side in (False, True))
        for aspect in np.argsort(-wanted, kind="stable"):
            if not wanted[aspect]:
                break
            key = self.key(name, "absent", self.taxonomy.ids[aspect], asks.round)
            able = np.where(self.chains.found[:, aspect], present, absent) & (free > 0) & (room > 0)
            chosen = _from_both(np.flatnonzero(able), key, self.chains.label)[: wanted[aspect]]
            free[chosen] -= 1
            room[chosen] -= 1
            chains.append(chosen)
            aspects.append(np.full(len(chosen), aspect))
        chain = np.concatenate([*chains, np.zeros(0, dtype=np.int64)]).astype(np.int64)
        aspect = np.concatenate([*aspects, np.zeros(0, dtype=np.int64)])
        turn = self._turn(name, chain, nth=asks.round, aspect=aspect)
        kept = turn.nth < len(form.questions)
        return Asks(name, chain[kept], (turn.take(kept),), asks.round)

    def _ask_regions(self, name: str, form: Form, turn_of: int) -> Iterator[Asks]:
        able = self.chains.with_box & np.repeat(
            self.fits(form, present=True), np.diff(self.chains.finding_starts)
        )
        chain, finding, place, counts = self._findings_in_turn(name, able)
        for number in range(form.rows):
            at = turn_of * form.rows + number
            mine = (place == at % np.maximum(counts, 1)) & (number < counts)
            nth = at // np.maximum(counts[mine], 1)
            kept = nth < len(form.questions)
            owners, found = chain[mine][kept], finding[mine][kept]
            aspect = self.chains.finding_aspect[found]
            turn = self._turn(name, owners, nth=nth[kept], aspect=aspect, finding=found)
            yield Asks(name, owners, (turn,), turn_of)

    def _findings_in_turn(
        self, name: str, able: Mask
    ) -> tuple[Positions, Positions, Positions, Positions]:
        """Findings that may be asked about: chain, finding, turn within the chain, of how many."""
        finding = np.flatnonzero(able)
        owners = np.repeat(np.arange(len(self.chains)), np.diff(self.chains.finding_starts))
        chain = owners[finding]
        within = (finding - self.chains.finding_starts[chain]).astype(np.uint64)
        keys = scramble(self.key(name)[chain] ^ (within + np.uint64(1)))
        order = ordered(chain, keys)
        counts = np.bincount(chain, minlength=len(self.chains))
        starts = np.concatenate([[0], np.cumsum(counts)])[:-1]
        place = np.empty(len(finding), dtype=np.int64)
        place[order] = np.arange(len(finding)) - starts[chain[order]]
        return chain, finding, place, counts[chain]

    def _ask_pairs(self, name: str, form: Form, turn_of: int) -> Iterator[Asks]:
        for number in range(form.rows):
            at = turn_of * form.rows + number
            chain, aspect, second = self._pairs(form, name, at)
            if at < len(form.questions):
                turn = self._turn(name, chain, nth=at, aspect=aspect, second=second)
                yield Asks(name, chain, (turn,), turn_of)

    def _pairs(
        self, form: Form, *names: Any, used: Mask | None = None
    ) -> tuple[Positions, Codes, Codes]:
        """One aspect with a finding and another one, in an order that tells nothing."""
        keys = fractions(self.aspect_keys(*names))
        free = np.ones_like(self.chains.found) if used is None else ~used
        able = self.chains.found & free
        first = np.where(able, keys, 2.0).argmin(axis=1)
        everyone = np.arange(len(self.chains))
        others = free.copy()
        others[everyone, first] = False
        others &= self.chains.found | self.chains.can_deny[:, None]
        second = np.where(others, keys, 2.0).argmin(axis=1)
        good = able.any(axis=1) & others.any(axis=1)
        both = self.chains.found[everyone, second]
        fits = np.where(
            both, self.fits(form, present=True, second=True), self.fits(form, present=True)
        )
        swap = (self.key(*names, "order") & np.uint64(1)).astype(bool)
        one, two = np.where(swap, second, first), np.where(swap, first, second)
        chain = np.flatnonzero(good & fits)
        return chain, one[chain].astype(np.int8), two[chain].astype(np.int8)

    def _ask_choices(self, name: str, form: Form, turn_of: int) -> Iterator[Asks]:
        blocks = self.blocks.setdefault(
            name,
            OptionBlocks(
                self.chains.found,
                several=form.answer == "choices",
                absent=form.right == "absent",
            ),
        )
        able = self.fits(form, present=form.right == "present") & self.chains.can_deny
        for number in range(form.rows):
            nth = turn_of * form.rows + number
            if nth >= len(form.questions):
                continue
            drawn = blocks.draw(able, self.key(name, "options", nth))
            aspect = drawn.single if form.answer == "choice" else NOWHERE
            turn = self._turn(name, drawn.chain, nth=nth, aspect=aspect, options=drawn)
            yield Asks(name, drawn.chain, (turn,), turn_of)

    # Dialogues

    def _talk(self, name: str, dialogue: Dialogue, turn_of: int) -> Iterator[Asks]:
        for number in range(dialogue.rows):
            at = turn_of * dialogue.rows + number
            if at < min(self._questions_of(name, turn) for turn in dialogue.turns):
                yield self._talk_once(name, dialogue, turn_of, at)

    def _questions_of(self, name: str, forms: Sequence[str]) -> int:
        named = [self.templates.named[form][1] for form in forms]
        return min(len(form.follow_ups or form.questions) for form in named)

    def _talk_once(self, name: str, dialogue: Dialogue, turn_of: int, at: int) -> Asks:
        """One talk of each chain that some form of every turn suits."""
        alive = np.ones(len(self.chains), dtype=bool)
        used = np.zeros_like(self.chains.found)
        turns: list[Turn] = []
        for number, forms in enumerate(dialogue.turns):
            turn = self._draw_turn(forms, used, name, number, at)
            alive &= turn.form != NOWHERE
            turns.append(turn)
            for aspect in (turn.aspect, turn.second):
                rows = np.flatnonzero(aspect >= 0)
                used[rows, aspect[rows]] = True
        chain = np.flatnonzero(alive)
        return Asks(name, chain, tuple(turn.take(chain) for turn in turns), turn_of)

    def _draw_turn(self, forms: Sequence[str], used: Mask, name: str, number: int, at: int) -> Turn:
        """One entry per chain; NOWHERE as form where none of the forms suits it."""
        drawn = [self._all_chains(form, used, name, number, at) for form in forms]
        suits = np.stack([turn.form != NOWHERE for turn in drawn], axis=1)
        keys = np.stack([fractions(self.key(name, number, at, form)) for form in forms], axis=1)
        pick = np.where(suits, keys, 2.0).argmin(axis=1)
        everyone = np.arange(len(self.chains))

        def column(values: Mapping[int, Any] | list[Any]) -> Any:
            return np.stack([values[place] for place in range(len(forms))], axis=1)[everyone, pick]

        return Turn(
            *(
                column([getattr(turn, part) for turn in drawn])
                for part in ("form", "aspect", "second", "finding", "case", "nth")
            )
        )

    def _all_chains(self, form_name: str, used: Mask, *names: Any) -> Turn:
        """A turn of one form for each chain; NOWHERE as form where it does not suit."""
        form = self.templates.named[form_name][1]
        everyone = np.arange(len(self.chains))
        at = names[-1]
        aspect = second = finding = np.full(len(everyone), NOWHERE)
        if form.scope == "image":
            good = self.fits(form)
        elif form.scope == "aspect":
            good, aspect = self._free_aspect(form, used, form_name, *names)
        elif form.scope == "region":
            good, aspect, finding = self._free_region(form, used, form_name, *names)
        else:
            chain, one, two = self._pairs(form, form_name, *names, used=used)
            good = np.isin(everyone, chain)
            aspect, second = aspect.copy(), second.copy()
            aspect[chain], second[chain] = one, two
        turn = self._turn(
            form_name, everyone, nth=-1 - at, aspect=aspect, second=second, finding=finding
        )
        return replace(turn, form=np.where(good, turn.form, NOWHERE).astype(np.int8))

    def _free_aspect(self, form: Form, used: Mask, *names: Any) -> tuple[Mask, Positions]:
        keys = fractions(self.aspect_keys(*names))
        present = self.chains.found & self.fits(form, present=True)[:, None] & ~used
        missing = np.zeros_like(present)
        if form.absent != "none":
            missing = ~self.chains.found & self.denies(form, present=False)[:, None] & ~used
        preferred = np.where(present, keys, np.where(missing, keys + 1, 3.0))
        return np.asarray((present | missing).any(axis=1)), preferred.argmin(axis=1)

    def _free_region(
        self, form: Form, used: Mask, *names: Any
    ) -> tuple[Mask, Positions, Positions]:
        owners = np.repeat(np.arange(len(self.chains)), np.diff(self.chains.finding_starts))
        able = self.chains.with_box & self.fits(form, present=True)[owners]
        able &= ~used[owners, self.chains.finding_aspect]
        chain, found, place, _ = self._findings_in_turn(str(names), able)
        finding = np.full(len(self.chains), NOWHERE)
        finding[chain[place == 0]] = found[place == 0]
        aspect = np.where(finding >= 0, self._aspect_of_finding(finding), NOWHERE)
        return finding >= 0, aspect, finding

    def _aspect_of_finding(self, finding: Positions) -> Positions:
        if not len(self.chains.finding_aspect):
            return np.full(len(finding), NOWHERE)
        return np.asarray(self.chains.finding_aspect[np.maximum(finding, 0)])


def _from_both(able: Positions, key: Numbers, label: Codes) -> Positions:
    """Chains by their keys, photographs and fakes in turn."""
    order = able[by_key(key[able])]
    rank = np.empty(len(order), dtype=np.int64)
    for code in range(len(LABELS)):
        mine = label[order] == code
        rank[mine] = np.arange(mine.sum()) * len(LABELS) + code
    return order[ordered(rank)]
