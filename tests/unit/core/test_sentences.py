"""Odd endings and beginnings, quotes and marks become whole sentences."""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sentences import ODD, as_sentences

PIECES = (
    *(
        "the edge",
        "Texture",
        "e.g.",
        "a.m.",
        "approx.",
        "3.5 px",
        "is",
        "soft",
        "光",
        "é",
        " ",
        "\n",
    ),
    *(".", ",", "...", "…", "?", "!", '"', "“", "”", "(", ")", ";", ":", "–"),
)
TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(st.sampled_from(PIECES), max_size=20).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("the edge is soft", "The edge is soft."),
        ("  two\tlines\n of it ", "Two lines of it."),
        ("Soft edges , no grain .", "Soft edges, no grain."),
        ("The fence,;", "The fence."),
        ("It ends –", "It ends."),
        ("- . soft", "Soft."),
        (".5 mm apart", ".5 mm apart."),
        ("Soft...", "Soft."),
        ("Is it real?", "Is it real?"),
        ("Is it real?.", "Is it real?"),
        ("It says “stop”", "It says “stop”."),
        ('It says "stop."', 'It says "stop."'),
        ("(See above.)", "(See above.)"),
        ('It reads " stop ", and ""', 'It reads "stop", and.'),
        ("“quoted and open", "Quoted and open."),
        ('A screen of 5" or so', "A screen of 5 or so."),
        ('" e.g. " .', '"E.g."'),
        ('Lines, " e.g. " .', 'Lines, "e.g."'),
        ('It says " stop. " .', 'It says "stop."'),
        ("It asks “ is it? ”?", "It asks “is it?”"),
        ('The wall " . " ends.', "The wall ends."),
        ('” loose “ and "“inner”"', 'Loose and "inner".'),
        ('", soft" and "–" ,', '"Soft" and.'),
        ("soft. it repeats", "Soft. It repeats."),
        ("“the sign” is bent", "“The sign” is bent."),
        ("Lines, e.g. the fence, end approx. here etc.", None),
        ("Windows, doors etc., are soft.", None),
        ("A step of .5 grey levels.", None),
        ("At 3.5 pixels it ends.", None),
        ("...", ""),
        ("", ""),
    ],
)
def test_what_was_written_reads_as_sentences(written: str, read: str | None) -> None:
    assert as_sentences(written) == (written if read is None else read)


@given(TEXTS)
@settings(deadline=None)
def test_sentences_are_one_line_that_stays_as_it_is(text: str) -> None:
    once = as_sentences(text)
    assert as_sentences(once) == once
    assert "\n" not in once
    assert not once or re.search(r"[.!?][\"')\]”’»]*$", once)
    assert not re.search(r"  |\.\.|[!?]{2}| [.,;:!?](?: |$)", once)
    assert once.count('"') % 2 == 0
    assert once.count("“") == once.count("”")


@given(TEXTS)
@settings(deadline=None)
def test_nothing_but_odd_texts_is_changed(text: str) -> None:
    assert as_sentences(text) == text or re.search(ODD, text)
    (found,) = pc.match_substring_regex(pa.array([text]), ODD).to_pylist()
    assert as_sentences(text) == text or found


@given(TEXTS)
@settings(deadline=None)
def test_no_word_is_lost(text: str) -> None:
    def words(line: str) -> list[str]:
        return [word.casefold() for word in re.findall(r"[^\W_]+", line)]

    assert words(as_sentences(text)) == words(text)
