"""From one chain to its instructions."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings

from core.records import Authenticity, Instruction
from instruct_builder.expand import expand_chain, join_names
from instruct_builder.families import plan_asks
from instruct_builder.templates import first_target
from tests.unit.instruct_builder.golden import GOLDEN, golden_rows
from tests.unit.instruct_builder.specimens import (
    Pair,
    expand_all,
    make_pair,
    make_pairs,
    pair_lists,
    recipe,
    templates,
)


def texts_of(row: Instruction) -> list[str]:
    return [message.content for message in row.messages]


def test_every_form_reads_as_it_was_read_and_approved() -> None:
    """Golden texts; after a wanted change: python -m tests.unit.instruct_builder.golden."""
    assert yaml.safe_load(Path(GOLDEN).read_text(encoding="utf-8")) == golden_rows()


def test_the_golden_texts_hold_every_form() -> None:
    assert set(golden_rows()) == {name for _, name, _ in templates().forms()}


@given(pair_lists)
@settings(max_examples=40, deadline=None)
def test_every_closed_answer_is_right_and_its_text_says_so(pairs: list[Pair]) -> None:
    for (chain, image), rows in zip(pairs, expand_all(pairs), strict=True):
        found = {finding.category for finding in chain.reasoning.findings}
        for row in rows:
            form = templates().named[row.form][1]
            assert (row.target is None) == (form.answer == "open")
            if row.target is None:
                continue
            assert row.target in form.targets
            assert first_target(form, texts_of(row)[-1]) == row.target
            if form.answer == "verdict":
                assert row.target == image.label
            if form.answer == "yes_no":
                is_yes = image.label is form.asks and (not row.aspect or row.aspect in found)
                assert row.target == ("yes" if is_yes else "no")


@given(pair_lists)
@settings(max_examples=40, deadline=None)
def test_every_text_is_made_of_whole_sentences(pairs: list[Pair]) -> None:
    for rows in expand_all(pairs):
        for row in rows:
            for text in texts_of(row):
                assert not text[0].islower(), text
                assert re.search(r"[.!?][\"')]?$", text) or "\nD. " in text, text
                assert not re.search(r"  |\.\.|[ \t]\n|\n\n\n|[ \n]$| [.,;:]", text), text


@given(pair_lists)
@settings(max_examples=40, deadline=None)
def test_no_slot_is_left_open_and_no_finding_is_invented(pairs: list[Pair]) -> None:
    for (chain, _), rows in zip(pairs, expand_all(pairs), strict=True):
        own = " ".join(
            [*(f.evidence for f in chain.reasoning.findings), chain.reasoning.conclusion]
        )
        for row in rows:
            for text in texts_of(row):
                assert not re.search(r"\{(?!braces\})", text), text
                assert ("None" not in text) or ("None" in own), text


@given(pair_lists)
@settings(max_examples=40, deadline=None)
def test_ids_differ_and_no_conversation_is_repeated(pairs: list[Pair]) -> None:
    rows = [row for rows in expand_all(pairs) for row in rows]
    assert len({row.instruction_id for row in rows}) == len(rows)
    assert len({(row.image_id, row.messages) for row in rows}) == len(rows)


def test_a_chain_without_findings_invents_none() -> None:
    for label in Authenticity:
        rows = expand_all([make_pair("bare", label, ())])[0]
        assert {row.form for row in rows} == {
            "verdict_what", "verdict_is_fake", "verdict_is_real", "verdict_reason",
            "holistic_inference", "aspect_narrative",
            "discuss_image_advice", "discuss_certainty", "discuss_next_check",
        }  # fmt: skip
        assert not any("repeats every" in text for row in rows for text in texts_of(row))


def test_the_evidence_of_an_aspect_is_the_one_in_the_chain() -> None:
    chain, image = make_pair("image", categories=["texture", "edge", "shape"])
    for row in expand_all([(chain, image)])[0]:
        if row.form == "aspect_narrative" and row.aspect in ("texture", "edge", "shape"):
            assert f"What can be seen of {row.aspect}" in texts_of(row)[-1]


def test_another_seed_gives_other_patterns_but_the_same_answers() -> None:
    pairs = make_pairs(30)
    first, second = expand_all(pairs, seed=1), expand_all(pairs, seed=2)
    assert first != second
    assert first == expand_all(pairs, seed=1)


def test_a_chain_of_another_label_is_refused() -> None:
    chain, image = make_pair("image")
    plan = plan_asks([chain], templates(), recipe().taxonomy, seed=1)
    with pytest.raises(ValueError, match="verdict differs from the label"):
        expand_chain(chain, replace(image, label=Authenticity.REAL), plan)


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
