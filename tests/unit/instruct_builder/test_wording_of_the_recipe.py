"""Every pattern of the recipe, filled with any category and odd evidence, reads as written."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.sentences import as_sentences
from instruct_builder.forms import Form
from instruct_builder.patterns import Pattern, first_sentence
from instruct_builder.templates import category_words
from tests.unit.instruct_builder.grammar import problems_of
from tests.unit.instruct_builder.specimens import recipe, templates

CATEGORIES = recipe().taxonomy.categories
FORMS = [(name, form) for _, name, form in templates().forms()]
ODD_EVIDENCE = (
    "the fence is bent",
    "Stairs of two pixels , e.g. at the roof etc., climb..",
    'the sign reads "OPEN"',
    "Is that a hand? it has six fingers",
    "“soft” edges; no grain –",
    "Contrast falls by approx. 3.5 per cent (see above)",
)


def patterns_of(form: Form) -> Iterator[Pattern]:
    yield from form.question_patterns
    yield from form.follow_up_patterns
    yield from (pattern for _, pattern in form.answer_patterns)


def values(first: int, second: int, evidence: str) -> dict[str, str]:
    """All slots, filled as for a chain with a finding on each of two categories."""
    one, other = (category_words(CATEGORIES[n % len(CATEGORIES)]) for n in (first, second))
    said = as_sentences(evidence)
    names = f"{one['aspect']}, {other['aspect']}, and anatomy"
    return {
        **one,
        **{f"next_{slot}": text for slot, text in one.items()},
        **{f"other_{slot}": text for slot, text in other.items()},
        "second_aspect": other["aspect"],
        "Second_aspect": other["Aspect"],
        "evidence": said,
        "second_evidence": said,
        "main_evidence": said,
        "reason": first_sentence(said),
        "findings": f"{said} {said}",
        "right_evidence": f"{said} {said}",
        "numbered": f"1. {said}\n2. {said}",
        "conclusion": said,
        "verdict": "fake",
        "Verdict": "Fake",
        "aspects": names,
        "right_aspects": names,
        "wrong_aspects": one["aspect"],
        "letter": "C",
        "letters": "A, B and D",
        "options": "A. Texture\nB. Light and shadow\nC. Edges\nD. Overall tone",
        "image_advice": CATEGORIES[first % len(CATEGORIES)].image_advice,
        "generation_advice": CATEGORIES[second % len(CATEGORIES)].generation_advice,
        "place": "in the upper left",
        "box": "[0.12, 0.05, 0.40, 0.33]",
    }


@pytest.mark.parametrize(("name", "form"), FORMS, ids=[name for name, _ in FORMS])
def test_every_pattern_reads_well_with_every_category(name: str, form: Form) -> None:
    for pattern in patterns_of(form):
        for n, odd in zip(range(len(CATEGORIES)), itertools.cycle(ODD_EVIDENCE), strict=False):
            text = pattern.fill(values(n, n + 1, odd))
            assert problems_of(text) == [], (name, pattern.text, text)


_PIECES = st.sampled_from(
    ["the", "edges of", "A wall", "every 2.5", "e.g.", "etc.", "(so)", "it", "光", *'.,?"“”!;…–']
)


@given(
    st.sampled_from([(name, pattern) for name, form in FORMS for pattern in patterns_of(form)]),
    st.integers(0, len(CATEGORIES) - 1),
    st.integers(1, len(CATEGORIES) - 1),
    st.lists(_PIECES, min_size=2, max_size=12).map(" ".join).filter(as_sentences),
)
@settings(max_examples=400, deadline=None)
def test_a_pattern_reads_well_with_any_evidence(
    named: tuple[str, Pattern], first: int, step: int, evidence: str
) -> None:
    text = named[1].fill(values(first, first + step, evidence))
    own = ("a word twice", "a wrong article")
    kept = [p for p in problems_of(text) if not p.startswith(own)]
    assert kept == [], (named[0], named[1].text, text)


def test_no_slot_stands_where_its_words_do_not_fit() -> None:
    """Names are bare nouns, singular or plural; sentences stand alone; a place follows a word."""
    before_name = re.compile(
        r"\b(?:to|of|on|about|at|in|with|against|for|from|than|or|and|is|how|that|what|concern"
        r"|concerns|concerning|Neither|choose|weigh|rather|both|only|Considering|Concerning|Would"
        r"|would|Could) $|[,.] $|^$"
    )
    sentences = {"evidence", "second_evidence", "main_evidence", "reason", "findings", "conclusion"}
    sentences |= {"right_evidence", "image_advice", "generation_advice"}
    names = {"aspect", "second_aspect", "next_aspect", "other_aspect"}
    for name, form in FORMS:
        for pattern in patterns_of(form):
            for literal, slot in pattern.parts:
                before = literal.rstrip()
                if slot in sentences:
                    assert not before or before[-1] in ".!?:," or before.endswith("because"), (
                        name, pattern.text,
                    )  # fmt: skip
                if slot in names:
                    assert before_name.search(literal), (name, pattern.text)


def test_there_are_enough_patterns() -> None:
    questions = sum(len(form.questions) + len(form.follow_ups) for _, form in FORMS)
    answers = sum(len(form.answer_patterns) for _, form in FORMS)
    assert questions >= 400
    assert answers >= 300
