"""Multiple choice: which categories are shown as options, and which of them are right.

What is found in an image hangs together: stairs along edges come with coarse texture, a lattice
with rippling light. So the options beside an option can tell what kind of image it is about, and
thereby whether it is right. Here four options come in blocks of several chains: in a block, every
answer that the four can have is right for one chain. Whoever sees the options without the image,
one by one or all together, knows nothing of which are right.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from instruct_builder.columns import Codes, Positions
from instruct_builder.hashing import Mask, Numbers, by_key, counted, fractions, ordered, scramble
from instruct_builder.patterns import LETTER_SETS, LETTERS

OPTIONS = len(LETTERS)
SETS = (*((letter,) for letter in LETTERS), *LETTER_SETS)
"""what can be right: one letter, two or three"""
MOST_CATEGORIES = 20
"""those found most often; fours of more would be too many to look at"""
SAMPLE = 2_048
"""chains that decide which fours of categories make most blocks"""
MOST_FOURS = 512
"""fours that are shown at all"""
AT_ONCE = 64
"""... and in one draw; the draws take turns"""
PASSES = 4
"""chains without a block try so often"""
PARTS = 1 << OPTIONS
"""which of four were found, as a number: bit n stands for the n-th"""
_SIZE = np.array([part.bit_count() for part in range(PARTS)])
_HAS = (np.arange(PARTS)[:, None] >> np.arange(OPTIONS)) & 1 == 1
"""(parts, 4)"""
_BITS = 1 << np.arange(OPTIONS)
_LETTERS_OF = np.array([[letter in letters for letter in LETTERS] for letters in SETS])
"""(sets, 4)"""
_RIGHT_FIRST = np.argsort(~_HAS, axis=1, kind="stable")
"""(parts, 4): the places of the bits that are set, then of the others"""

Fours = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """Options of some rows; arrays have one entry per row."""

    chain: Positions
    shown: Codes
    """(rows, 4): categories at the letters A to D"""
    right: Codes
    """place in SETS"""

    @property
    def single(self) -> Codes:
        """The category of the one right option."""
        place = np.minimum(self.right, OPTIONS - 1)
        return np.asarray(self.shown[np.arange(len(self.right)), place])

    def take(self, rows: npt.NDArray[Any]) -> Drawn:
        """Some rows, by place or by mask."""
        return Drawn(self.chain[rows], self.shown[rows], self.right[rows])


@dataclass(frozen=True)
class _Rows:
    """Chains with their four categories and which of these were found."""

    chain: Positions
    four: Positions
    part: Positions

    def take(self, rows: npt.NDArray[Any]) -> _Rows:
        return _Rows(self.chain[rows], self.four[rows], self.part[rows])


class OptionBlocks:
    """Draws options for chains, whole blocks alone."""

    def __init__(self, found: Mask, *, several: bool, absent: bool) -> None:
        """`found` has shape (chains, categories). `several`: two or three options are right, else
        one. `absent`: those without a finding are right.
        """
        sizes = (2, 3) if several else (1,)
        found_of = [OPTIONS - size if absent else size for size in sizes]
        self._wanted: list[Mask] = [np.equal(_SIZE, number) for number in found_of]
        self._absent = absent
        bits = found @ (np.uint64(1) << np.arange(found.shape[1], dtype=np.uint64))
        _, first, self._kind = np.unique(bits, return_index=True, return_inverse=True)
        self._kinds = found[first]
        self._draws = 0

    def draw(self, able: Mask, key: Numbers) -> Drawn:
        """At most one question of each chain that is `able`; one without a block has none.

        `key` (chains) decides all that is drawn.
        """
        turns = max(1, len(self._fours) // AT_ONCE)
        table = _Table(self._kinds, self._kind, self._fours[self._draws % turns :: turns])
        self._draws += 1
        rows = table.draw(np.flatnonzero(able), key, self._wanted[0])
        for wanted in self._wanted[1:]:
            left = _without(np.flatnonzero(able), rows.chain, len(key))
            more = table.draw(left, key, wanted)
            rows = _together([rows, more.take(self._few_beside(rows, more, len(table.fours)))])
        return self._place(rows, table.fours, key)

    @cached_property
    def _fours(self) -> Fours:
        """(fours, 4): the categories that make most blocks of the first size."""
        step = max(1, len(self._kind) // SAMPLE)
        kinds, kind = np.unique(self._kind[::step], return_inverse=True)
        found = self._kinds[kinds]
        often = np.bincount(kind, minlength=len(kinds)) @ found
        usable = np.sort(np.argsort(-often, kind="stable")[:MOST_CATEGORIES])
        combinations = list(itertools.combinations(usable.tolist(), OPTIONS))
        fours = np.array(combinations, dtype=np.int64).reshape(-1, OPTIONS)
        blocks = _Table(found, kind, fours).there(kind)[:, self._wanted[0]].min(axis=1)
        best = np.argsort(-blocks, kind="stable")[:MOST_FOURS]
        chosen: Fours = fours[best[blocks[best] > 0]]
        return chosen

    def _few_beside(self, rows: _Rows, more: _Rows, num_fours: int) -> Mask:
        """Of each four at most half as many blocks of three right options as of two.

        Which four it is would else tell how many are right.
        """
        of_two = int(self._wanted[0].sum())
        blocks = np.bincount(rows.four, minlength=num_fours) // of_two // 2
        return np.asarray(_place_in_group(more.four * PARTS + more.part) < blocks[more.four])

    def _place(self, rows: _Rows, fours: Fours, key: Numbers) -> Drawn:
        """Every set of letters is as often right, whatever the options are; the rest is drawn."""
        rows = rows.take(by_key(scramble(key[rows.chain] ^ counted([PASSES]))))
        is_right = ~_HAS[rows.part] if self._absent else _HAS[rows.part]
        number = is_right.sum(axis=1)
        right = np.zeros(len(number), dtype=np.int8)
        for size in np.unique(number):
            mine = np.flatnonzero(number == size)
            places = [place for place, letters in enumerate(SETS) if len(letters) == size]
            right[mine] = np.array(places, dtype=np.int8)[np.arange(len(mine)) % len(places)]
        steps = counted(np.arange(OPTIONS) + PASSES)
        jitter = fractions(scramble(key[rows.chain][:, None] ^ steps[None, :]))
        mixed = np.argsort(jitter, axis=1)
        options = np.take_along_axis(fours[rows.four], mixed, axis=1)
        is_right = np.take_along_axis(is_right, mixed, axis=1)
        by_letter = _RIGHT_FIRST[_LETTERS_OF[right] @ _BITS]
        by_option = _RIGHT_FIRST[is_right @ _BITS]
        shown = np.empty_like(options)
        np.put_along_axis(shown, by_letter, np.take_along_axis(options, by_option, axis=1), axis=1)
        return Drawn(rows.chain, shown.astype(np.int8), right)


@dataclass(frozen=True)
class _Table:
    """Kinds of chains against fours of categories."""

    kinds: Mask
    """(kinds, categories): what was found"""
    kind: Positions
    """of each chain"""
    fours: Fours

    @cached_property
    def cells(self) -> Positions:
        """(kinds, fours): place in `there` of a four and of those of it that a kind has."""
        found = np.ascontiguousarray(self.kinds.T).view(np.uint8)
        parts = np.zeros((len(self.fours), len(self.kinds)), dtype=np.uint8)
        for place in range(OPTIONS):
            parts |= found[self.fours[:, place]] << np.uint8(place)
        cells = parts.T.astype(np.int64, order="C")
        cells += np.arange(len(self.fours)) * PARTS
        return cells

    def there(self, kind: Positions) -> Positions:
        """(fours, parts): how many of some chains have each part."""
        some, number, _ = self._among(kind)
        return self._there(self._cells_of(some), number)

    def _among(self, kind: Positions) -> tuple[Positions, Positions, Positions]:
        """The kinds of some chains, how many chains are of each, and where each kind stands."""
        number = np.bincount(kind, minlength=len(self.kinds))
        some = np.flatnonzero(number)
        return some, number[some], np.cumsum(number > 0) - 1

    def _cells_of(self, some: Positions) -> Positions:
        return self.cells if len(some) == len(self.kinds) else self.cells[some]

    def _there(self, cells: Positions, number: Positions) -> Positions:
        width = len(self.fours)
        weights = np.repeat(number.astype(np.float64), width)
        counts = np.bincount(cells.ravel(), weights, width * PARTS)
        return counts.astype(np.int64).reshape(-1, PARTS)

    def draw(self, waiting: Positions, key: Numbers, wanted: Mask) -> _Rows:
        """Blocks of one number of right options, chain by chain in the order of the keys."""
        taken = [_together([])]
        waiting = waiting[by_key(key[waiting])]
        for number in range(PASSES if len(self.fours) else 0):
            keys = scramble(key[waiting] ^ counted([number]))
            four = self._pick(self.kind[waiting], keys, wanted)
            chain, four = waiting[four >= 0], four[four >= 0]
            rows = _Rows(chain, four, self.cells[self.kind[chain], four] % PARTS)
            taken.append(rows.take(self._in_full_blocks(rows, wanted)))
            waiting = _without(waiting, taken[-1].chain, len(key))
        return _together(taken)

    def _pick(self, kind: Positions, key: Numbers, wanted: Mask) -> Positions:
        """For each chain one of the fours that suit it, or -1.

        A four is drawn the more often, the more blocks it can fill and the fewer other chains could
        stand in the same place of them.
        """
        some, number, row_of = self._among(kind)
        cells = self._cells_of(some)
        there = self._there(cells, number)
        blocks = there[:, wanted].min(axis=1)
        worth = np.where(wanted, blocks[:, None] / np.maximum(there, 1), 0.0)
        weight = worth.ravel()[cells]
        total = weight.sum(axis=1)
        ends = np.cumsum(weight, axis=1)
        ends /= np.maximum(total, 1e-12)[:, None]
        np.minimum(ends, 1.0, out=ends)
        ends += some[:, None]
        row = row_of[kind]
        place = np.searchsorted(ends.ravel(), kind + fractions(key), side="right")
        four = np.minimum(place - row * len(self.fours), len(self.fours) - 1)
        suits = (total[row] > 0) & (weight[row, four] > 0)
        return np.where(suits, four, -1)

    def _in_full_blocks(self, rows: _Rows, wanted: Mask) -> Mask:
        """The first rows of each four, as many as make whole blocks."""
        cell = rows.four * PARTS + rows.part
        sizes = np.bincount(cell, minlength=len(self.fours) * PARTS).reshape(-1, PARTS)
        blocks = sizes[:, wanted].min(axis=1)
        return np.asarray(_place_in_group(cell) < blocks[rows.four])


def _together(parts: Sequence[_Rows]) -> _Rows:
    empty = np.zeros(0, dtype=np.int64)
    columns = [(part.chain, part.four, part.part) for part in parts] or [(empty, empty, empty)]
    return _Rows(*(np.concatenate(column) for column in zip(*columns, strict=True)))


def _without(chains: Positions, taken: Positions, number: int) -> Positions:
    """Chains, of so many in all, but for those that were taken; in the order as they are."""
    is_taken = np.zeros(number, dtype=bool)
    is_taken[taken] = True
    return chains[~is_taken[chains]]


def _place_in_group(group: Positions) -> Positions:
    """For each row its place, from 0, among the rows of its group."""
    order = ordered(group)
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    lengths = np.diff(np.append(starts, len(group)))
    places = np.empty(len(group), dtype=np.int64)
    places[order] = np.arange(len(group)) - np.repeat(starts, lengths)
    return places
