"""What a rewording may not change: the facts of a text, as far as a program can tell. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.records import Authenticity
from core.rewriting import Rewriting
from core.taxonomy import Taxonomy

WORD = re.compile(r"[^\W_]+(?:[-'’][^\W_]+)*")
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
LETTER = re.compile(r"\b(?:[B-D]|A(?=[.,;:)]| and\b| or\b))(?![\w'’])")
"""an option of a choice; `A` alone is an article more often"""
QUOTATION = re.compile(r"\"[^\"]*\"|“[^”]*”|«[^»]*»")
MARKUP = re.compile(r"[*#<>`|\\\n]|\]\(")
LONGER_WORD = 5
"""letters, and so many of them count: endings may change"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What must be the same before and after."""

    verdicts: frozenset[Authenticity]
    negations: int
    words: Counter[str]
    """places, degrees and numbers"""
    categories: frozenset[str]
    letters: Counter[str]
    quotations: Counter[str]


class Locks:
    """The rules of a recipe for rewording."""

    def __init__(self, rewriting: Rewriting, taxonomy: Taxonomy) -> None:
        locked = rewriting.locked
        self._bounds = rewriting.bounds
        self._sides = {Authenticity.FAKE: set(locked.fake), Authenticity.REAL: set(locked.real)}
        self._negations = set(locked.negations)
        self._words = {*locked.places, *locked.degrees, *locked.numbers}
        self._categories = {c.name: _either_number(c.name) for c in taxonomy.categories}

    def facts_of(self, text: str) -> Facts:
        """Read the facts off a text."""
        words = [word.lower() for word in WORD.findall(text)]
        return Facts(
            verdicts=frozenset(side for side, own in self._sides.items() if own & {*words}),
            negations=sum(
                word in self._negations or word.endswith(("n't", "n’t")) for word in words
            ),
            words=Counter(NUMBER.findall(text)) + Counter(w for w in words if w in self._words),
            categories=frozenset(
                name for name, pattern in self._categories.items() if pattern.search(text)
            ),
            letters=Counter(LETTER.findall(text)),
            quotations=Counter(QUOTATION.findall(text)),
        )

    def objection(self, original: str, rewording: str) -> str | None:
        """Why a rewording may not take the place of its original; None when it may."""
        return next(self._objections(original, rewording), None)

    def _objections(self, original: str, rewording: str) -> Iterator[str]:
        if MARKUP.search(rewording):
            yield "it is not plain text in one line"
        if _spelt(original) == _spelt(rewording):
            yield "it says the same in the same words"
        old, new = self.facts_of(original), self.facts_of(rewording)
        if old.verdicts != new.verdicts:
            yield _changed("what it says of real and fake", old.verdicts, new.verdicts)
        if old.negations != new.negations:
            yield f"it has {new.negations} negations instead of {old.negations}"
        if old.words != new.words:
            yield _changed("numbers, places and degrees", old.words, new.words)
        if old.categories != new.categories:
            yield _changed("the aspects it names", old.categories, new.categories)
        if old.letters != new.letters:
            yield _changed("its letters", old.letters, new.letters)
        if old.quotations != new.quotations:
            yield _changed("its quotations", old.quotations, new.quotations)
        yield from self._objections_to_size(original, rewording)

    def _objections_to_size(self, original: str, rewording: str) -> Iterator[str]:
        bounds = self._bounds
        length = len(WORD.findall(rewording)) / max(1, len(WORD.findall(original)))
        if not bounds.shortest <= length <= bounds.longest:
            yield f"it is {length:.1f} times as long"
        old, new = _longer_words(original), _longer_words(rewording)
        if old and len(old & new) < bounds.kept * len(old):
            yield f"it keeps {len(old & new)} of {len(old)} longer words"
        if new and len(new - old) > bounds.new * len(new):
            yield f"{len(new - old)} of its {len(new)} longer words are new"


def _either_number(name: str) -> re.Pattern[str]:
    """A category name as whole words, in the singular or the plural."""
    return re.compile(rf"(?<!\w){re.escape(name.removesuffix('s'))}s?(?!\w)", re.IGNORECASE)


def _spelt(text: str) -> list[str]:
    return [word.lower() for word in WORD.findall(text)]


def _longer_words(text: str) -> set[str]:
    return {word[:LONGER_WORD] for word in _spelt(text) if len(word) >= LONGER_WORD}


def _changed(what: str, old: Iterable[str], new: Iterable[str]) -> str:
    return f"{what} changed from {_listed(old)} to {_listed(new)}"


def _listed(values: Iterable[str]) -> str:
    counted = values.elements() if isinstance(values, Counter) else values
    return ", ".join(sorted(counted)) or "nothing"
