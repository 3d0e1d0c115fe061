"""Patterns as columns say what the patterns say one by one."""

from __future__ import annotations

import numpy as np

from core.recipe import DEFAULT_RECIPE, load_recipe
from instruct_builder.pieces import EMPTY, distinct, pieces_of
from instruct_builder.templates import read_templates


def test_every_pattern_of_the_recipe_is_its_pieces_in_their_order() -> None:
    forms = [(name, form) for _, name, form in read_templates(load_recipe(DEFAULT_RECIPE)).forms()]
    known = pieces_of(forms)
    patterns = [
        pattern
        for _, form in forms
        for pattern in (
            *form.question_patterns,
            *form.follow_up_patterns,
            *(answer for _, answer in form.answer_patterns),
        )
    ]
    starts, pieces = known.of_texts(np.arange(len(patterns)))
    literals = known.literals.to_pylist()
    for pattern, start, stop in zip(patterns, starts, starts[1:], strict=False):
        said = [
            literals[piece] if piece >= 0 else f"<{known.slots[~piece]}>"
            for piece in pieces[start:stop].tolist()
        ]
        assert "".join(said) == pattern.fill({slot: f"<{slot}>" for slot in pattern.slots})
    assert literals[EMPTY] == ""


def test_a_slot_is_found_wherever_it_stands() -> None:
    forms = [(name, form) for _, name, form in read_templates(load_recipe(DEFAULT_RECIPE)).forms()]
    known = pieces_of(forms)
    found = dict(known.slots_among(known.piece))
    assert set(found) == set(known.slots)
    for slot, places in found.items():
        assert {known.slots[~piece] for piece in known.piece[places].tolist()} == {slot}
    assert sum(map(len, found.values())) == (known.piece < 0).sum()
    assert not dict(known.slots_among(np.array([EMPTY])))


def test_distinct_codes_and_their_places() -> None:
    found, place = distinct(np.array([7, 2, 7, 9]), 10)
    assert found.tolist() == [2, 7, 9] and place.tolist() == [1, 0, 1, 2]
