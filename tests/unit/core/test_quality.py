"""What experts leave of a teacher's traces, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from core.quality import PHOTOGRAPHS, ReviewedDraft, TraceQuality, paces, teacher_quality
from core.records import Authenticity, Correction, Draft, TraceOutcome
from tests.unit.records import make_correction, make_draft, make_finding, make_image

ACCEPTED, EDITED, REJECTED, ADDED = TraceOutcome
IMAGE = make_image("fake")
DRAFT = make_draft(
    IMAGE, make_finding("texture", evidence="kitten"), make_finding("edge"), make_finding("shape")
)


def reviewed(draft: Draft, *corrections: Correction, **changes: Any) -> ReviewedDraft:
    values = {"image": IMAGE, "ruling": None, "seconds": {}}
    return ReviewedDraft(draft=draft, corrections=corrections, **{**values, **changes})


FIRST = make_correction(
    DRAFT,
    "expert-1",
    make_finding("texture", evidence="sitting"),
    make_finding("edge"),
    make_finding("anatomy"),
    outcomes=(EDITED, ACCEPTED, REJECTED, ADDED),
)
SECOND = make_correction(
    DRAFT,
    "expert-2",
    *DRAFT.reasoning.findings[:2],
    outcomes=(ACCEPTED, ACCEPTED, REJECTED),
)


def test_what_is_left_of_a_draft_is_known_by_its_place() -> None:
    assert FIRST.drafted() == {
        0: make_finding("texture", evidence="sitting"),
        1: make_finding("edge"),
    }
    assert FIRST.added() == (make_finding("anatomy"),)
    assert SECOND.added() == ()


def test_shares_are_of_what_was_written_and_of_what_was_left() -> None:
    found = teacher_quality([reviewed(DRAFT, FIRST, SECOND)])
    assert found.drafts == 1
    assert found.overall == TraceQuality(
        accepted=3,
        edited=1,
        rejected=2,
        added=1,
        accepted_share=3 / 6,
        edited_share=1 / 6,
        rejected_share=2 / 6,
        added_share=1 / 5,
        characters_changed=3,
        text_changed=pytest.approx(3 / 7),
    )
    assert found.by_category["shape"].rejected_share == 1
    assert found.by_category["texture"].edited_share == 0.5
    assert found.by_category["anatomy"].accepted_share is None
    assert found.by_category["anatomy"].added_share == 1


def test_teachers_and_generators_are_told_apart() -> None:
    photograph = make_image("photograph", label=Authenticity.REAL, generator=None)
    drafts = [
        make_draft(IMAGE, make_finding(), draft_id="one", teacher="old"),
        make_draft(IMAGE, make_finding(), draft_id="two", teacher="old", prompt_version="second"),
        make_draft(photograph, make_finding(), draft_id="three", teacher="new"),
    ]
    said = [make_correction(draft, "expert-1", make_finding()) for draft in drafts]
    found = teacher_quality(
        [
            reviewed(drafts[0], said[0]),
            reviewed(drafts[1], replace(said[1], outcomes=(REJECTED,))),
            reviewed(drafts[2], said[2], image=photograph),
        ]
    )
    assert list(found.by_teacher_version) == [
        "new acoti-00000000",
        "old acoti-00000000",
        "old second",
    ]
    assert found.by_teacher_version["old second"].rejected == 1
    assert list(found.by_generator) == [PHOTOGRAPHS, "sim-nearest"]
    assert [(item.cell.generator, item.cell.teacher_version) for item in found.cells] == [
        (PHOTOGRAPHS, "new acoti-00000000"),
        ("sim-nearest", "old acoti-00000000"),
        ("sim-nearest", "old second"),
    ]


def test_the_ruling_is_nobodys_decision() -> None:
    ruling = replace(FIRST, is_adjudication=True)
    found = teacher_quality([reviewed(DRAFT, SECOND, ruling=ruling)])
    assert (found.overall.edited, found.overall.added) == (0, 0)


def test_without_answers_there_is_no_share() -> None:
    found = teacher_quality([])
    assert (found.drafts, found.overall.accepted_share, found.overall.added_share) == (
        0,
        None,
        None,
    )
    assert found.cells == ()


def test_the_pace_of_an_expert_is_over_the_times_that_are_known() -> None:
    drafts = [make_draft(make_image(str(n)), draft_id=str(n)) for n in range(4)]
    said = [make_correction(d, "expert-1", correction_id=d.draft_id) for d in drafts]
    seconds = {"0": 10.0, "1": 20.0, "2": 90.0}
    found = paces([reviewed(d, c, seconds=seconds) for d, c in zip(drafts, said, strict=True)])
    pace = found["expert-1"]
    assert (pace.images, pace.timed, pace.median_s, pace.mean_s) == (4, 3, 20, 40)
