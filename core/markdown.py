"""Untrusted words on a page of Markdown: shown as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def plain(text: str) -> str:
    """One line that Markdown takes for text: names and licences come from users."""
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|!" else letter for letter in line)


def count_table(title: str, counts: Mapping[str, int]) -> Iterator[str]:
    """A table of numbers by name, and the empty line after it."""
    yield f"| {title} | number |"
    yield "|---|---:|"
    yield from (f"| {plain(name)} | {number:,} |" for name, number in counts.items())
    yield ""
