"""From a stored reply to a draft, or to the reason why it cannot be used. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from core.errors import DataError
from core.ids import content_id
from core.records import (
    Authenticity,
    Claim,
    Confidence,
    Draft,
    Reasoning,
    Region,
    TeacherReply,
    TraceFinding,
)
from core.sentences import as_sentences
from core.taxonomy import Taxonomy
from generation.prompt import Rendered

CONTROL_CHARACTERS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)
LONGEST_TEXT = 4000

Model = TypeVar("Model", bound=BaseModel)
Text = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=3, max_length=LONGEST_TEXT)
]
Fraction = Annotated[float, Field(ge=0, le=1)]


class WrongVerdict(DataError):
    """The teacher does not hold on to the label that it was told."""


class _Finding(BaseModel):
    model_config = ConfigDict(extra="ignore")

    category: str
    evidence: Text
    points_to: Authenticity
    region: list[tuple[Fraction, Fraction]] | None = Field(None, max_length=200)
    glaring: bool = False


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    findings: list[_Finding] = Field(max_length=40)
    conclusion: Text
    verdict: Authenticity
    confidence: Confidence


def parse_draft(
    reply: TeacherReply, *, taxonomy: Taxonomy, label: Authenticity | None
) -> Reasoning:
    """Read a reply about an image; raises DataError with the reason.

    `label` is what the teacher was told, and must hold on to; None where it was told nothing.
    """
    check_whole(reply)
    parsed = read_json(reply.content or "", _Reply)
    unknown = sorted({finding.category for finding in parsed.findings}.difference(taxonomy.ids))
    if unknown:
        raise DataError(f"unknown trace category: {shorten(', '.join(unknown))}")
    if label is not None and parsed.verdict is not label:
        raise WrongVerdict(f"the verdict is {parsed.verdict}, but the image is known to be {label}")
    return Reasoning(
        verdict=parsed.verdict,
        findings=tuple(_finding(item) for item in parsed.findings),
        conclusion=clean(parsed.conclusion),
        confidence=parsed.confidence,
    )


def check_whole(reply: TeacherReply) -> None:
    """DataError for a refusal, and for what was cut off or withheld."""
    if reply.refusal:
        raise DataError(f"the teacher refused: {shorten(reply.refusal)}")
    if reply.finish_reason == "length":
        raise DataError("the reply was cut off at the token limit")
    if reply.finish_reason == "content_filter":
        raise DataError("the reply was withheld by a content filter")


def glaring_in(reply: TeacherReply) -> tuple[str, ...]:
    """The categories of the findings that a usable reply calls glaring, each once."""
    findings = read_json(reply.content or "", _Reply).findings
    return tuple(dict.fromkeys(item.category for item in findings if item.glaring))


def draft_of(
    reasoning: Reasoning,
    reply: TeacherReply,
    rendered: Rendered,
    *,
    work: Claim,
    merged: Sequence[Draft] = (),
) -> Draft:
    """The draft that a reply holds, with what its teacher was shown or which drafts it merges."""
    merged_ids = tuple(draft.draft_id for draft in merged)
    return Draft(
        draft_id=_draft_id(work, reasoning, reply, merged_ids),
        image_id=work.image_id,
        attempt_id=reply.attempt_id,
        campaign_id=work.campaign_id,
        arm=work.arm,
        teacher=reply.model,
        prompt_version=rendered.prompt_version,
        demonstrations=len(rendered.chosen.exemplars),
        exemplar_ids=tuple(exemplar.exemplar_id for exemplar in rendered.chosen.exemplars),
        uncovered=rendered.chosen.uncovered,
        seen=rendered.seen,
        bytes_sent=rendered.bytes_sent,
        request_text_id=rendered.text.text_id,
        merged=merged_ids,
        merged_teachers=tuple(dict.fromkeys(draft.teacher for draft in merged)),
        reasoning=reasoning,
    )


def reread(draft: Draft, reasoning: Reasoning, reply: TeacherReply) -> Draft:
    """The draft as `reasoning`, a later reading of its reply, has it."""
    draft_id = _draft_id(draft, reasoning, reply, draft.merged)
    return replace(draft, draft_id=draft_id, reasoning=reasoning)


def _draft_id(
    place: Claim | Draft, reasoning: Reasoning, reply: TeacherReply, merged: Sequence[str]
) -> str:
    whose = (place.campaign_id, place.arm, place.image_id)
    return content_id("draft", *whose, reply.request_hash, reasoning, *merged)


def read_json(content: str, model: type[Model]) -> Model:
    """What a reply holds; DataError where that has another form."""
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the reply"
        raise DataError(f"the reply does not fit the schema: {place}: {first['msg']}") from None


def _finding(item: _Finding) -> TraceFinding:
    corners = item.region if item.region and len(item.region) >= 3 else None
    evidence = clean(item.evidence)
    if not evidence:
        raise DataError(f"the finding on {shorten(item.category)} has no word of evidence")
    return TraceFinding(
        category=item.category,
        evidence=evidence,
        points_to=item.points_to,
        region=Region(points=tuple(corners)) if corners else None,
    )


def clean(text: str) -> str:
    """Full sentences without control characters; otherwise the text as the teacher wrote it."""
    return as_sentences(CONTROL_CHARACTERS.sub("", text))


def shorten(text: str) -> str:
    """One printable line of a text that nobody has checked."""
    line = CONTROL_CHARACTERS.sub("", " ".join(text.split()))
    return line if len(line) <= 200 else line[:197] + "..."
