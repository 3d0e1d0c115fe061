"""Chains with vague phrases are counted, and too many of them stop a build."""

from __future__ import annotations

import pytest

from core.errors import PermanentError
from instruct_builder.checks import Checks, Figures, Planned
from instruct_builder.vagueness import Vague
from instruct_builder.words import Words
from tests.unit.instruct_builder.specimens import images_of, make_pairs, plan_of, recipe, templates

IN_CONCLUSIONS = "nothing VISIBLE bears"
IN_FINDINGS = "repeats every 2 pixels"


def figures_of(*phrases: str, most_share: float = 1.0) -> Figures:
    """Of 80 chains, 20 of them without a finding and with a conclusion that says so."""
    pairs = make_pairs(80)
    plan, chains = plan_of(pairs)
    checks = Checks([Vague(phrases, most_share=most_share)])
    words = Words(templates(), recipe().taxonomy)
    checks.see_plan(Planned(plan, chains, images_of(pairs), words))
    return checks.facts()["vague"].figures


@pytest.mark.parametrize(
    ("phrases", "vague"),
    [
        ((IN_CONCLUSIONS,), 20),
        ((IN_FINDINGS,), 60),
        ((IN_FINDINGS, IN_CONCLUSIONS), 80),
        ((IN_FINDINGS, "What can be seen"), 60),
        (("a (literal) phrase.*",), 0),
    ],
)
def test_a_chain_counts_once_wherever_its_phrases_stand(
    phrases: tuple[str, ...], vague: int
) -> None:
    figures = figures_of(*phrases)
    assert (figures["chains"], figures["vague"], figures["share"]) == (80, vague, vague / 80)


def test_each_phrase_has_a_figure() -> None:
    figures = figures_of(IN_FINDINGS, IN_CONCLUSIONS)
    assert figures[f"with {IN_FINDINGS!r}"] == 60
    assert figures[f"with {IN_CONCLUSIONS!r}"] == 20


def test_too_many_vague_chains_stop_a_build_and_name_the_phrase() -> None:
    assert figures_of(IN_CONCLUSIONS, most_share=0.25)["vague"] == 20
    with pytest.raises(
        PermanentError, match=r"25\.0% of the chains .* 24\.0% may be; 20 of 80 have"
    ):
        figures_of(IN_CONCLUSIONS, most_share=0.24)
