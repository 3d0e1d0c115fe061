"""What is asked of each chain: honest, within the caps, and balanced over the set."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings

from core.errors import DataError
from core.records import Authenticity
from instruct_builder.families import Ask, Plan, plan_asks, subject_of
from instruct_builder.templates import Templates
from tests.unit.instruct_builder.specimens import (
    Pair,
    make_pair,
    make_pairs,
    pair_lists,
    recipe,
    templates,
)


def plan(pairs: list[Pair], caps: dict[str, int] | None = None) -> Plan:
    chosen = Templates(templates().families, {**templates().caps, **(caps or {})})
    return plan_asks([chain for chain, _ in pairs], chosen, recipe().taxonomy, seed=1)


def asks_of(pairs: list[Pair], form: str) -> list[tuple[Pair, Ask]]:
    asked = plan(pairs).asks
    by_id = {chain.chain_id: (chain, image) for chain, image in pairs}
    return [(by_id[name], ask) for name, asks in asked.items() for ask in asks if ask.form == form]


@given(pair_lists)
@settings(max_examples=40, deadline=None)
def test_the_order_of_the_chains_does_not_matter(pairs: list[Pair]) -> None:
    shuffled = random.Random(3).sample(pairs, len(pairs))
    assert plan(pairs).asks == plan(shuffled).asks


@given(pair_lists)
@settings(max_examples=40, deadline=None)
def test_no_family_takes_more_rows_than_the_recipe_allows(pairs: list[Pair]) -> None:
    family_of = {name: family for family, name, _ in templates().forms()}
    for asks in plan(pairs).asks.values():
        rows = Counter(family_of[ask.form] for ask in asks)
        assert all(rows[family] <= cap for family, cap in templates().caps.items())


@given(pair_lists)
@settings(max_examples=40, deadline=None)
def test_nothing_is_asked_that_the_chain_cannot_honestly_answer(pairs: list[Pair]) -> None:
    asked = plan(pairs).asks
    for chain, _ in pairs:
        subject = subject_of(chain, recipe().taxonomy)
        for ask in asked[chain.chain_id]:
            form = templates().named[ask.form][1]
            case = subject.case if ask.aspect is None else subject.case_of(ask.aspect)
            assert case in set(form.cases())
            assert ask.present == (ask.aspect in subject.found)
            assert not set(ask.distractors) & set(subject.found)
            if ask.aspect is not None and form.denies(case):
                assert chain.contradictions == 0


def test_a_chain_whose_findings_were_left_out_denies_nothing() -> None:
    pairs = [make_pair(f"image {n}", contradictions=1) for n in range(20)]
    assert not [
        ask for asks in plan(pairs).asks.values() for ask in asks if ask.aspect and not ask.present
    ]


def test_no_form_takes_rows_when_its_family_is_left_out() -> None:
    asked = plan(make_pairs(20), {"verdict": 0, "discussion": 1}).asks
    forms = Counter(ask.form for asks in asked.values() for ask in asks)
    assert not [name for name in forms if name.startswith("verdict")]
    assert sum(n for name, n in forms.items() if name.startswith("discuss")) == 20


@pytest.mark.parametrize("form", ["aspect_trace", "aspect_evidence"])
def test_yes_and_no_are_even_for_each_aspect(form: str) -> None:
    pairs = make_pairs(400)
    asks_for = templates().named[form][1].asks
    answers: Counter[tuple[str | None, bool]] = Counter()
    labels: Counter[Authenticity] = Counter()
    for (_, image), ask in asks_of(pairs, form):
        is_yes = ask.present and image.label is asks_for
        answers[ask.aspect, is_yes] += 1
        if not is_yes:
            assert image.label is not None
            labels[image.label] += 1
    aspects = {aspect for aspect, _ in answers}
    assert len(aspects) > 3
    assert all(answers[aspect, True] == answers[aspect, False] for aspect in aspects)
    assert abs(labels[Authenticity.REAL] - labels[Authenticity.FAKE]) <= len(aspects)


def test_letters_are_uniform_and_options_do_not_give_the_answer_away() -> None:
    asked = [ask for _, ask in asks_of(make_pairs(800), "aspect_choice")]
    letters = Counter(ask.letter for ask in asked)
    assert max(letters.values()) - min(letters.values()) <= 1
    right = Counter(ask.aspect for ask in asked)
    shown = Counter(option for ask in asked for option in (*ask.distractors, ask.aspect))
    assert len(asked) > 300
    assert all(0.2 < right[aspect] / shown[aspect] < 0.3 for aspect in right)


def test_the_same_evidence_twice_counts_once() -> None:
    chain, _ = make_pair("image", categories=["texture"])
    twice = replace(chain.reasoning, findings=chain.reasoning.findings * 2)
    subject = subject_of(replace(chain, reasoning=twice), recipe().taxonomy)
    assert [len(texts) for texts in subject.found.values()] == [1]


def test_a_category_that_the_recipe_does_not_have_is_named() -> None:
    chain, _ = make_pair("image", categories=["smell"])
    with pytest.raises(DataError, match="unknown trace category 'smell'"):
        subject_of(chain, recipe().taxonomy)
