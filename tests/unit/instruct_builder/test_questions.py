"""Verdict questions are known by their text."""

from __future__ import annotations

from instruct_builder.questions import VerdictQuestions
from tests.unit.instruct_builder.specimens import templates


def test_every_question_of_a_form_is_recognised_for_what_it_is() -> None:
    verdicts = VerdictQuestions(templates())
    for _, name, form in templates().forms():
        for pattern in (*form.question_patterns, *form.follow_up_patterns):
            asked = pattern.fill(dict.fromkeys(pattern.slots, "light (and only that)"))
            places = [1] if form.wants_verdict else []
            assert verdicts.asked_at(["Why, of all things?", asked]) == places, name
