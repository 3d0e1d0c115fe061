"""Text as whole sentences: how evidence and conclusions read wherever they are inserted."""

from __future__ import annotations

import re
from typing import Final

ODD: Final = r"[^ -~]|^[^A-Z0-9]|[^.!?]$|  | [.,;:!?]|[.,;:!?]{2}|\"|[.!?] [^A-Z0-9]"
"""is found in every text that `as_sentences` changes, and in few others; Arrow reads it too"""

_ODD = re.compile(ODD)
_MARKS = ".,;:!?"
_OPENING, _CLOSING = r"[\"'(\[“‘«]*", r"[\"')\]”’»]*"
_BEFORE_MARK = re.compile(rf" +(?=[{_MARKS}…]+(?:[ \"”»]|$))")
_MARKS_IN_A_ROW = re.compile(rf"[{_MARKS}]{{2,}}")
_QUOTATION = re.compile(r"\"[^\"]*\"|“[^“”]*”|«[^«»]*»")
_QUOTATION_MARKS = '"“”«»'
_TWO_STOPS = re.compile(r"([.!?][\"”»])[.]|([!?][\"”»])[!?]")
_LOOSE_START = re.compile(rf"^[ {_MARKS}…–—-]+(?=\D)")
_LOOSE_END = re.compile(r"[ ,;:…–—-]+(?=[\"”»]+[.!?]?$|$)")
_ENDS = re.compile(rf"[.!?]{_CLOSING}$")
_FIRST_LETTER = re.compile(rf"^{_OPENING}[^\W\d_]")
_NEXT_LETTER = re.compile(rf"[.!?] {_OPENING}[^\W\d_]")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\[\"“])(?:[a-z]|[a-z]\.[a-z]|cf|vs|ca|approx|no|nos|fig|figs|eq|dr|mr|mrs|ms|st"
    r"|prof|incl|etc|al|resp)\.$",
    re.IGNORECASE,
)


def as_sentences(text: str) -> str:
    """One line that starts with a capital, ends with a full stop and has its marks in order.

    What has no letter and no digit is empty. Numbers and abbreviations keep their points.
    """
    if not _ODD.search(text):
        return text
    line, before = re.sub(r"\.{3,}", "…", " ".join(text.split())), ""
    while line != before:  # each repair leaves less behind, and may leave work for another
        line, before = _repair(line), line
    if not any(map(str.isalnum, line)):
        return ""
    line = line if _ENDS.search(line) else f"{line}."
    return _NEXT_LETTER.sub(_capitalise, _FIRST_LETTER.sub(_capitalise, line))


def ends_with_abbreviation(text: str) -> bool:
    """Whether the full stop at the end of a text may belong to its last word: `e.g.`, `approx.`"""
    return _ABBREVIATION.search(text) is not None


def _repair(line: str) -> str:
    line = _BEFORE_MARK.sub("", _tidy_quotes(line))
    line = _LOOSE_END.sub("", _MARKS_IN_A_ROW.sub(_settle, line))
    return _LOOSE_START.sub("", line).lstrip()


def _tidy_quotes(line: str) -> str:
    """Marks without partner and inner ones go, the others stand close to what they quote."""
    outer = {
        place for found in _QUOTATION.finditer(line) for place in (found.start(), found.end() - 1)
    }
    paired = "".join(
        " " if mark in _QUOTATION_MARKS and place not in outer else mark
        for place, mark in enumerate(line)
    )
    closed = _QUOTATION.sub(_close_up, paired)
    return " ".join(_TWO_STOPS.sub(lambda stop: stop[1] or stop[2], closed).split())


def _close_up(match: re.Match[str]) -> str:
    """Nothing but marks is no quotation."""
    quotation = match[0]
    quoted = _LOOSE_START.sub("", quotation[1:-1].strip())
    return f"{quotation[0]}{quoted}{quotation[-1]}" if any(map(str.isalnum, quoted)) else " "


def _settle(match: re.Match[str]) -> str:
    """One mark for several: `?!` asks, `.,` after an abbreviation stays."""
    marks, before = match[0], match.string[: match.start() + 1]
    if marks[0] == "." and ends_with_abbreviation(before):
        others = [mark for mark in marks if mark != "."]
        return "." + "".join(others[:1])
    return next(mark for mark in "?!.;:," if mark in marks)


def _capitalise(match: re.Match[str]) -> str:
    """The last letter of the match as a capital, unless an abbreviation stands before it."""
    found = match[0]
    stop = match.string[: match.start() + 1]
    if found[0] == "." and ends_with_abbreviation(stop):
        return found
    return found[:-1] + found[-1].upper()
