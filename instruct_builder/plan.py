"""The plan of a set: what every chain is asked, and in which words, as columns. Pure.

A question is worth asking only if it does not give its answer away. So an aspect is asked about as
often where a chain has no finding as where it has one, a category is the right option of a choice
about as often as chance has it, and which chains are asked what is balanced over the whole set.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
IDS_AT_ONCE = 65_536
"""rows: few enough for their numbers to stay near the processor"""
UPPER, LOWER = 0x243F6A8885A308D3, 0x13198A2E03707344
"""where the two halves of an id begin: the first digits of pi, so that nobody has chosen them"""
Wide = npt.NDArray[np.int16]


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
    threads: int = 1,
) -> Plan:
    """Plan the chains of each split by itself; the chains of a split keep their order.

    Without `rows`, each family takes what the recipe allows from each chain. With `rows`, chains
    are asked again in other words until there are so many, `shares` of them from each family; a
    ConfigError says how many they carry when that is too many. `threads` change no row.
    """
    quotas = None if rows is None else _quotas(splits, rows, shares or templates.caps)
    askers = [Asker(chains, templates, taxonomy, seed) for chains in splits]
    with ThreadPoolExecutor(threads) as pool:
        try:
            asked = _ask(pool, askers, templates.caps, quotas)
        except _TooFewError:
            assert quotas is not None
            _explain_capacity(splits, templates, taxonomy, seed, quotas, rows or 0)
        return _finish(pool, askers, asked)


def _ask(
    pool: ThreadPoolExecutor,
    askers: Sequence[Asker],
    caps: Mapping[str, int],
    quotas: Sequence[Mapping[str, int]] | None,
) -> list[list[Asks]]:
    """The rows of each split; what takes longest begins first."""

    def ask(split: int, family: str) -> list[Asks]:
        if quotas is None:
            return _up_to(askers[split], family, caps[family])
        return _exactly(askers[split], family, quotas[split][family])

    jobs = [(split, family) for split in range(len(askers)) for family in caps]
    running = {
        job: pool.submit(ask, *job)
        for job in sorted(jobs, key=lambda job: -len(askers[job[0]].chains) * caps[job[1]])
    }
    asked: list[list[Asks]] = [[] for _ in askers]
    for job in jobs:
        asked[job[0]] += [asks for asks in running.pop(job).result() if len(asks)]
    return asked


def _quotas(
    splits: Sequence[Chains], rows: int, shares: Mapping[str, float]
) -> list[dict[str, int]]:
    """Rows by split and family; whole numbers that add up to `rows`."""
    weights = [
        (place, family, len(chains) * share)
        for place, chains in enumerate(splits)
        for family, share in shares.items()
    ]
    total = sum(weight for _, _, weight in weights)
    exact = [rows * weight / total for _, _, weight in weights]
    whole = [math.floor(number) for number in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: (whole[i] - exact[i], i))
    for index in by_rest[: rows - sum(whole)]:
        whole[index] += 1
    quotas: list[dict[str, int]] = [{} for _ in splits]
    for (place, family, _), number in zip(weights, whole, strict=True):
        quotas[place][family] = number
    return quotas


class _TooFewError(Exception):
    """A family carries fewer rows than it is to have."""


def _explain_capacity(
    splits: Sequence[Chains],
    templates: Templates,
    taxonomy: Taxonomy,
    seed: int,
    quotas: Sequence[Mapping[str, int]],
    rows: int,
) -> NoReturn:
    """Say how many rows the chains carry without asking anything twice."""
    scale = 1.0
    for chains, wanted in zip(splits, quotas, strict=True):
        asker = Asker(chains, templates, taxonomy, seed)
        for family, quota in wanted.items():
            carried = 0
            for turn_of in range(MOST_ROUNDS):
                new = sum(len(asks) for asks in asker.ask(family, turn_of))
                carried += new
                if not new or carried >= quota:
                    break
            if carried < quota:
                scale = min(scale, carried / quota)
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
        raise _TooFewError
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


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a split begins among all rows, turns, chains and findings."""

    row: int = 0
    turn: int = 0
    chain: int = 0
    finding: int = 0


def _finish(pool: ThreadPoolExecutor, askers: Sequence[Asker], asked: list[list[Asks]]) -> Plan:
    """Order the rows by chain, pick their patterns, and give each its id; `asked` is used up."""
    rows = sum(len(asks) for some in asked for asks in some)
    plan = _blank(rows, sum(len(asks) * len(asks.turns) for some in asked for asks in some))
    start = _Start()
    for asker in askers:
        start = _finish_split(pool, asker, asked.pop(0), plan, start)
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


def _finish_split(
    pool: ThreadPoolExecutor, asker: Asker, asks: Sequence[Asks], plan: Plan, start: _Start
) -> _Start:
    """Fill in the rows of one split; gives where the next one begins."""
    units = {name: place for place, (_, name) in enumerate(units_of(asker.templates))}
    lengths = [*map(len, asks)]
    chain = np.concatenate([each.chain for each in asks] or [np.zeros(0, np.int64)])
    order, stop = ordered(chain), start.row + len(chain)
    plan.chain[start.row : stop] = chain[order] + start.chain
    unit = np.array([units[each.unit] for each in asks], dtype=np.int16)
    plan.unit[start.row : stop] = np.repeat(unit, lengths)[order]
    num_turns = np.array([len(each.turns) for each in asks], dtype=np.int64)
    ends = np.cumsum(np.repeat(num_turns, lengths)[order])
    plan.first_turn[start.row + 1 : stop + 1] = start.turn + ends
    row_of = np.empty(len(chain), dtype=np.int64)
    row_of[order] = np.arange(start.row, stop)

    def pick(job: tuple[Asks, Positions, int]) -> None:
        _pick(asker, *job, plan, start)

    def give_ids(first: int) -> None:
        _give_ids(asker, first, min(first + IDS_AT_ONCE, stop), plan, start)

    jobs = [
        (each, rows, number)
        for each, rows in zip(asks, np.split(row_of, np.cumsum(lengths)[:-1]), strict=False)
        for number in range(len(each.turns))
    ]
    list(pool.map(pick, jobs))
    list(pool.map(give_ids, range(start.row, stop, IDS_AT_ONCE)))
    return _Start(
        row=stop,
        turn=int(plan.first_turn[stop]),
        chain=start.chain + len(asker.chains),
        finding=start.finding + len(asker.chains.finding_aspect),
    )


def _pick(
    asker: Asker, asks: Asks, rows: Positions, number: int, plan: Plan, start: _Start
) -> None:
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
    turns.finding[at] = np.where(turn.finding >= 0, turn.finding + start.finding, NOWHERE)
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


def _give_ids(asker: Asker, first: int, stop: int, plan: Plan, start: _Start) -> None:
    """80 bits for each row, from its chain, the texts of its patterns and all that fills them."""
    part = plan.take(first, stop)
    chain, turns = part.chain - start.chain, part.turns
    upper = asker.chains.upper[chain] ^ np.uint64(UPPER)
    lower = (asker.chains.lower[chain].astype(np.uint64) << np.uint64(48)) ^ np.uint64(LOWER)
    lower ^= asker.chains.upper[chain]
    own = np.where(turns.finding >= 0, turns.finding - start.finding, NOWHERE)
    finding = _within(asker, own, chain[turns.row])
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
