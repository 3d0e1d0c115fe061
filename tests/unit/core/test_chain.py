"""What stands in a chain, and how far it was checked."""

from __future__ import annotations

import pytest

from core.chain import build_chain
from core.records import (
    Authenticity,
    Confidence,
    Correction,
    Draft,
    ImageRecord,
    ReasoningChain,
    ReviewLevel,
)
from tests.unit.records import (
    make_correction,
    make_draft,
    make_finding,
    make_image,
    make_reasoning,
)

IMAGE = make_image("one")
DRAFT = make_draft(IMAGE, make_finding("texture"), make_finding("edge"))


def chain_of(
    *corrections: Correction, draft: Draft = DRAFT, image: ImageRecord = IMAGE
) -> ReasoningChain:
    return build_chain(image, draft, corrections, agreed_corrections=2, agreed_overlap=0.5)


def test_without_a_correction_the_draft_stands_and_says_so() -> None:
    chain = chain_of()
    assert chain.review_level is ReviewLevel.DRAFT
    assert [finding.category for finding in chain.reasoning.findings] == ["texture", "edge"]


def test_the_expert_replaces_the_draft() -> None:
    chain = chain_of(make_correction(DRAFT, "first", make_finding("shape")))
    assert chain.review_level is ReviewLevel.EXPERT
    assert [finding.category for finding in chain.reasoning.findings] == ["shape"]


@pytest.mark.parametrize(
    ("second", "level"),
    [
        (["texture", "edge"], ReviewLevel.AGREED),
        (["texture"], ReviewLevel.AGREED),
        (["shape"], ReviewLevel.EXPERT),
    ],
)
def test_two_experts_agree_when_their_categories_overlap_enough(
    second: list[str], level: ReviewLevel
) -> None:
    one = make_correction(DRAFT, "one", make_finding("texture"), make_finding("edge"))
    two = make_correction(DRAFT, "two", *map(make_finding, second))
    assert chain_of(one, two).review_level is level


def test_the_adjudicator_has_the_last_word() -> None:
    one = make_correction(DRAFT, "one", make_finding("edge"))
    judge = make_correction(DRAFT, "judge", make_finding("tone"), is_adjudication=True)
    chain = chain_of(one, judge)
    assert chain.review_level is ReviewLevel.ADJUDICATED
    assert [finding.category for finding in chain.reasoning.findings] == ["tone"]


def test_a_finding_against_the_known_label_is_left_out_and_counted() -> None:
    draft = make_draft(IMAGE, make_finding("texture", Authenticity.REAL))
    chain = chain_of(draft=draft)
    assert chain.reasoning.findings == ()
    assert chain.contradictions == 1
    assert chain.reasoning.confidence is Confidence.LOW


def test_the_conclusion_of_a_wrong_verdict_is_dropped() -> None:
    wrong = make_draft(IMAGE, reasoning=make_reasoning(verdict=Authenticity.REAL))
    chain = chain_of(draft=wrong)
    assert chain.reasoning.verdict is Authenticity.FAKE
    assert chain.reasoning.conclusion == ""


def test_an_unlabelled_image_has_no_chain() -> None:
    with pytest.raises(ValueError, match="no label"):
        chain_of(image=make_image("one", label=None))


def test_the_same_input_gives_the_same_id_and_another_correction_another() -> None:
    correction = make_correction(DRAFT, "one", make_finding("edge"))
    assert chain_of().chain_id == chain_of().chain_id
    assert chain_of().chain_id != chain_of(correction).chain_id


def test_a_finding_without_a_word_of_evidence_never_enters_a_chain() -> None:
    draft = make_draft(IMAGE, make_finding("texture"), make_finding("edge", evidence=" ... "))
    chain = chain_of(draft=draft)
    assert [finding.category for finding in chain.reasoning.findings] == ["texture"]
    assert chain.contradictions == 0
