"""Between our records and Label Studio's JSON, exactly and both ways; nothing is read or sent.

What the form hides is absent from an annotation: the words of an accepted trace are the draft's.
Regions are percentages of the upright picture there, fractions of it here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from annotation.interface import (
    ACCEPT,
    ADDED,
    BOX,
    CONCLUSION,
    CONFIDENCE,
    EDIT,
    IMAGE,
    NO_TRACE,
    NO_TRACE_CHOICE,
    POLYGON,
    REJECT,
    added_name,
    trace_name,
)
from core.errors import DataError
from core.ids import canonical_json, content_id
from core.records import (
    Authenticity,
    Confidence,
    Correction,
    Draft,
    ImageRecord,
    Reasoning,
    Region,
    TraceFinding,
    TraceOutcome,
)
from core.taxonomy import Taxonomy

MODEL_VERSION: Final = "draft"
"""of every prediction: a project shows predictions of one version only"""
SPEAKS_FOR: Final = {
    Authenticity.FAKE: "speaks for a generated picture",
    Authenticity.REAL: "speaks for a photograph",
}

Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One expert's answers to one task as the server has them now."""

    annotation_id: int
    completed_by: int | None
    updated_by: int | None
    was_cancelled: bool
    """the expert pressed skip"""
    lead_time_s: float | None
    updated_at: str
    results: tuple[Result, ...]

    @property
    def is_overwritten(self) -> bool:
        """Somebody else than its author saved it last."""
        return self.updated_by not in (None, self.completed_by)

    def digest(self) -> str:
        """Equal for versions that say the same, whenever they were saved."""
        said = [self.completed_by, self.updated_by, self.was_cancelled, list(self.results)]
        return content_id("said", canonical_json(said))


def annotation_of(raw: Mapping[str, Any]) -> Annotation:
    """Read what the server says of an annotation; DataError when it is none."""
    try:
        return Annotation(
            annotation_id=int(raw["id"]),
            completed_by=_user_id(raw["completed_by"]),
            updated_by=_user_id(raw.get("updated_by")),
            was_cancelled=bool(raw["was_cancelled"]),
            lead_time_s=raw.get("lead_time"),
            updated_at=str(raw["updated_at"]),
            results=tuple(raw["result"] or ()),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"no annotation of a version that we know ({error!r})") from None


def _user_id(user: Any) -> int | None:
    named = user["id"] if isinstance(user, Mapping) else user
    return None if named is None else int(named)


# From a draft to a task


def task_of(
    draft: Draft, image: ImageRecord, taxonomy: Taxonomy, *, picture: str, task_key: str
) -> dict[str, Any]:
    """A task with its prediction, as the server imports it.

    `picture` is the address of the image; nothing else in the task tells where it comes from.
    """
    findings = draft.reasoning.findings
    traces = [
        {"heading": _heading(number, finding, taxonomy), "text": finding.evidence}
        for number, finding in enumerate(findings, start=1)
    ]
    prediction = {"model_version": MODEL_VERSION, "result": prediction_of(draft, image)}
    data = {"image": picture, "key": task_key, "traces": traces}
    return {"data": data, "predictions": [prediction]}


def prediction_of(draft: Draft, image: ImageRecord) -> list[Result]:
    """The draft as an expert's answers would look who agrees with every word of it."""
    reasoning = draft.reasoning
    results: list[Result] = []
    for number, finding in enumerate(reasoning.findings):
        results.append(_choice(trace_name("verdict", number), ACCEPT))
        results.append(_text(trace_name("text", number), finding.evidence))
        if finding.region is not None:
            results.append(_region_result(number, finding.region, image))
    if not reasoning.findings:
        results.append(_choice(NO_TRACE, NO_TRACE_CHOICE))
    if reasoning.conclusion:
        results.append(_text(CONCLUSION, reasoning.conclusion))
    return [*results, _choice(CONFIDENCE, reasoning.confidence)]


def _heading(number: int, finding: TraceFinding, taxonomy: Taxonomy) -> str:
    category = finding.category
    name = taxonomy[category].name if category in taxonomy else category
    return f"{number}. {name}: {SPEAKS_FOR[finding.points_to]}"


def _result(name: str, kind: str, value: dict[str, Any]) -> Result:
    return {"id": name, "from_name": name, "to_name": IMAGE, "type": kind, "value": value}


def _choice(name: str, chosen: str) -> Result:
    return _result(name, "choices", {"choices": [str(chosen)]})


def _text(name: str, text: str) -> Result:
    return _result(name, "textarea", {"text": [text]})


def _region_result(number: int, region: Region, image: ImageRecord) -> Result:
    left, top, right, bottom = region.bounding_box()
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    if region.points == corners:
        sides = {"x": left, "y": top, "width": right - left, "height": bottom - top}
        place: dict[str, Any] = {name: 100 * side for name, side in sides.items()}
        value = {**place, "rotation": 0, "rectanglelabels": [BOX]}
        result = _result(trace_name(BOX, number), "rectanglelabels", value)
    else:
        points = [[100 * x, 100 * y] for x, y in region.points]
        value = {"points": points, "closed": True, "polygonlabels": [POLYGON]}
        result = _result(trace_name(POLYGON, number), "polygonlabels", value)
    size = {"original_width": image.width, "original_height": image.height, "image_rotation": 0}
    return {**result, **size}


# From an annotation to a correction


def correction_of(
    annotation: Annotation,
    draft: Draft,
    image: ImageRecord,
    taxonomy: Taxonomy,
    *,
    expert: str,
    version: int,
    key: str,
) -> Correction:
    """What an expert says of a draft; DataError, naming the block, for contradictory answers.

    The verdict stays the draft's: the form asks for traces. An outcome speaks of the words, so an
    accepted trace may have a region that the draft lacks. `key` names this version of this
    annotation among those of all servers.
    """
    answers = _Answers(annotation, draft, image)
    found = answers.findings()
    added = [*answers.added_findings(taxonomy, draft.reasoning.verdict)]
    kept = (*(finding for finding, _ in found if finding is not None), *added)
    if kept and answers.choice(NO_TRACE) is not None:
        raise DataError(f"{NO_TRACE_CHOICE!r} is ticked beside traces that are kept")
    confidence = answers.choice(CONFIDENCE)
    if confidence is None:
        raise DataError("nothing is said about the confidence")
    return Correction(
        correction_id=content_id("correction", key, annotation.digest()),
        image_id=draft.image_id,
        draft_id=draft.draft_id,
        expert=expert,
        version=version,
        reasoning=Reasoning(
            verdict=draft.reasoning.verdict,
            findings=kept,
            conclusion=answers.text(CONCLUSION),
            confidence=Confidence(confidence),
        ),
        outcomes=(*(outcome for _, outcome in found), *(TraceOutcome.ADDED for _ in added)),
    )


class _Answers:
    """The results of an annotation by control."""

    def __init__(self, annotation: Annotation, draft: Draft, image: ImageRecord) -> None:
        self._draft = draft
        self._by_name: dict[str, list[Result]] = {}
        for result in annotation.results:
            if isinstance(result, Mapping) and "from_name" in result:  # relations have none
                self._by_name.setdefault(str(result["from_name"]), []).append(dict(result))
        self._predicted = {result["id"]: result for result in prediction_of(draft, image)}

    def findings(self) -> list[tuple[TraceFinding | None, TraceOutcome]]:
        """What is left of each trace of the draft, None of a rejected one, and its outcome."""
        findings = self._draft.reasoning.findings
        return [self._finding(number, finding) for number, finding in enumerate(findings)]

    def _finding(
        self, number: int, drafted: TraceFinding
    ) -> tuple[TraceFinding | None, TraceOutcome]:
        where = f"trace {number + 1}"
        verdict = self.choice(trace_name("verdict", number))
        if verdict == REJECT:
            return None, TraceOutcome.REJECTED
        region = self._region(trace_name(BOX, number), trace_name(POLYGON, number), where, drafted)
        kept = replace(drafted, region=region)
        if verdict == ACCEPT:
            return kept, TraceOutcome.ACCEPTED
        if verdict != EDIT:
            raise DataError(f"{where} is neither accepted, edited nor rejected")
        text = self.text(trace_name("text", number))
        if not text.strip():
            raise DataError(f"{where} was edited and has no text left: reject it instead")
        if text == drafted.evidence:
            return kept, TraceOutcome.ACCEPTED
        return replace(kept, evidence=text), TraceOutcome.EDITED

    def added_findings(self, taxonomy: Taxonomy, verdict: Authenticity) -> Iterator[TraceFinding]:
        """The traces that the expert added; they speak for the verdict."""
        for number in range(1, ADDED + 1):
            where = f"added trace {number}"
            category = self.choice(added_name("category", number))
            text = self.text(added_name("text", number))
            region = self._region(added_name(BOX, number), added_name(POLYGON, number), where)
            if category is None and not text.strip() and region is None:
                continue
            if category not in taxonomy or not text.strip():
                raise DataError(f"{where} needs a category of the form and a text")
            assert category is not None
            yield TraceFinding(category=category, evidence=text, points_to=verdict, region=region)

    def choice(self, name: str) -> str | None:
        """The one choice made in a control; None when nothing was chosen."""
        chosen = [item for result in self._results(name) for item in _value(result, "choices")]
        if len(chosen) > 1:
            raise DataError(f"control {name} holds more than one answer")
        return str(chosen[0]) if chosen else None

    def text(self, name: str) -> str:
        """What stands in a text box, exactly; several entries become lines."""
        lines = [str(line) for result in self._results(name) for line in _value(result, "text")]
        return "\n".join(lines)

    def _results(self, name: str) -> list[Result]:
        return self._by_name.get(name, [])

    def _region(
        self, box: str, polygon: str, where: str, drafted: TraceFinding | None = None
    ) -> Region | None:
        drawn = [*self._results(box), *self._results(polygon)]
        if len(drawn) > 1:
            raise DataError(f"{where} has {len(drawn)} regions: one box or one polygon can be kept")
        if not drawn:
            return None
        (result,) = drawn
        if drafted is not None and self._is_untouched(result):
            return drafted.region
        try:
            return _region_of(result)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):
            raise DataError(f"{where} has a region that cannot be read") from None

    def _is_untouched(self, result: Result) -> bool:
        predicted = self._predicted.get(str(result.get("id")))
        if predicted is None or predicted["from_name"] != result["from_name"]:
            return False
        return result.get("origin") == "prediction" or result["value"] == predicted["value"]


def _value(result: Result, kind: str) -> Sequence[Any]:
    value = result.get("value", {}).get(kind, [])
    return [value] if isinstance(value, str) else value


def _region_of(result: Result) -> Region:
    if result.get("image_rotation"):
        raise ValueError("drawn on a turned picture")
    value = result["value"]
    if result["type"] == "polygonlabels":
        corners = [(float(x), float(y)) for x, y in value["points"]]
        if len(corners) < 3:
            raise ValueError("a polygon needs three corners")
    else:
        size = (float(result["original_width"]), float(result["original_height"]))
        corners = _rectangle_corners(value, size)
    return Region(points=tuple((_fraction(x), _fraction(y)) for x, y in corners))


def _rectangle_corners(
    value: Mapping[str, Any], size: tuple[float, float]
) -> list[tuple[float, float]]:
    """The corners in percent. A turned rectangle turns in pixels, around its first corner."""
    left, top = float(value["x"]), float(value["y"])
    width, height = float(value["width"]), float(value["height"])
    turn = math.radians(float(value.get("rotation", 0)))
    if not turn:
        right, bottom = left + width, top + height
        return [(left, top), (right, top), (right, bottom), (left, bottom)]
    aspect = size[0] / size[1]
    right_x, right_y = width * math.cos(turn), width * aspect * math.sin(turn)
    down_x, down_y = -height / aspect * math.sin(turn), height * math.cos(turn)
    return [
        (left, top),
        (left + right_x, top + right_y),
        (left + right_x + down_x, top + right_y + down_y),
        (left + down_x, top + down_y),
    ]


def _fraction(percent: float) -> float:
    if not math.isfinite(percent):
        raise ValueError(f"{percent} is no place on a picture")
    return min(max(percent / 100, 0.0), 1.0)
