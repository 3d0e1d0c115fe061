"""The queue of the adjudicator, what is put before them, and what comes of the answer."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.adjudicate import (
    ADDS,
    LACKS,
    LEAVES,
    REJECTS,
    prediction_of_proposal,
    propose,
    ruling_of,
    traces_of_proposal,
)
from annotation.interface import adjudication_form, review_form
from core.chain import build_chain
from core.disputes import disagreement, queue_of
from core.errors import DataError
from core.quality import ReviewedDraft
from core.recipe import load_recipe
from core.records import (
    Authenticity,
    Correction,
    ReviewLevel,
    TraceFinding,
    TraceOutcome,
)
from tests.unit.records import (
    make_correction,
    make_draft,
    make_finding,
    make_image,
    make_reasoning,
)

ACCEPTED, EDITED, REJECTED, ADDED = TraceOutcome
IMAGE = make_image()
TAXONOMY = load_recipe().taxonomy
TEXTURE, EDGE, SHAPE, TONE = map(make_finding, ("texture", "edge", "shape", "tone"))
DRAFT = make_draft(IMAGE, TEXTURE, EDGE)
REWRITTEN = replace(TEXTURE, evidence="The wall repeats one square.")


def answer(
    expert: str, left: Sequence[TraceFinding | None], *added: TraceFinding, conclusion: str = "So."
) -> Correction:
    """An expert's answer to `DRAFT`: what is left of each of its traces, and what is added."""
    outcomes = [
        REJECTED if finding is None else ACCEPTED if finding == drafted else EDITED
        for drafted, finding in zip(DRAFT.reasoning.findings, left, strict=True)
    ]
    kept = [finding for finding in left if finding is not None]
    return make_correction(
        DRAFT,
        expert,
        reasoning=make_reasoning(*kept, *added, conclusion=conclusion),
        outcomes=(*outcomes, *(ADDED for _ in added)),
    )


answers = st.lists(
    st.builds(
        lambda left, added: (left, added),
        st.tuples(st.sampled_from([None, TEXTURE, REWRITTEN]), st.sampled_from([None, EDGE])),
        st.lists(st.sampled_from([SHAPE, TONE]), max_size=2, unique=True),
    ),
    min_size=2,
    max_size=4,
).map(lambda given: [answer(f"e{n}", left, *added) for n, (left, added) in enumerate(given)])


def reviewed(*corrections: Correction, ruling: Correction | None = None) -> ReviewedDraft:
    return ReviewedDraft(
        image=IMAGE, draft=DRAFT, corrections=corrections, ruling=ruling, seconds={}
    )


# The queue


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        (answer("a", (TEXTURE, EDGE)), answer("b", (TEXTURE, EDGE)), 0),
        (answer("a", (TEXTURE, EDGE)), answer("b", (REWRITTEN, EDGE)), 0),
        (answer("a", (None, None)), answer("b", (None, None)), 0),
        (answer("a", (TEXTURE, EDGE)), answer("b", (TEXTURE, None)), 1 / 2),
        (answer("a", (TEXTURE, EDGE), SHAPE), answer("b", (TEXTURE, None), SHAPE), 1 / 3),
        (answer("a", (TEXTURE, EDGE), SHAPE), answer("b", (TEXTURE, EDGE), TONE), 2 / 4),
        (answer("a", (None, EDGE), SHAPE), answer("b", (TEXTURE, None)), 1),
    ],
)
def test_disagreement_by_hand(one: Correction, other: Correction, share: float) -> None:
    assert disagreement([one, other]) == pytest.approx(share)


@given(answers, st.randoms())
def test_disagreement_is_a_share_that_knows_no_order(
    given_answers: list[Correction], shuffler: random.Random
) -> None:
    share = disagreement(given_answers)
    assert 0 <= share <= 1
    assert disagreement(shuffler.sample(given_answers, len(given_answers))) == share
    assert disagreement([given_answers[0], given_answers[0]]) == 0


def test_different_verdicts_are_the_greatest_disagreement() -> None:
    real = make_correction(
        DRAFT, "b", reasoning=make_reasoning(TEXTURE, EDGE, verdict=Authenticity.REAL)
    )
    assert disagreement([answer("a", (TEXTURE, EDGE)), real]) == 1


def test_the_queue_holds_what_enough_experts_disagree_on_worst_first() -> None:
    def about(name: str, *said: Correction, ruling: Correction | None = None) -> ReviewedDraft:
        image = make_image(name, image_id=name)
        return replace(reviewed(*said, ruling=ruling), image=image)

    agreeing = answer("a", (TEXTURE, EDGE))
    third = answer("b", (TEXTURE, None), SHAPE)
    all_else = answer("b", (None, None), SHAPE)
    queue = queue_of(
        [
            about("agreed", agreeing, answer("b", (TEXTURE, EDGE))),
            about("some", agreeing, third),
            about("alone", agreeing),
            about("settled", agreeing, all_else, ruling=replace(all_else, is_adjudication=True)),
            about("worst", agreeing, all_else),
            about("again", agreeing, third),
        ],
        required=2,
        overlap=0.5,
    )
    assert [item.image_id for item in queue] == ["worst", "again", "some"]
    assert queue[0].disputed == ("edge", "shape", "texture")
    assert queue[1].disagreement == pytest.approx(2 / 3)
    assert queue[1].experts == ("a", "b")


# The proposal


def test_the_proposal_holds_each_trace_once_in_the_words_of_most() -> None:
    proposal = propose(
        DRAFT,
        [
            answer("a", (REWRITTEN, None), SHAPE),
            answer("b", (REWRITTEN, EDGE), SHAPE),
            answer("c", (TEXTURE, None), replace(SHAPE, evidence="Other words.")),
        ],
    )
    findings = [candidate.finding for candidate in proposal.candidates]
    assert findings[:2] == [REWRITTEN, EDGE]
    assert sorted(f.evidence for f in findings[2:]) == sorted([SHAPE.evidence, "Other words."])
    assert [candidate.drafted for candidate in proposal.candidates] == [0, 1, None, None]
    assert proposal.as_draft().reasoning.findings == tuple(findings)
    assert proposal.as_draft().draft_id == DRAFT.draft_id


def test_what_each_made_of_a_trace_stands_side_by_side() -> None:
    proposal = propose(
        DRAFT, [answer("a", (REWRITTEN, None), SHAPE), answer("b", (TEXTURE, EDGE), TONE)]
    )
    said = {candidate.finding.category: set(candidate.said) for candidate in proposal.candidates}
    assert said == {
        "texture": {REWRITTEN.evidence, LEAVES},
        "edge": {REJECTS, LEAVES},
        "shape": {ADDS, LACKS},
        "tone": {LACKS, ADDS},
    }
    columns = list(zip(*(candidate.said for candidate in proposal.candidates), strict=True))
    assert (REWRITTEN.evidence, REJECTS, ADDS, LACKS) in columns or (
        REWRITTEN.evidence, REJECTS, LACKS, ADDS,
    ) in columns  # fmt: skip


def test_what_all_did_is_decided_and_the_rest_is_asked() -> None:
    proposal = propose(
        DRAFT,
        [answer("a", (TEXTURE, None), SHAPE), answer("b", (TEXTURE, None), SHAPE, TONE)],
    )
    decided = [candidate.decided for candidate in proposal.candidates]
    assert decided == [ACCEPTED, REJECTED, ACCEPTED, None]


@given(answers)
def test_no_word_of_an_expert_is_lost(given_answers: list[Correction]) -> None:
    proposal = propose(DRAFT, given_answers)
    shown = {candidate.finding.evidence for candidate in proposal.candidates}
    shown |= {words for candidate in proposal.candidates for words in candidate.said}
    for correction in given_answers:
        for place, finding in correction.drafted().items():
            unchanged = finding == DRAFT.reasoning.findings[place]
            assert finding.evidence in shown or unchanged
        assert {finding.evidence for finding in correction.added()} <= shown


def test_the_letters_of_experts_have_an_order_of_their_own() -> None:
    said = [answer("a", (TEXTURE, EDGE)), answer("b", (None, EDGE))]
    orders = set()
    for number in range(20):
        draft = replace(DRAFT, draft_id=f"draft-{number}")
        first, other = propose(draft, said), propose(draft, said[::-1])
        assert first == other
        orders.add(first.candidates[0].said)
    assert orders == {(LEAVES, REJECTS), (REJECTS, LEAVES)}


# The task


def test_more_experts_than_columns_share_the_last_one() -> None:
    said = [answer(name, (TEXTURE, EDGE)) for name in "abc"]
    (trace, _) = traces_of_proposal(propose(DRAFT, said), TAXONOMY)
    assert trace == {
        "heading": "1. texture: speaks for a generated picture",
        "text": TEXTURE.evidence,
        "draft": TEXTURE.evidence,
        "side_1_by": "expert A",
        "side_1": LEAVES,
        "side_2_by": "expert B, C",
        "side_2": f"B: {LEAVES}\nC: {LEAVES}",
    }


@given(answers)
def test_the_form_shows_every_proposal_and_asks_what_is_disputed(
    given_answers: list[Correction],
) -> None:
    proposal = propose(DRAFT, given_answers)
    filled = prediction_of_proposal(proposal, IMAGE)
    adjudication_form(TAXONOMY).check(filled, len(proposal.candidates))
    chosen = {r["from_name"]: r["value"].get("choices") for r in filled}
    assert "confidence" not in chosen
    for place, candidate in enumerate(proposal.candidates):
        words = {None: None, ACCEPTED: ["accept"], REJECTED: ["reject"]}[candidate.decided]
        assert chosen.get(f"verdict_{place}") == words


def test_both_forms_of_traces_are_forms_of_their_own() -> None:
    assert adjudication_form(TAXONOMY).form_id != review_form(TAXONOMY).form_id
    controls = adjudication_form(TAXONOMY).controls(2)
    assert controls == review_form(TAXONOMY).controls(2)


# The ruling


def test_a_ruling_speaks_of_the_teachers_draft() -> None:
    said = [answer("a", (REWRITTEN, None), SHAPE), answer("b", (REWRITTEN, EDGE), TONE)]
    proposal = propose(DRAFT, said)
    shape = next(c.finding for c in proposal.candidates if c.finding.category == "shape")
    kept = {"texture": REWRITTEN, "edge": EDGE, "shape": shape, "tone": None}
    findings = [kept[candidate.finding.category] for candidate in proposal.candidates]
    anatomy = make_finding("anatomy")
    settled = make_correction(
        proposal.as_draft(),
        "judge",
        *(finding for finding in findings if finding is not None),
        anatomy,
        outcomes=(*(REJECTED if f is None else ACCEPTED for f in findings), ADDED),
    )
    ruling = ruling_of(settled, proposal)
    assert ruling.is_adjudication
    assert ruling.outcomes == (EDITED, ACCEPTED, ADDED, ADDED)
    assert ruling.drafted() == {0: REWRITTEN, 1: EDGE}
    assert ruling.added() == (SHAPE, anatomy)
    chain = build_chain(IMAGE, DRAFT, [*said, ruling], agreed_corrections=2, agreed_overlap=0.5)
    assert chain.review_level is ReviewLevel.ADJUDICATED
    assert [f.category for f in chain.reasoning.findings] == ["texture", "edge", "shape", "anatomy"]


@given(answers, st.data())
def test_a_ruling_has_one_outcome_for_each_trace(
    given_answers: list[Correction], data: st.DataObject
) -> None:
    proposal = propose(DRAFT, given_answers)
    keeps = [data.draw(st.booleans()) for _ in proposal.candidates]
    findings = [c.finding for c, keep in zip(proposal.candidates, keeps, strict=True) if keep]
    settled = make_correction(
        proposal.as_draft(),
        "judge",
        *findings,
        outcomes=tuple(ACCEPTED if keep else REJECTED for keep in keeps),
    )
    ruling = ruling_of(settled, proposal)
    assert ruling.reasoning.findings == tuple(findings)
    assert len(ruling.outcomes) == 2 + len(ruling.added())
    assert [ruling.outcomes[n] is not REJECTED for n in range(2)] == keeps[:2]


def test_nobody_settles_their_own_dispute() -> None:
    proposal = propose(DRAFT, [answer("a", (TEXTURE, None)), answer("b", (None, EDGE))])
    with pytest.raises(DataError, match="a gave one of the answers"):
        ruling_of(answer("a", (TEXTURE, None)), proposal)
