"""Votes of several teachers, against tables that were counted by hand."""

from __future__ import annotations

from core.consensus import Vote, common_confidence, count_votes
from core.recipe import load_recipe
from core.records import Authenticity, Confidence, Draft, TraceFinding
from tests.unit.records import make_draft, make_finding, make_image, make_reasoning

TAXONOMY = load_recipe().taxonomy
IMAGE = make_image("x", label=Authenticity.FAKE)
FAKE, REAL = Authenticity.FAKE, Authenticity.REAL


def draft(arm: str, *points: str, glaring: tuple[str, ...] = (), **changes: object) -> Draft:
    """`texture` points to a fake, `-texture` to a photograph."""
    findings = [
        make_finding(
            category=point.lstrip("-"),
            points_to=REAL if point.startswith("-") else FAKE,
            evidence=f"{arm} sees {point}.",
        )
        for point in points
    ]
    return make_draft(
        IMAGE, *findings, draft_id=f"draft-{arm}", arm=arm, glaring=glaring, **changes
    )


def table(votes: tuple[Vote, ...]) -> list[tuple[str, str, str, bool]]:
    return [
        (vote.category, vote.points_to.value, " ".join(vote.arms), vote.is_kept) for vote in votes
    ]


def test_two_of_three_keep_a_point() -> None:
    drafts = [
        draft("first", "texture", "edge", "shape"),
        draft("second", "texture", "edge", "clarity"),
        draft("third", "texture", "symmetry"),
    ]
    assert table(count_votes(drafts, TAXONOMY, needed=2)) == [
        ("texture", "fake", "first second third", True),
        ("edge", "fake", "first second", True),
        ("clarity", "fake", "second", False),
        ("symmetry", "fake", "third", False),
        ("shape", "fake", "first", False),
    ]


def test_a_single_point_stays_where_its_teacher_calls_it_glaring() -> None:
    drafts = [
        draft("first", "texture", glaring=("texture",)),
        draft("second", "edge"),
        draft("third", "shape", glaring=("edge",)),
    ]
    found = count_votes(drafts, TAXONOMY, needed=2)
    assert table(found) == [
        ("texture", "fake", "first", True),
        ("edge", "fake", "second", False),
        ("shape", "fake", "third", False),
    ]
    assert found[0].glaring == ("first",)


def test_sides_of_one_category_are_counted_apart() -> None:
    drafts = [draft("first", "texture"), draft("second", "-texture"), draft("third", "-texture")]
    assert table(count_votes(drafts, TAXONOMY, needed=2)) == [
        ("texture", "fake", "first", False),
        ("texture", "real", "second third", True),
    ]


def test_a_teacher_has_one_vote_however_often_it_raises_a_point() -> None:
    drafts = [draft("first", "texture", "texture"), draft("second", "edge")]
    assert not any(vote.is_kept for vote in count_votes(drafts, TAXONOMY, needed=2))


def test_two_of_two_are_needed_where_one_teacher_failed() -> None:
    drafts = [draft("first", "texture", "edge"), draft("third", "edge")]
    assert table(count_votes(drafts, TAXONOMY, needed=2)) == [
        ("texture", "fake", "first", False),
        ("edge", "fake", "first third", True),
    ]


def test_each_finding_of_a_vote_is_what_its_teacher_said() -> None:
    (vote,) = count_votes([draft("first", "edge"), draft("second", "edge")], TAXONOMY, needed=2)
    assert [finding.evidence for finding in vote.findings] == [
        "first sees edge.",
        "second sees edge.",
    ]
    assert all(isinstance(finding, TraceFinding) for finding in vote.findings)


def test_the_common_confidence_is_the_middle_one() -> None:
    said = {
        (Confidence.LOW, Confidence.HIGH, Confidence.MEDIUM): Confidence.MEDIUM,
        (Confidence.HIGH, Confidence.HIGH, Confidence.LOW): Confidence.HIGH,
        (Confidence.LOW, Confidence.HIGH): Confidence.LOW,
    }
    for each, common in said.items():
        drafts = [
            make_draft(IMAGE, arm=f"a{place}", reasoning=make_reasoning(confidence=value))
            for place, value in enumerate(each)
        ]
        assert common_confidence(drafts) is common
