"""The plan of a set: what every chain is asked, and in which words, as columns. Pure.

A question is worth asking only if it does not give its answer away. So an aspect is asked about as
often where a chain has no finding as where it has one, a category is the right option of a choice
about as often as chance has it, and which chains are asked what is balanced over the whole set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from core.errors import ConfigError
from core.ids import sha256_text
from core.taxonomy import Taxonomy
from instruct_builder.candidates import Asker, Asks
from instruct_builder.columns import NOWHERE, Chains, Codes, Places, Positions, Wholes
from instruct_builder.forms import CASES, Form
from instruct_builder.hashing import Numbers, Shorts, by_key, counted, grouped, ordered, scramble
from instruct_builder.options import OPTIONS, SETS
from instruct_builder.templates import Templates

MOST_ROUNDS = 200
IDS_AT_ONCE = 32_768
"""rows: few enough for their numbers to stay near the processor"""
UPPER, LOWER = 0x243F6A8885A308D3, 0x13198A2E03707344
"""where the two halves of an id begin: the first digits of pi, so that nobody has chosen them"""
Wide = npt.NDArray[np.int16]
Quota = Mapping[str, int]
"""rows of each family"""


@dataclass(frozen=True)
class Turns:
    """All turns of a set, those of a row one after the other; arrays have one entry per turn."""

    row: Positions
    form: Codes
    question: Wide
    """place among the questions of the form, follow-ups after the others"""
    answer: Wide
    """place among its answers"""
    aspect: Codes
    second: Codes
    finding: Places
    case: Codes
    shown: Codes
    """(turns, 4): categories at the letters; NOWHERE where the turn has no options"""
    right: Codes
    """place in `options.SETS`; NOWHERE where the turn has no options"""
    draw: Numbers
    """a number of its own, for what is drawn while it is worded"""


@dataclass(frozen=True)
class Plan:
    """Rows in the order in which they are written: chain by chain."""

    chain: Positions
    """of each row"""
    unit: Wide
    """form or dialogue of each row, place in `units`"""
    first_turn: Positions
    """(rows + 1): where the turns of each row begin"""
    upper: Numbers
    """with `lower`, the 80 bits of each instruction id"""
    lower: Shorts
    turns: Turns

    def __len__(self) -> int:
        return len(self.chain)

    @property
    def num_turns(self) -> Positions:
        return np.diff(self.first_turn)

    @property
    def row_starts(self) -> Positions:
        """Where the rows of each chain begin that has any, and the end."""
        borders = np.flatnonzero(np.diff(self.chain)) + 1
        return np.concatenate([[0], borders, [len(self.chain)]]).astype(np.int64)

    def take(self, start: int, stop: int) -> Plan:
        """The rows from `start` to before `stop`; chains and rows keep their numbers."""
        turns = slice(self.first_turn[start], self.first_turn[stop])
        kept = {name: getattr(self.turns, name)[turns] for name in Turns.__dataclass_fields__}
        kept["row"] = kept["row"] - start
        return Plan(
            self.chain[start:stop],
            self.unit[start:stop],
            self.first_turn[start : stop + 1] - turns.start,
            self.upper[start:stop],
            self.lower[start:stop],
            Turns(**kept),
        )

    def pick(self, rows: Positions) -> Plan:
        """Some rows in ascending order; chains and rows keep their numbers."""
        first_turn = np.concatenate([[0], np.cumsum(self.num_turns[rows])])
        lengths = np.diff(first_turn)
        turns = np.repeat(self.first_turn[rows] - first_turn[:-1], lengths)
        turns += np.arange(len(turns))
        kept = {name: getattr(self.turns, name)[turns] for name in Turns.__dataclass_fields__}
        kept["row"] = np.repeat(np.arange(len(rows)), lengths)
        return Plan(
            self.chain[rows],
            self.unit[rows],
            first_turn,
            self.upper[rows],
            self.lower[rows],
            Turns(**kept),
        )


def units_of(templates: Templates) -> tuple[tuple[str, str], ...]:
    """Family and name of all that makes rows: forms, then dialogues."""
    forms = [(family, name) for family, name, _ in templates.forms()]
    return (*forms, *((family, name) for family, name, _ in templates.dialogues()))


def make_plan(
    splits: Sequence[Chains],
    templates: Templates,
    taxonomy: Taxonomy,
    *,
    seed: int,
    rows: int | None = None,
    shares: Mapping[str, float] | None = None,
) -> Plan:
    """Plan the chains of each split by itself; the chains of a split keep their order.

    Without `rows`, each family takes what the recipe allows from each chain. With `rows`, chains
    are asked again in other words until there are so many, `shares` of them from each family; a
    ConfigError says how many they carry when that is too many.
    """
    quotas = quotas_of([*map(len, splits)], rows, shares or templates.caps)
    askers = [Asker(chains, templates, taxonomy, seed) for chains in splits]
    try:
        plans = [plan_split(asker, quota) for asker, quota in zip(askers, quotas, strict=True)]
    except TooFewRowsError:
        explain_capacity(askers, quotas)
    return joined(plans, splits)


def plan_split(asker: Asker, quota: Quota | None) -> Plan:
    """The rows of the chains of one split; TooFewRowsError when a family cannot fill its quota."""
    asked: list[Asks] = []
    for family, cap in asker.templates.caps.items():
        some = (
            _up_to(asker, family, cap) if quota is None else _exactly(asker, family, quota[family])
        )
        asked += [asks for asks in some if len(asks)]
    return _finish(asker, asked)


def joined(plans: Sequence[Plan], splits: Sequence[Chains]) -> Plan:
    """The plans of some splits as one; rows, turns, chains and findings are counted on."""
    row = turn = chain = finding = 0
    parts = []
    for plan, split in zip(plans, splits, strict=True):
        parts.append(_moved(plan, row, turn, chain, finding))
        row, turn = row + len(plan), turn + len(plan.turns.form)
        chain, finding = chain + len(split), finding + len(split.finding_aspect)
    ends = np.array([turn], dtype=np.int64)
    turns = {
        name: np.concatenate([getattr(part.turns, name) for part in parts])
        for name in Turns.__dataclass_fields__
    }
    return Plan(
        chain=np.concatenate([part.chain for part in parts]),
        unit=np.concatenate([part.unit for part in parts]),
        first_turn=np.concatenate([*(part.first_turn[:-1] for part in parts), ends]),
        upper=np.concatenate([part.upper for part in parts]),
        lower=np.concatenate([part.lower for part in parts]),
        turns=Turns(**turns),
    )


def _moved(plan: Plan, row: int, turn: int, chain: int, finding: int) -> Plan:
    """The same plan behind so many rows, turns, chains and findings."""
    own = plan.turns.finding
    moved = np.where(own >= 0, own + np.int32(finding), np.int32(NOWHERE))
    turns = replace(plan.turns, row=plan.turns.row + row, finding=moved)
    return replace(plan, chain=plan.chain + chain, first_turn=plan.first_turn + turn, turns=turns)


def quotas_of(
    sizes: Sequence[int], rows: int | None, shares: Mapping[str, float]
) -> list[Quota | None]:
    """For each split, of so many chains, the rows of each family; they add up to `rows`."""
    if rows is None:
        return [None for _ in sizes]
    weights = [
        (place, family, size * share)
        for place, size in enumerate(sizes)
        for family, share in shares.items()
    ]
    total = sum(weight for _, _, weight in weights)
    exact = [rows * weight / total for _, _, weight in weights]
    whole = [math.floor(number) for number in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for index in by_rest[: rows - sum(whole)]:
        whole[index] += 1
    quotas: list[dict[str, int]] = [{} for _ in sizes]
    for (place, family, _), number in zip(weights, whole, strict=True):
        quotas[place][family] = number
    return [*quotas]


class TooFewRowsError(Exception):
    """A family carries fewer rows than it is to have."""


def explain_capacity(askers: Sequence[Asker], quotas: Sequence[Quota | None]) -> NoReturn:
    """Say how many rows the chains carry without asking anything twice."""
    scale = 1.0
    for asked, wanted in zip(askers, quotas, strict=True):
        asker = replace(asked, blocks={})
        for family, quota in (wanted or {}).items():
            carried = 0
            for turn_of in range(MOST_ROUNDS):
                new = sum(len(asks) for asks in asker.ask(family, turn_of))
                carried += new
                if not new or carried >= quota:
                    break
            if carried < quota:
                scale = min(scale, carried / quota)
    rows = sum(sum(quota.values()) for quota in quotas if quota)
    raise ConfigError(
        f"{rows:,} rows are more than these chains carry without asking anything twice: with "
        f"these shares of the families they carry {math.floor(rows * scale):,}"
    )


# Which candidates become rows


def _up_to(asker: Asker, family: str, cap: int) -> list[Asks]:
    """At most `cap` rows of a family from each chain, drawn from one round."""
    candidates = list(asker.ask(family, 0))
    chosen = _choose(asker, candidates, np.full(len(asker.chains), cap), None)
    return _with_matches(asker, chosen, cap)


def _exactly(asker: Asker, family: str, quota: int) -> list[Asks]:
    """So many rows of a family over all chains, as evenly as they can be had."""
    candidates: list[Asks] = []
    carried = 0
    for turn_of in range(MOST_ROUNDS):
        new = list(asker.ask(family, turn_of))
        carried += sum(map(len, new))
        candidates += new
        if carried >= 1.5 * quota or not any(map(len, new)):
            break
    if carried < quota:
        raise TooFewRowsError
    chosen = _choose(asker, candidates, None, quota)
    rows = _with_matches(asker, chosen, None)
    missing = quota - sum(map(len, rows))
    if missing > 0:
        rows += _top_up(asker, candidates, chosen, missing)
    return rows if missing >= 0 else _drop(asker, rows, -missing)


def _flat(asker: Asker, candidates: Sequence[Asks]) -> tuple[Positions, Positions, Numbers, Codes]:
    """Of all candidates: which list it is in, chain, key and cost."""
    owner = np.repeat(np.arange(len(candidates)), [len(asks) for asks in candidates])
    chain = np.concatenate([asks.chain for asks in candidates] or [np.zeros(0, np.int64)])
    keys = [
        scramble(asker.key(asks.unit, "choose", asks.round, place)[asks.chain])
        for place, asks in enumerate(candidates)
    ]
    key = np.concatenate(keys or [np.zeros(0, np.uint64)])
    cost = np.repeat([2 if asks.is_matched else 1 for asks in candidates], [*map(len, candidates)])
    return owner, chain, key, cost.astype(np.int8)


def _choose(
    asker: Asker, candidates: Sequence[Asks], cap: Positions | None, quota: int | None
) -> list[Asks]:
    """Rows by their keys, rounds one after the other: so many of each chain, or so many in all.

    A row that asks for a counterpart without a finding costs two.
    """
    owner, chain, key, cost = _flat(asker, candidates)
    rounds = np.array([asks.round for asks in candidates], dtype=np.int64)[owner]
    by_keys = by_key(key)
    order = grouped(by_keys, chain * MOST_ROUNDS + rounds)
    spent = np.empty(len(owner), dtype=np.int64)
    spent[order] = _running(cost[order].astype(np.int64), chain[order])
    if cap is not None:
        return _split(candidates, spent <= cap[chain])
    kept = np.zeros(len(owner), dtype=bool)
    again = grouped(by_keys, spent)
    kept[again] = np.cumsum(cost[again]) <= (quota or 0)
    return _split(candidates, kept)


def _running(cost: Positions, chain: Positions) -> Positions:
    """What the rows of each chain have cost so far; equal chains stand together."""
    total = np.cumsum(cost)
    first = np.flatnonzero(np.concatenate([[True], chain[1:] != chain[:-1]]))[: len(chain)]
    before = np.repeat(total[first] - cost[first], np.diff(np.concatenate([first, [len(chain)]])))
    return np.asarray(total - before)


def _split(candidates: Sequence[Asks], kept: npt.NDArray[np.bool_]) -> list[Asks]:
    ends = np.cumsum([0, *map(len, candidates)])
    return [asks.take(kept[ends[place] : ends[place + 1]]) for place, asks in enumerate(candidates)]


def _with_matches(asker: Asker, chosen: Sequence[Asks], cap: int | None) -> list[Asks]:
    """Add the rows without a finding that matched rows ask for."""
    number = len(asker.chains)
    taken = np.zeros(number, dtype=np.int64)
    for asks in chosen:
        taken += np.bincount(asks.chain, minlength=number)
    room = np.full(number, 2**31) - taken if cap is None else cap - taken
    matched = [asker.match(asks, room) for asks in chosen if asks.is_matched and len(asks)]
    return [*chosen, *matched]


def _top_up(
    asker: Asker, candidates: Sequence[Asks], chosen: Sequence[Asks], missing: int
) -> list[Asks]:
    """Further rows, in the order of their keys, where counterparts were not to be had."""
    owner, _, key, _ = _flat(asker, candidates)
    taken = np.concatenate(
        [np.isin(asks.chain, kept.chain) for asks, kept in zip(candidates, chosen, strict=True)]
        or [np.zeros(0, bool)]
    )
    is_matched = np.array([asks.is_matched for asks in candidates], dtype=bool)[owner]
    free = np.flatnonzero(~taken)
    order = free[np.lexsort((key[free], is_matched[free]))]
    kept = np.zeros(len(owner), dtype=bool)
    kept[order[:missing]] = True
    return _split(candidates, kept)


def _drop(asker: Asker, rows: Sequence[Asks], number: int) -> list[Asks]:
    """The same rows but for a few, by their keys."""
    owner, _, key, _ = _flat(asker, rows)
    kept = np.ones(len(owner), dtype=bool)
    kept[by_key(key)[:number]] = False
    return _split(rows, kept)


# In which words


@dataclass(frozen=True)
class _Wording:
    """Which patterns a form has, by case; looked up in columns."""

    questions: int
    follow_ups: int
    fitting: Wide
    """(cases, 2, answers): places of the fitting answers without and with a conclusion"""
    number: Wide
    """(cases, 2): how many fit"""
    question_hash: Numbers
    answer_hash: Numbers


def _wording(form: Form) -> _Wording:
    answers = len(form.answer_patterns)
    fitting = np.zeros((len(CASES), 2, answers), dtype=np.int16)
    number = np.zeros((len(CASES), 2), dtype=np.int16)
    for code, case in enumerate(CASES):
        for has_conclusion in (False, True):
            places = form.fitting(case, has_conclusion=has_conclusion)
            number[code, int(has_conclusion)] = len(places)
            fitting[code, int(has_conclusion), : len(places)] = places
    texts = [*form.questions, *form.follow_ups]
    return _Wording(
        len(form.questions),
        len(form.follow_ups),
        fitting,
        number,
        np.array([_text_number(text) for text in texts], dtype=np.uint64),
        np.array([_text_number(p.text) for _, p in form.answer_patterns], dtype=np.uint64),
    )


def _text_number(text: str) -> int:
    return int(sha256_text(text)[:16], 16)


def _finish(asker: Asker, asks: list[Asks]) -> Plan:
    """Order the rows by chain, pick their patterns, and give each its id; `asks` is used up."""
    units = {name: place for place, (_, name) in enumerate(units_of(asker.templates))}
    lengths = [*map(len, asks)]
    num_turns = np.array([len(each.turns) for each in asks], dtype=np.int64)
    chain = np.concatenate([each.chain for each in asks] or [np.zeros(0, np.int64)])
    plan = _blank(len(chain), int(num_turns @ np.array(lengths, dtype=np.int64)))
    order = ordered(chain)
    plan.chain[:] = chain[order]
    unit = np.array([units[each.unit] for each in asks], dtype=np.int16)
    plan.unit[:] = np.repeat(unit, lengths)[order]
    np.cumsum(np.repeat(num_turns, lengths)[order], out=plan.first_turn[1:])
    row_of = np.empty(len(chain), dtype=np.int64)
    row_of[order] = np.arange(len(chain))
    for rows in np.split(row_of, np.cumsum(lengths)[:-1]) if asks else ():
        each = asks.pop(0)
        for number in range(len(each.turns)):
            _pick(asker, each, rows, number, plan)
    for first in range(0, len(chain), IDS_AT_ONCE):
        _give_ids(asker, first, min(first + IDS_AT_ONCE, len(chain)), plan)
    return plan


def _blank(rows: int, turns: int) -> Plan:
    """A plan whose rows and turns are still to be filled in."""
    return Plan(
        chain=np.empty(rows, np.int64),
        unit=np.empty(rows, np.int16),
        first_turn=np.zeros(rows + 1, np.int64),
        upper=np.empty(rows, np.uint64),
        lower=np.empty(rows, np.uint16),
        turns=Turns(
            row=np.empty(turns, np.int64),
            form=np.empty(turns, np.int8),
            question=np.empty(turns, np.int16),
            answer=np.empty(turns, np.int16),
            aspect=np.empty(turns, np.int8),
            second=np.empty(turns, np.int8),
            finding=np.empty(turns, np.int32),
            case=np.empty(turns, np.int8),
            shown=np.full((turns, OPTIONS), NOWHERE, np.int8),
            right=np.full(turns, NOWHERE, np.int8),
            draw=np.empty(turns, np.uint64),
        ),
    )


def _pick(asker: Asker, asks: Asks, rows: Positions, number: int, plan: Plan) -> None:
    """Question and answer pattern of one turn of some rows: from a hash, then counting on."""
    chain, turn = asks.chain, asks.turns[number]
    question = np.zeros(len(rows), dtype=np.int16)
    answer = np.zeros(len(rows), dtype=np.int16)
    finding = _within(asker, turn.finding, chain)
    about = counted(turn.aspect) ^ scramble(counted(turn.second)) ^ counted(finding) << 1
    key = scramble(asker.key("words")[chain] ^ about ^ counted(turn.form) >> np.uint64(1))
    draw = scramble(key ^ counted(turn.nth) ^ np.uint64(number + 1))
    for code in np.flatnonzero(np.bincount(turn.form)):
        mine = np.flatnonzero(turn.form == code)
        words = _WORDINGS.of(asker.templates.named[asker.names[code]][1])
        later = number > 0 and words.follow_ups > 0
        choices = words.follow_ups if later else words.questions
        place = (key[mine] % np.uint64(choices)).astype(np.int64) + turn.nth[mine]
        question[mine] = place % choices + (words.questions if later else 0)
        has = asker.chains.has_conclusion[chain[mine]].astype(np.int64)
        case = turn.case[mine]
        count = words.number[case, has].astype(np.uint64)
        answer[mine] = words.fitting[case, has, (draw[mine] % count).astype(np.int64)]
    at, turns = plan.first_turn[rows] + number, plan.turns
    turns.row[at] = rows
    turns.form[at] = turn.form
    turns.question[at] = question
    turns.answer[at] = answer
    turns.aspect[at] = turn.aspect
    turns.second[at] = turn.second
    turns.finding[at] = turn.finding
    turns.case[at] = turn.case
    turns.draw[at] = draw
    if turn.options is not None:
        turns.shown[at] = turn.options.shown
        turns.right[at] = turn.options.right


def _within(asker: Asker, finding: Places, chain: Positions) -> Wholes:
    """The place of each finding within its chain, whatever chains stand before it."""
    starts = asker.chains.finding_starts[chain]
    return np.where(finding >= 0, finding - starts, NOWHERE)


class _WordingCache:
    """One `_Wording` for each form object; forms are few and live as long as their recipe."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Form, _Wording]] = {}

    def of(self, form: Form) -> _Wording:
        if id(form) not in self._known:
            self._known[id(form)] = (form, _wording(form))
        return self._known[id(form)][1]


_WORDINGS = _WordingCache()


def _give_ids(asker: Asker, first: int, stop: int, plan: Plan) -> None:
    """80 bits for each row, from its chain, the texts of its patterns and all that fills them."""
    part = plan.take(first, stop)
    chain, turns = part.chain, part.turns
    upper = asker.chains.upper[chain] ^ np.uint64(UPPER)
    lower = (asker.chains.lower[chain].astype(np.uint64) << np.uint64(48)) ^ np.uint64(LOWER)
    lower ^= asker.chains.upper[chain]
    finding = _within(asker, turns.finding, chain[turns.row])
    for number in range(int(part.num_turns.max(initial=0))):
        rows = np.flatnonzero(part.num_turns > number)
        at = part.first_turn[rows] + number
        for value in _said(asker, turns, at, finding):
            upper[rows] = scramble(upper[rows] ^ value)
            lower[rows] = scramble(lower[rows] + value * np.uint64(3))
    plan.upper[first:stop] = upper
    plan.lower[first:stop] = lower >> np.uint64(48)


def _said(asker: Asker, turns: Turns, at: Positions, finding: Wholes) -> list[Numbers]:
    """What decides the words of some turns."""
    forms = [_WORDINGS.of(asker.templates.named[name][1]) for name in asker.names]
    form = turns.form[at].astype(np.int64)
    question = _looked_up([each.question_hash for each in forms], form, turns.question[at])
    answer = _looked_up([each.answer_hash for each in forms], form, turns.answer[at])
    shown = turns.shown[at].astype(np.int64) + 1
    options = shown @ np.array([1, 1 << 8, 1 << 16, 1 << 24])
    about = (turns.aspect[at].astype(np.int64) + 1) * 256 + turns.second[at] + 1
    drawn = turns.draw[at] & np.uint64(0xFFFF)
    return [
        question,
        answer,
        counted(about),
        counted(finding[at]),
        counted(options * len(SETS) + turns.right[at] + 1),
        scramble(drawn + np.uint64(1)),
    ]


def _looked_up(hashes: Sequence[Numbers], form: Positions, place: Wide) -> Numbers:
    """The hash at a place among those of a form."""
    starts = np.cumsum([0, *map(len, hashes)])
    return np.concatenate(hashes)[starts[form] + place]
