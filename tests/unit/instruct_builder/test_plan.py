"""What is asked of each chain, and in which words: honest, balanced, in any order the same."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from core.ids import content_id
from core.records import Authenticity, Instruction
from instruct_builder.columns import join_names
from instruct_builder.forms import CASES, first_target
from instruct_builder.patterns import LETTERS
from tests.unit.instruct_builder.golden import GOLDEN, golden_rows
from tests.unit.instruct_builder.grammar import problems_of
from tests.unit.instruct_builder.specimens import (
    Pair,
    expand_all,
    make_pair,
    make_pairs,
    pair_lists,
    plan_of,
    recipe,
    table_of,
    templates,
)

FORMS = [name for _, name, _ in templates().forms()]
DIALOGUES = {name for _, name, _ in templates().dialogues()}
FAMILY_OF = {name: family for family, name, _ in [*templates().forms(), *templates().dialogues()]}
NAMES = {category.id: category.name for category in recipe().taxonomy.categories}
ABOUT_ASPECTS = ("aspect_trace", "aspect_evidence", "aspect_free", "aspect_lacking")
few = settings(max_examples=25, deadline=None)


def texts_of(row: Instruction) -> list[str]:
    return [message.content for message in row.messages]


def rows_of(pairs: list[Pair], **options: object) -> list[tuple[Pair, Instruction]]:
    expanded = zip(pairs, expand_all(pairs, **options), strict=True)
    return [(pair, row) for pair, rows in expanded for row in rows]


def found_in(pair: Pair) -> set[str]:
    return {finding.category for finding in pair[0].reasoning.supporting()}


def test_every_form_reads_as_it_was_read_and_approved() -> None:
    """Golden texts; after a wanted change: python -m tests.unit.instruct_builder.golden."""
    assert yaml.safe_load(Path(GOLDEN).read_text(encoding="utf-8")) == golden_rows()


def test_the_golden_texts_hold_every_form_and_dialogue() -> None:
    alone = {name for _, name, form in templates().forms() if form.stands_alone}
    assert set(golden_rows()) == alone | DIALOGUES


@given(pair_lists)
@few
def test_every_text_reads_as_a_careful_person_writes(pairs: list[Pair]) -> None:
    for _, row in rows_of(pairs):
        for text in texts_of(row):
            problems = [
                p for p in problems_of(text) if not p.startswith(("a word", "a wrong", "an op"))
            ]
            assert problems == [], (row.template_id, text)


@given(pair_lists)
@few
def test_no_slot_is_left_open_and_nothing_is_invented(pairs: list[Pair]) -> None:
    for (chain, _), row in rows_of(pairs):
        said = [*(f.evidence for f in chain.reasoning.findings), chain.reasoning.conclusion]
        for text in texts_of(row):
            assert not re.search(r"\{(?!braces\})", text), text
            assert "None" not in text or "None" in " ".join(said), text


@given(pair_lists)
@few
def test_every_closed_answer_is_right_and_its_text_says_so(pairs: list[Pair]) -> None:
    for pair, row in rows_of(pairs):
        if row.form in DIALOGUES:
            assert row.target is None
            continue
        form = templates().named[row.form][1]
        assert (row.target is None) == (form.answer == "open")
        if row.target is None or form.is_choice:
            continue
        assert first_target(form, texts_of(row)[-1]) == row.target
        if form.answer == "verdict":
            assert row.target == pair[1].label
        else:
            found = row.aspect is None or row.aspect in found_in(pair)
            is_yes = (pair[1].label is form.asks and found) is not form.negated
            assert row.target == ("yes" if is_yes else "no")


def pairs_of_all_kinds(number: int) -> list[Pair]:
    """Findings of each category whatever else is found, so that whole blocks of choices exist."""
    draw = random.Random(number)
    ids = recipe().taxonomy.ids[:6]
    return [
        make_pair(f"image {n}", label, [one for one in ids if draw.random() < 0.5])
        for n, label in zip(range(number), cycle(Authenticity), strict=False)
    ]


@pytest.mark.parametrize("form", ["aspect_choice", "aspect_choices", "aspect_odd_one"])
def test_the_options_at_the_right_letters_are_right(form: str) -> None:
    absent = templates().named[form][1].right == "absent"
    asked = [(pair, row) for pair, row in rows_of(pairs_of_all_kinds(600)) if row.form == form]
    assert len(asked) > 30
    for pair, row in asked:
        question, answer = texts_of(row)
        options = dict(re.findall(r"^([A-D])\. (.+)$", question, re.MULTILINE))
        assert list(options) == list(LETTERS) and len(set(options.values())) == 4
        names = {NAMES[category] for category in found_in(pair)}
        right = {k for k, name in options.items() if (name.lower() in names) is not absent}
        assert set(re.findall(r"\b[A-D]\b", row.target or "")) == right
        assert answer.startswith(row.target or "?")


def test_the_letters_of_choices_take_turns() -> None:
    letters = Counter(
        row.target for _, row in rows_of(make_pairs(800)) if row.form == "aspect_choice"
    )
    assert set(letters) == set(LETTERS)
    assert max(letters.values()) < 1.5 * min(letters.values())


@given(pair_lists, st.integers(1, 3))
@few
def test_the_order_of_the_chains_does_not_matter(pairs: list[Pair], seed: int) -> None:
    """Not for what is asked of each; choices in blocks depend on nothing but the chains."""
    shuffled = random.Random(seed).sample(pairs, len(pairs))
    one, other = ({row for _, row in rows_of(p)} for p in (pairs, shuffled))
    assert one == other


@given(pair_lists)
@few
def test_ids_differ_and_no_conversation_is_repeated(pairs: list[Pair]) -> None:
    rows = [row for _, row in rows_of(pairs)]
    assert len({row.instruction_id for row in rows}) == len(rows)
    assert len({(row.image_id, row.messages) for row in rows}) == len(rows)


def test_a_text_that_an_expert_mends_changes_the_rows_of_its_image_alone() -> None:
    before = pairs_of_all_kinds(60)
    chain, image = before[7]
    first, *others = chain.reasoning.findings
    mended = replace(first, evidence="The seam that an expert saw runs through the sky.")
    reasoning = replace(chain.reasoning, findings=(mended, *others))
    again = replace(chain, chain_id=content_id("chain", "mended"), reasoning=reasoning)
    after = [*before[:7], (again, image), *before[8:]]
    old, new = expand_all(before), expand_all(after)
    assert [place for place in range(60) if old[place] != new[place]] == [7]
    assert [row.template_id for row in old[7]] == [row.template_id for row in new[7]]
    assert any("The seam that an expert saw" in text for row in new[7] for text in texts_of(row))


@given(pair_lists)
@few
def test_no_family_takes_more_rows_than_the_recipe_allows(pairs: list[Pair]) -> None:
    taken = Counter((pair[0].chain_id, FAMILY_OF[row.form]) for pair, row in rows_of(pairs))
    assert all(rows <= templates().caps[family] for (_, family), rows in taken.items())


@given(pair_lists)
@few
def test_nothing_is_asked_that_a_chain_cannot_honestly_answer(pairs: list[Pair]) -> None:
    plan, chains = plan_of(pairs)
    turns = plan.turns
    for row, code, case, aspect in zip(
        turns.row, turns.form, turns.case, turns.aspect, strict=True
    ):
        form = templates().named[FORMS[code]][1]
        assert CASES[case] in set(form.cases())
        chain = int(plan.chain[row])
        found = found_in(pairs[chain])
        if aspect >= 0 and recipe().taxonomy.ids[aspect] not in found:
            assert chains.can_deny[chain]


def test_a_chain_whose_findings_were_left_out_denies_nothing() -> None:
    pairs = [make_pair(f"image {n}", contradictions=1) for n in range(20)]
    for pair, row in rows_of(pairs):
        assert row.aspect is None or row.aspect in found_in(pair)


@pytest.mark.parametrize("form", ABOUT_ASPECTS)
def test_yes_and_no_are_even_for_each_aspect(form: str) -> None:
    answers: dict[str | None, Counter[str | None]] = defaultdict(Counter)
    for _, row in rows_of(make_pairs(600)):
        if row.form == form:
            answers[row.aspect][row.target] += 1
    assert len(answers) > 3
    assert all(abs(counts["yes"] - counts["no"]) <= 1 for counts in answers.values())


def test_a_number_of_rows_is_met_exactly_and_the_families_have_their_shares() -> None:
    pairs = make_pairs(60)
    shares = {"verdict": 0.3, "holistic": 0.2, "fine_grained": 0.3, "discussion": 0.2}
    rows = rows_of(pairs, rows=1000, shares=shares)
    assert len(rows) == 1000
    counts = Counter(FAMILY_OF[row.form] for _, row in rows)
    assert counts == {name: 1000 * share for name, share in shares.items()}


def test_asking_for_more_than_the_chains_carry_says_how_many_they_do() -> None:
    with pytest.raises(ConfigError, match=r"\d"):
        table_of(make_pairs(6), rows=100_000)


def test_a_chain_without_findings_invents_none() -> None:
    for label in Authenticity:
        rows = expand_all([make_pair("bare", label, ())])[0]
        assert not any("repeats every" in text for row in rows for text in texts_of(row))


def test_another_seed_gives_other_words_but_never_another_truth() -> None:
    pairs = make_pairs(30)
    assert table_of(pairs, seed=1).equals(table_of(pairs, seed=1))
    assert not table_of(pairs, seed=1).equals(table_of(pairs, seed=2))


def test_a_region_is_named_by_its_box_and_its_place() -> None:
    rows = [row for _, row in rows_of(make_pairs(80)) if row.form == "region_where"]
    assert rows
    for row in rows:
        assert "[0.05, 0.10, 0.30, 0.25]" in texts_of(row)[1]
        assert "None" not in texts_of(row)[1]


def test_in_a_dialogue_the_verdict_is_given_once_and_not_before_it_is_asked_for() -> None:
    talks = [(pair, row) for pair, row in rows_of(make_pairs(120)) if row.form in DIALOGUES]
    assert {row.form for _, row in talks} == DIALOGUES
    for pair, row in talks:
        turns = [part.split("/")[0] for part in row.template_id.split(" ")]
        assert 2 <= len(turns) == len(row.messages) // 2 <= 4
        asking = [n for n, name in enumerate(turns) if templates().named[name][1].wants_verdict]
        assert len(asking) <= 1
        for place in asking:
            before = " ".join(texts_of(row)[: 2 * place])
            assert not any(f.evidence in before for f in pair[0].reasoning.findings)
            stated = [n for n in turns if templates().named[n][1].states_verdict]
            assert stated == []


@pytest.mark.parametrize(
    ("names", "joined"),
    [
        ([], ""),
        (["edges"], "edges"),
        (["edges", "clarity"], "edges and clarity"),
        (["light and shadow", "clarity"], "light and shadow, and clarity"),
        (["clarity", "edges", "shape"], "clarity, edges, and shape"),
    ],
)
def test_names_are_joined_as_in_a_sentence(names: list[str], joined: str) -> None:
    assert join_names(names) == joined


def test_the_same_evidence_twice_counts_once() -> None:
    chain, image = make_pair("image", categories=["texture"])
    twice = replace(chain.reasoning, findings=chain.reasoning.findings * 2)
    _, chains = plan_of([(replace(chain, reasoning=twice), image)])
    assert len(chains.finding_text) == 1
    assert np.flatnonzero(chains.found[0]).tolist() == [recipe().taxonomy.ids.index("texture")]
