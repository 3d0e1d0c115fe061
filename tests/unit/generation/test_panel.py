"""How far teachers agree, counted on planted drafts and beside an expert's word."""

from __future__ import annotations

from core.records import Authenticity
from generation.panel import Panel, Voter, as_text
from tests.unit.records import make_correction, make_draft, make_finding, make_image

IMAGE = make_image("x", label=Authenticity.FAKE)
SAID = {"first": ("texture", "edge"), "second": ("texture", "shape"), "third": ("texture", "edge")}
DRAFTS = [
    make_draft(IMAGE, *(make_finding(category=name) for name in names), draft_id=arm, arm=arm)
    for arm, names in SAID.items()
]
MERGED = make_draft(
    IMAGE, make_finding(category="texture"), make_finding(category="edge"), merged=tuple(SAID)
)


def panel() -> Panel:
    return Panel(voters={arm: Voter() for arm in SAID})


def test_points_are_counted_by_teacher_and_by_votes() -> None:
    counted = panel()
    counted.add(MERGED, DRAFTS, None)
    assert counted.voters["first"] == Voter(raised=2, kept=2)
    assert counted.voters["second"] == Voter(raised=2, kept=1, alone=1)
    assert {name: each.votes for name, each in counted.points.items()} == {
        "texture": {3: 1},
        "edge": {2: 1},
        "shape": {1: 1},
    }
    assert counted.drafts == {3: 1}
    assert counted.checked == 0


def test_an_expert_upholds_votes_or_denies_them() -> None:
    # given an expert who keeps the texture, strikes the edge and adds the shape
    word = make_correction(
        MERGED, "ann", make_finding(category="texture"), make_finding(category="shape")
    )
    counted = panel()
    counted.add(MERGED, DRAFTS, word)
    told = {name: (each.upheld, each.denied) for name, each in counted.voters.items()}
    assert told == {"first": (1, 1), "second": (2, 0), "third": (1, 1)}
    assert (counted.points["shape"].kept, counted.points["shape"].upheld) == (0, 1)
    assert counted.checked == 1


def test_of_a_dropped_point_an_expert_was_not_asked() -> None:
    word = make_correction(MERGED, "ann", make_finding(category="texture"))
    counted = panel()
    counted.add(MERGED, DRAFTS, word)
    assert (counted.points["shape"].upheld, counted.points["shape"].denied) == (0, 0)
    assert (counted.points["edge"].upheld, counted.points["edge"].denied) == (0, 1)
    assert counted.voters["second"] == Voter(raised=2, kept=1, alone=1, upheld=1)


def test_the_tables_name_arms_and_points() -> None:
    counted = panel()
    counted.add(MERGED, DRAFTS[:2], None)
    lines = list(as_text("consensus", counted))
    assert lines[0] == (
        "votes merged by arm consensus; images by number of drafts: 1 of 2; checked by experts: 0"
    )
    assert [line.split() for line in lines if line.startswith("shape")] == [
        ["shape", "1", "0", "0", "0", "0", "0"]
    ]
