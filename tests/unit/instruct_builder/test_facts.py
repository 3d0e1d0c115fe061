"""A rewording keeps every fact, or is objected to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.recipe import DEFAULT_RECIPE, load_recipe, read_model
from core.rewriting import REWRITING_FILE, Rewriting
from instruct_builder.facts import Locks
from teacher.rewordings import _turn

LOCKS = Locks(
    read_model(DEFAULT_RECIPE / REWRITING_FILE, Rewriting), load_recipe(DEFAULT_RECIPE).taxonomy
)
TEXT = (
    "The edges on the left are clearly stepped in pairs of 2 pixels, which no lens explains, and "
    'the sign reads "OPEN".'
)


@pytest.mark.parametrize(
    "rewording",
    [
        "Clearly stepped in pairs of 2 pixels, the edges on the left show what no lens explains; "
        'the sign reads "OPEN".',
        "On the left, the edges clearly go up in stairs, pairs of 2 pixels, and no lens explains "
        'that. The sign reads "OPEN".',
    ],
)
def test_other_words_for_the_same_facts_may_stand(rewording: str) -> None:
    assert LOCKS.objection(TEXT, rewording) is None


@pytest.mark.parametrize(
    ("old", "new", "because"),
    [
        ("2 pixels", "3 pixels", "numbers, places and degrees changed"),
        ("2 pixels", "two or 2 pixels", "numbers, places and degrees changed"),
        ("on the left", "on the right", "numbers, places and degrees changed"),
        ("clearly", "slightly", "numbers, places and degrees changed"),
        ("no lens", "a lens", "0 negations instead of 1"),
        ("which no lens explains", "which no lens can fail to explain", "2 negations instead of 1"),
        ("which no lens explains", "which nothing explains", "what it says of real and fake"),
        ("explains", "explains in a generated picture", "what it says of real and fake"),
        ("The edges", "The borders", "the aspects it names changed from edges to nothing"),
        ("stepped", "stepped and lack texture", "2 negations"),
        ("stepped", "stepped in texture", "the aspects it names changed"),
        ('"OPEN"', '"CLOSED"', "its quotations"),
        ("pairs of", "pairs of (option B)", "its letters"),
        ("stepped", "**stepped**", "plain text"),
        ("stepped", "stepped ", "the same words"),
    ],
)
def test_a_fact_turned_added_or_lost_is_named(old: str, new: str, because: str) -> None:
    objection = LOCKS.objection(TEXT, TEXT.replace(old, new))
    assert objection is not None
    assert because in objection


def test_a_rewording_may_be_neither_short_nor_long_nor_about_something_else() -> None:
    text = "Surfaces show a weave; deviations repeat across the pixel in between."
    short = LOCKS.objection(text, "Surfaces show a weave.")
    assert short is not None and "times as long" in short
    long = LOCKS.objection(
        text,
        text.replace(
            "a weave",
            "a weave of threads and cloth that is so"
            " regular and so even that it looks like knitting",
        ),
    )
    assert long is not None and "times as long" in long
    other = LOCKS.objection(
        text, "People stand beside tables; chairs crowd around the garden in rows."
    )
    assert other is not None and "longer words" in other


_WORDS = st.sampled_from(
    [
        "the",
        "edges",
        "texture",
        "of",
        "a",
        "wall",
        "repeat",
        "every",
        "3.5",
        "pixels",
        "on",
        "left",
        "no",
        "lens",
        "explains",
        "camera",
        "fake",
        "generated",
        "not",
        "clearly",
        "two",
        "without",
        "noise",
        "shadows",
        "are",
        "soft",
        "light",
        "and",
        "shadow",
    ]
)


@given(st.lists(_WORDS, min_size=3, max_size=20).map(" ".join), st.integers(0, 3))
@settings(deadline=None)
def test_every_turn_that_the_rehearsal_teacher_plays_is_objected_to(text: str, number: int) -> None:
    turned = _turn(f"{text}.", number)
    assert LOCKS.objection(f"{text}.", turned) is not None


@given(st.lists(_WORDS, min_size=3, max_size=20).map(" ".join))
@settings(deadline=None)
def test_a_text_has_the_facts_that_it_has(text: str) -> None:
    assert LOCKS.facts_of(text) == LOCKS.facts_of(text.upper())
