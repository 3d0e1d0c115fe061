"""What a careful writer would mark in a text: a list of problems, empty for a clean one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from core.sentences import ends_with_abbreviation

SURFACE = {
    "two spaces": r"  ",
    "a space at the end of a line or before its start": r" \n|\n | $|^ ",
    "a space before a mark": r" [.,;:!?](?:\s|$)",
    "two marks in a row": r"[.,;:!?]{2}",
    "two full stops around a quotation mark": r"[.!?][\"”][.]|[!?][\"”][!?]",
    "more than one empty line": r"\n\n\n",
    "a wrong article": r"\b[Aa] (?=[aeio])(?!one\b|once\b)|\b[Aa]n (?=[^aeiouhAEIOUHMFSXLNR8\"“(])",
    "a word twice": r"\b(the|a|an|of|to|in|on|is|was|and|or|with|that)\s+\1\b",
    "an open slot": r"\{[A-Za-z_]*\}",
}
END = re.compile(r"[.!?][\"')\]”’»]*$|^[A-D]\. [^\n]+\Z", re.MULTILINE)
OPTIONS = re.compile(r"\nA\. .+\nB\. .+\nC\. .+\nD\. .+$")
ABBREVIATED_MARKS = re.compile(r"(?:[a-z]\.[a-z]|etc|approx|ca|cf|vs)\.[,;:!?]", re.IGNORECASE)


def problems_of(text: str) -> list[str]:
    """Every problem, with the place where it stands."""
    return list(_problems(text))


def _problems(text: str) -> Iterator[str]:
    if not text.strip():
        yield "nothing is said"
        return
    plain = ABBREVIATED_MARKS.sub("etc.", text)
    for name, pattern in SURFACE.items():
        if found := re.search(pattern, plain):
            yield f"{name}: {plain[max(0, found.start() - 20) : found.end() + 20]!r}"
    if not re.match(r"[\"“(«]*[^\Wa-zß-öø-ÿ_]", text):
        yield f"it starts with {text[:10]!r}"
    if not END.search(text.splitlines()[-1]) and not OPTIONS.search(text):
        yield f"it ends with {text[-10:]!r}"
    if text.count('"') % 2 or text.count("“") != text.count("”"):
        yield "a quotation mark has no partner"
    yield from _small_letters(text)
    yield from _numbering(text)


def _small_letters(text: str) -> Iterator[str]:
    """Sentences that start with a small letter."""
    for found in re.finditer(r"[.!?][)\]]?\s+[\"“(«]*[a-z]", text):
        if not ends_with_abbreviation(text[: found.start() + 1]):
            yield f"a sentence starts small: {text[found.start() : found.end() + 20]!r}"


def _numbering(text: str) -> Iterator[str]:
    numbers = [int(number) for number in re.findall(r"^(\d+)\. (?=\S)", text, re.MULTILINE)]
    if numbers and numbers != list(range(1, len(numbers) + 1)):
        yield f"a list is numbered {numbers}"
