"""Between our records and Label Studio's JSON, exactly and both ways; nothing is read or sent.

What the form hides is absent from an annotation: the words of an accepted trace are the draft's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from annotation.answers import Answers, Result
from annotation.interface import (
    ACCEPT,
    ADDED,
    BRUSH,
    CONCLUSION,
    CONFIDENCE,
    EDIT,
    IMAGE,
    NO_TRACE,
    NO_TRACE_CHOICE,
    REGIONS,
    REJECT,
    added_name,
    trace_name,
)
from annotation.regions import drawn, region_of
from core.errors import DataError
from core.ids import canonical_json, content_id
from core.records import (
    Authenticity,
    Confidence,
    Correction,
    Draft,
    ImageRecord,
    Mask,
    Reasoning,
    Region,
    TraceFinding,
    TraceOutcome,
)
from core.taxonomy import Taxonomy

SPEAKS_FOR: Final = {
    Authenticity.FAKE: "speaks for a generated picture",
    Authenticity.REAL: "speaks for a photograph",
}


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


def traces_of(draft: Draft, taxonomy: Taxonomy) -> list[dict[str, str]]:
    """Heading and words of each trace, as the form shows them."""
    findings = enumerate(draft.reasoning.findings, start=1)
    return [
        {"heading": _heading(number, finding, taxonomy), "text": finding.evidence}
        for number, finding in findings
    ]


def prediction_of(draft: Draft, image: ImageRecord) -> list[Result]:
    """The draft as an expert's answers would look who agrees with every word of it."""
    reasoning = draft.reasoning
    results: list[Result] = []
    for number, finding in enumerate(reasoning.findings):
        results.append(_choice(trace_name("verdict", number), ACCEPT))
        results.append(_text(trace_name("text", number), finding.evidence))
        if finding.region is not None:
            shape, parts = drawn(finding.region, image)
            results.append(_result(trace_name(shape, number), **parts))
    if not reasoning.findings:
        results.append(_choice(NO_TRACE, NO_TRACE_CHOICE))
    if reasoning.conclusion:
        results.append(_text(CONCLUSION, reasoning.conclusion))
    return [*results, _choice(CONFIDENCE, reasoning.confidence)]


def _heading(number: int, finding: TraceFinding, taxonomy: Taxonomy) -> str:
    category = finding.category
    name = taxonomy[category].name if category in taxonomy else category
    return f"{number}. {name}: {SPEAKS_FOR[finding.points_to]}"


def _result(name: str, **parts: Any) -> Result:
    return {"id": name, "from_name": name, "to_name": IMAGE, **parts}


def _choice(name: str, chosen: str) -> Result:
    return _result(name, type="choices", value={"choices": [str(chosen)]})


def _text(name: str, text: str) -> Result:
    return _result(name, type="textarea", value={"text": [text]})


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


class _Answers(Answers):
    """The answers to a review, trace by trace."""

    def __init__(self, annotation: Annotation, draft: Draft, image: ImageRecord) -> None:
        super().__init__(annotation.results)
        self._draft = draft
        self._image = image
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
        controls = [trace_name(shape, number) for shape in REGIONS]
        region = self._region(controls, where, drafted)
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
            region = self._region([added_name(shape, number) for shape in REGIONS], where)
            if category is None and not text.strip() and region is None:
                continue
            if category not in taxonomy or not text.strip():
                raise DataError(f"{where} needs a category of the form and a text")
            assert category is not None
            yield TraceFinding(category=category, evidence=text, points_to=verdict, region=region)

    def _region(
        self, controls: Sequence[str], where: str, drafted: TraceFinding | None = None
    ) -> Region | Mask | None:
        results = [result for control in controls for result in self.results(control)]
        if not results:
            return None
        if len(results) > 1 and any(REGIONS[BRUSH].lower() != r.get("type") for r in results):
            raise DataError(
                f"{where} has {len(results)} regions: one box, one polygon or brush strokes alone "
                "can be kept"
            )
        if drafted is not None and len(results) == 1 and self._is_untouched(results[0]):
            return drafted.region
        try:
            return region_of(results, self._image)
        except (KeyError, TypeError, ValueError):
            raise DataError(f"{where} has a region that cannot be read") from None

    def _is_untouched(self, result: Result) -> bool:
        predicted = self._predicted.get(str(result.get("id")))
        if predicted is None or predicted["from_name"] != result["from_name"]:
            return False
        return result.get("origin") == "prediction" or result["value"] == predicted["value"]
