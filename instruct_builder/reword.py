"""From a chain to the request for rewordings, and from the reply to those that may stand. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.records import ImageRecord, ReasoningChain, TeacherReply, TeacherRequest
from core.rewriting import Rewriting
from core.sentences import as_sentences
from instruct_builder.checks import NameFinder
from instruct_builder.facts import Locks

REPLY_SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "rewordings": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "number": {"type": "integer"},
                        "variants": {"type": "array", "items": {"type": "string"}},
                    },
                    "required": ["number", "variants"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["rewordings"],
        "additionalProperties": False,
    },
    separators=(",", ":"),
)
LONGEST_TEXT = 4_000
"""characters of one rewording"""


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore")

    number: int
    variants: list[str] = Field(max_length=20)


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    rewordings: list[_Entry] = Field(max_length=200)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainTexts:
    """What a chain says, each text once: the evidence of its findings, and its conclusion."""

    chain_id: str
    image: ImageRecord
    texts: tuple[str, ...]
    request: TeacherRequest


@dataclass(frozen=True, slots=True)
class Proposal:
    """One rewording in a reply, and why it may not stand, if it may not."""

    original: str
    text: str
    objection: str | None


def texts_of(chain: ReasoningChain, image: ImageRecord, rewriting: Rewriting) -> ChainTexts:
    """The texts of a chain and the request for their rewordings; no picture is shown."""
    said = (*(f.evidence for f in chain.reasoning.supporting()), chain.reasoning.conclusion)
    texts = tuple(dict.fromkeys(text for text in said if text))
    numbered = [{"number": n, "text": text} for n, text in enumerate(texts, start=1)]
    task = json.dumps({"variants": rewriting.variants, "texts": numbered}, ensure_ascii=False)
    request = TeacherRequest(
        model=rewriting.model,
        instructions=rewriting.instructions,
        question=f"Known authenticity: {chain.reasoning.verdict}\n\n{task}",
        pictures=(),
        reply_schema=REPLY_SCHEMA,
        temperature=rewriting.temperature,
        max_output_tokens=rewriting.max_output_tokens,
    )
    return ChainTexts(chain_id=chain.chain_id, image=image, texts=texts, request=request)


def read_proposals(
    reply: TeacherReply, chain: ChainTexts, locks: Locks, names: NameFinder
) -> Iterator[Proposal]:
    """Every rewording of a reply; a reply that cannot be read is one objection to each text."""
    if problem := _problem_of(reply):
        yield from (Proposal(text, "", problem) for text in chain.texts)
        return
    parsed = _Reply.model_validate_json(reply.content or "")
    proposed = {entry.number: entry.variants for entry in parsed.rewordings}
    for number, original in enumerate(chain.texts, start=1):
        if not proposed.get(number):
            yield Proposal(original, "", "it was not reworded")
        for variant in proposed.get(number, ()):
            text = as_sentences(variant[:LONGEST_TEXT])
            yield Proposal(original, text, _objection(original, variant, text, chain, locks, names))


def _objection(
    original: str, written: str, text: str, chain: ChainTexts, locks: Locks, names: NameFinder
) -> str | None:
    if len(written) > LONGEST_TEXT or not text:
        return "it is empty or far too long"
    if name := names.find(text, chain.image.image_id, chain.image.path):
        return f"it names {name}"
    return locks.objection(original, text)


def _problem_of(reply: TeacherReply) -> str:
    if reply.refusal:
        return "the teacher refused"
    if reply.finish_reason != "stop":
        return f"the reply ended early ({reply.finish_reason})"
    try:
        _Reply.model_validate_json(reply.content or "")
    except ValidationError:
        return "the reply does not fit the schema"
    return ""
