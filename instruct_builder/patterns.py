"""Patterns: text with `{slots}`, parsed. Needs no library but the standard one, as workers do."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

from core.sentences import ends_with_abbreviation

LETTERS = ("A", "B", "C", "D")
YES, NO = "yes", "no"


def in_words(letters: Sequence[str]) -> str:
    """`C`, `A and C`, or `A, B and D`."""
    *first, last = letters
    return f"{', '.join(first)} and {last}" if first else last


LETTER_SETS = tuple(
    chosen for number in (2, 3) for chosen in itertools.combinations(LETTERS, number)
)
"""what can be right of a question with several right options"""
PHRASES = tuple(in_words(chosen) for chosen in LETTER_SETS)


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


_SENTENCE_END = re.compile(r"[.!?][\"')\]”’]*(?=\s+[\"'(\[“‘]*[A-Z0-9À-Þ])")


def first_sentence(text: str) -> str:
    """The first sentence of a text of sentences; in doubt rather two than half of one."""
    for end in _ends(text):
        if not ends_with_abbreviation(text[:end]):
            return text[:end]
    return text


def _ends(text: str) -> Iterator[int]:
    return (match.end() for match in _SENTENCE_END.finditer(text))
