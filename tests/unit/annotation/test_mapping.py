"""Drafts as predictions and annotations as corrections: nothing is lost or changed on the way."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.brush import encode
from annotation.interface import review_form
from annotation.mapping import Annotation, annotation_of, correction_of, prediction_of, traces_of
from annotation.regions import drawn
from core.errors import DataError
from core.recipe import load_recipe
from core.records import (
    Authenticity,
    Confidence,
    Correction,
    Draft,
    Mask,
    Region,
    TraceFinding,
    TraceOutcome,
)
from tests.masks import masks
from tests.unit.records import make_draft, make_finding, make_image, make_reasoning

IMAGE = make_image(width=640, height=480)
OTHER = Mask(width=64, height=48, counts=(5, 3067))
TAXONOMY = load_recipe().taxonomy
FORM = review_form(TAXONOMY)
ACCEPTED, EDITED = TraceOutcome.ACCEPTED, TraceOutcome.EDITED
REJECTED, ADDED = TraceOutcome.REJECTED, TraceOutcome.ADDED

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
fractions = st.floats(0, 1)
corners = st.tuples(fractions, fractions)
polygons = st.builds(lambda points: Region(points=tuple(points)), st.lists(corners, min_size=3))
boxes = st.builds(
    lambda left, top, right, bottom: Region(
        points=((left, top), (right, top), (right, bottom), (left, bottom))
    ),
    st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0.5, 1), st.floats(0.5, 1),
)  # fmt: skip
findings = st.builds(
    TraceFinding,
    category=st.sampled_from(TAXONOMY.ids),
    evidence=texts,
    points_to=st.sampled_from(Authenticity),
    region=st.none() | polygons | boxes | masks(width=640, height=480),
)
reasonings = st.builds(
    make_reasoning,
    conclusion=st.text(st.characters(exclude_categories=["Cs"])),
    confidence=st.sampled_from(Confidence),
    verdict=st.sampled_from(Authenticity),
)


def draft_of(*found: TraceFinding, **changes: Any) -> Draft:
    return make_draft(IMAGE, reasoning=make_reasoning(*found, **changes))


def annotate(draft: Draft, *, hides: bool = True, **changes: Any) -> Annotation:
    """The prediction as an expert submits it; values of controls replaced, None: taken away."""
    results = []
    for result in prediction_of(draft, IMAGE):
        name = result["from_name"]
        if name in changes:
            continue
        if hides and name.startswith("text_"):  # the form hides it unless `edit` is chosen
            continue
        results.append({**result, "origin": "prediction"})
    for name, value in changes.items():
        if value is not None:
            kind = next(iter(value))
            results.append(
                {"id": f"new-{name}", "from_name": name, "to_name": "image",
                 "type": {"choices": "choices", "text": "textarea"}[kind], "value": value}
            )  # fmt: skip
    return annotation(results)


def annotation(results: list[dict[str, Any]], **changes: Any) -> Annotation:
    raw = {
        "id": 1, "completed_by": 2, "updated_by": 2, "was_cancelled": False, "lead_time": 1.5,
        "updated_at": "2026-03-01T12:00:00.000000Z", "result": results,
    }  # fmt: skip
    return annotation_of(json.loads(json.dumps({**raw, **changes})))


def correct(given_annotation: Annotation, draft: Draft) -> Correction:
    return correction_of(
        given_annotation, draft, IMAGE, TAXONOMY, expert="expert-1", version=1, key="version-1"
    )


def chosen(choice: str) -> dict[str, list[str]]:
    return {"choices": [choice]}


def written(text: str) -> dict[str, list[str]]:
    return {"text": [text]}


# Laws


@given(st.lists(findings, max_size=6), reasonings, st.booleans())
def test_who_agrees_with_every_word_says_exactly_the_draft(
    found: list[TraceFinding], plain: Any, hides: bool
) -> None:
    draft = make_draft(IMAGE, reasoning=replace(plain, findings=tuple(found)))
    said = correct(annotate(draft, hides=hides), draft)
    assert said.reasoning == draft.reasoning
    assert said.outcomes == (ACCEPTED,) * len(found)


@given(st.lists(findings, max_size=6), reasonings)
def test_every_prediction_fits_the_form(found: list[TraceFinding], plain: Any) -> None:
    draft = make_draft(IMAGE, reasoning=replace(plain, findings=tuple(found)))
    FORM.check(prediction_of(draft, IMAGE), len(found))
    assert [trace["text"] for trace in traces_of(draft, TAXONOMY)] == [f.evidence for f in found]


judgements = st.tuples(findings, st.sampled_from([ACCEPTED, EDITED, REJECTED]), texts)


@given(st.lists(judgements, max_size=6))
def test_each_trace_gets_the_outcome_that_was_chosen(
    judged: list[tuple[TraceFinding, TraceOutcome, str]],
) -> None:
    draft = draft_of(*(finding for finding, _, _ in judged))
    changes: dict[str, Any] = {"no_trace": None}
    kept, outcomes = [], []
    for number, (finding, outcome, text) in enumerate(judged):
        words = {ACCEPTED: "accept", EDITED: "edit", REJECTED: "reject"}
        new = f"{finding.evidence} {text}."
        changes[f"verdict_{number}"] = chosen(words[outcome])
        if outcome is EDITED:
            changes[f"text_{number}"] = written(new)
        if outcome is not REJECTED:
            kept.append(replace(finding, evidence=new) if outcome is EDITED else finding)
        outcomes.append(outcome)
    said = correct(annotate(draft, **changes), draft)
    assert said.reasoning.findings == tuple(kept)
    assert said.outcomes == tuple(outcomes)


@given(polygons | boxes)
def test_a_region_drawn_by_hand_is_kept_to_the_last_digit_but_one(region: Region) -> None:
    draft = draft_of(replace(make_finding(), region=region))
    results = [{**r, "origin": "manual", "id": "by hand"} for r in prediction_of(draft, IMAGE)]
    for result in results:  # no longer what was predicted
        if "points" in result["value"]:
            result["value"]["closed"] = 1
        elif "rotation" in result["value"]:
            result["value"]["rotation"] = 0.0
    (finding,) = correct(annotation(results), draft).reasoning.findings
    assert isinstance(finding.region, Region)
    for there, meant in zip(finding.region.points, region.points, strict=True):
        assert there == pytest.approx(meant, abs=1e-12)


@given(
    st.floats(25, 60), st.floats(25, 60), st.floats(1, 15), st.floats(1, 15), st.floats(-180, 180)
)
def test_a_turned_box_turns_in_pixels(
    x: float, y: float, width: float, height: float, turn: float
) -> None:
    region = box_region(x=x, y=y, width=width, height=height, rotation=turn)
    pixels = [(px * 640, py * 480) for px, py in region.points]
    assert math.dist(pixels[0], pixels[1]) == pytest.approx(width * 6.4)
    assert math.dist(pixels[1], pixels[2]) == pytest.approx(height * 4.8)
    assert math.dist(pixels[0], pixels[2]) == pytest.approx(math.hypot(width * 6.4, height * 4.8))
    assert pixels[0] == pytest.approx((x * 6.4, y * 4.8))


def test_a_box_turned_by_a_quarter_stands_left_of_its_corner() -> None:
    region = box_region(x=50, y=50, width=10, height=10, rotation=90)
    assert region.bounding_box() == pytest.approx((0.5 - 48 / 640, 0.5, 0.5, 0.5 + 64 / 480))


def box_region(**place: float) -> Region:
    draft = draft_of(make_finding())
    box = {
        "id": "drawn", "from_name": "box_0", "to_name": "image", "type": "rectanglelabels",
        "original_width": 640, "original_height": 480, "image_rotation": 0,
        "value": {**place, "rectanglelabels": ["box"]},
    }  # fmt: skip
    results = [*prediction_of(draft, IMAGE), box]
    (finding,) = correct(annotation(results), draft).reasoning.findings
    assert isinstance(finding.region, Region)
    return finding.region


# Single answers


def test_an_added_trace_speaks_for_the_verdict() -> None:
    draft = draft_of()
    said = correct(
        annotate(
            draft,
            no_trace=None,
            added_category_2=chosen("anatomy"),
            added_text_2=written("The hand has six fingers."),
        ),
        draft,
    )
    assert said.outcomes == (ADDED,)
    assert said.reasoning.findings == (
        make_finding("anatomy", evidence="The hand has six fingers."),
    )


def test_editing_without_changing_a_word_is_accepting() -> None:
    draft = draft_of(make_finding())
    said = correct(annotate(draft, hides=False, verdict_0=chosen("edit")), draft)
    assert said.outcomes == (ACCEPTED,)


def test_an_emptied_conclusion_is_empty() -> None:
    draft = draft_of(make_finding())
    assert correct(annotate(draft, conclusion=None), draft).reasoning.conclusion == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdict_0": None}, "trace 1 is neither"),
        ({"verdict_0": chosen("maybe")}, "trace 1 is neither"),
        ({"verdict_0": {"choices": ["accept", "reject"]}}, "more than one answer"),
        ({"verdict_0": chosen("edit"), "text_0": None}, "trace 1 was edited and has no text"),
        ({"verdict_0": chosen("edit"), "text_0": written("  ")}, "reject it instead"),
        ({"no_trace": chosen("no visible trace")}, "beside traces that are kept"),
        ({"confidence": None}, "confidence"),
        ({"added_text_1": written("Six fingers.")}, "added trace 1 needs a category"),
        ({"added_category_3": chosen("anatomy")}, "added trace 3 needs"),
        (
            {"added_category_1": chosen("no such"), "added_text_1": written("Odd.")},
            "a category of the form",
        ),
    ],
)
def test_answers_that_contradict_one_another_are_refused_with_the_place(
    changes: dict[str, Any], reason: str
) -> None:
    draft = draft_of(make_finding())
    with pytest.raises(DataError, match=reason):
        correct(annotate(draft, **changes), draft)


@pytest.mark.parametrize(
    "damage",
    [
        {"original_width": 480, "original_height": 640},
        {"original_width": None},
        {"type": "brushlabels", "value": {"format": "rle", "rle": [1, 2, 3]}},
        {"type": "brushlabels", "value": {"format": "rle", "rle": ["a"]}},
        {"type": "brushlabels", "value": {"format": "rle", "rle": encode(OTHER)}},
        {"value": {"x": 1, "y": 1, "width": "wide", "height": 1}},
        {"value": {"x": float("nan"), "y": 1, "width": 1, "height": 1}},
        {"value": {}},
        {"original_height": 0},
        {"type": "polygonlabels", "value": {"points": [[1, 1], [2, 2]]}},
    ],
)
def test_a_region_that_cannot_be_read_is_refused(damage: dict[str, Any]) -> None:
    draft = draft_of(make_finding())
    box = {
        "id": "drawn", "from_name": "box_0", "to_name": "image", "type": "rectanglelabels",
        "original_width": 640, "original_height": 480,
        "value": {"x": 1, "y": 1, "width": 1, "height": 1, "rotation": 5},
    }  # fmt: skip
    results = [*prediction_of(draft, IMAGE), {**box, **damage}]
    with pytest.raises(DataError, match="trace 1 has a region that cannot be read"):
        correct(annotation(results), draft)


@given(st.sampled_from([0, 90, 180, 270]), st.sampled_from([1, 2, 0.5]), polygons | boxes)
def test_how_the_screen_showed_a_picture_moves_no_region(
    turn: int, scale: float, region: Region
) -> None:
    draft = draft_of(make_finding())
    shape, parts = drawn(region, IMAGE)
    shown = {
        "image_rotation": turn, "original_width": 640 * scale, "original_height": 480 * scale,
    }  # fmt: skip
    result = {"id": "drawn", "from_name": f"{shape}_0", "to_name": "image", **parts, **shown}
    (finding,) = correct(
        annotation([*prediction_of(draft, IMAGE), result]), draft
    ).reasoning.findings
    assert isinstance(finding.region, Region)
    for here, meant in zip(finding.region.points, region.points, strict=True):
        assert here == pytest.approx(meant, abs=1e-12)


def brush_stroke(mask: Mask, number: int = 0) -> dict[str, Any]:
    _, parts = drawn(mask, IMAGE)
    return {"id": f"stroke-{number}", "from_name": "brush_0", "to_name": "image", **parts}


def test_brush_strokes_of_one_trace_are_one_mask() -> None:
    draft = draft_of(make_finding())
    first = Mask(width=640, height=480, counts=(0, 10, 307190))
    second = Mask(width=640, height=480, counts=(5, 10, 307185))
    strokes = [brush_stroke(first, 1), brush_stroke(second, 2)]
    (finding,) = correct(
        annotation([*prediction_of(draft, IMAGE), *strokes]), draft
    ).reasoning.findings
    assert finding.region == Mask(width=640, height=480, counts=(0, 15, 307185))


def test_a_brush_that_was_rubbed_out_is_no_region() -> None:
    draft = draft_of(make_finding())
    stroke = brush_stroke(Mask(width=640, height=480, counts=(0, 1, 307199)))
    stroke["value"]["rle"] = encode(Mask(width=640, height=480, counts=(307200,)))
    (finding,) = correct(
        annotation([*prediction_of(draft, IMAGE), stroke]), draft
    ).reasoning.findings
    assert finding.region is None


def test_a_box_beside_a_brush_is_refused() -> None:
    region = Region(points=((0.1, 0.1), (0.2, 0.1), (0.2, 0.2), (0.1, 0.2)))
    draft = draft_of(replace(make_finding(), region=region))
    stroke = brush_stroke(Mask(width=640, height=480, counts=(0, 1, 307199)))
    with pytest.raises(DataError, match="one box, one polygon or brush strokes alone"):
        correct(annotation([*prediction_of(draft, IMAGE), stroke]), draft)


def test_two_regions_of_one_trace_are_refused() -> None:
    region = Region(points=((0.1, 0.1), (0.2, 0.1), (0.2, 0.2), (0.1, 0.2)))
    draft = draft_of(replace(make_finding(), region=region))
    results = prediction_of(draft, IMAGE)
    (box,) = (result for result in results if result["from_name"] == "box_0")
    with pytest.raises(DataError, match="trace 1 has 2 regions"):
        correct(annotation([*results, {**box, "id": "second"}]), draft)


@pytest.mark.parametrize("raw", [{}, {"id": "x"}, {"id": 1, "completed_by": "who"}])
def test_what_is_no_annotation_is_refused(raw: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="no annotation"):
        annotation_of(raw)


def test_the_digest_is_of_what_was_said_not_of_when() -> None:
    draft = draft_of(make_finding())
    results = prediction_of(draft, IMAGE)
    now, later = annotation(results), annotation(results, updated_at="2026-03-02T12:00:00Z")
    assert now.digest() == later.digest()
    assert now.digest() != annotation(results, updated_by=3).digest()
    assert annotation(results, updated_by=3).is_overwritten
    assert not now.is_overwritten
