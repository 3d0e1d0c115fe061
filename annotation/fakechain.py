"""The FakeChain record as others read it: the fields of FakeScope (arXiv 2503.24267), section 3.

Pure: what is known of an image becomes one row, which Parquet and JSON hold alike.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa

from core.records import (
    BlindLabel,
    Correction,
    Draft,
    Guidance,
    ImageRecord,
    Mask,
    ReasoningChain,
    Region,
    RequestText,
    TraceFinding,
)

SCHEMA_VERSION: Final = 1


class Images(StrEnum):
    """How rows lead to their pictures."""

    NONE = "none"
    """by hash alone"""
    REFERENCE = "reference"
    """by the path in the image store"""
    EMBED = "embed"
    """Parquet rows hold the file as well"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A chain with all that led to it."""

    chain: ReasoningChain
    image: ImageRecord
    draft: Draft
    told: RequestText | None
    """what the teacher was told beside the picture, where that was stored"""
    blind_labels: Sequence[BlindLabel]
    guidance: Guidance | None
    corrections: Sequence[Correction]
    """those that the chain was built from, in their order"""


_STRINGS = pa.list_(pa.string())
_POLYGON = pa.list_(pa.struct([("x", pa.float64()), ("y", pa.float64())]))
_MASK = pa.struct([("width", pa.int32()), ("height", pa.int32()), ("counts", pa.list_(pa.int64()))])
_REGION = pa.struct([("polygon", _POLYGON), ("mask", _MASK)])
_FINDING = pa.struct(
    [
        ("category", pa.string()),
        ("evidence", pa.string()),
        ("points_to", pa.string()),
        ("region", _REGION),
    ]
)
_BLIND_LABEL = pa.struct(
    [
        ("expert", pa.string()),
        ("verdict", pa.string()),
        ("is_right", pa.bool_()),
        ("confidence", pa.string()),
        ("categories", _STRINGS),
    ]
)
_CORRECTION = pa.struct(
    [
        ("correction_id", pa.string()),
        ("expert", pa.string()),
        ("version", pa.int32()),
        ("is_adjudication", pa.bool_()),
        ("outcomes", _STRINGS),
    ]
)
_PROMPT = pa.struct(
    [
        ("version", pa.string()),
        ("model", pa.string()),
        ("instructions", pa.string()),
        ("question", pa.string()),
        ("reply_schema", pa.string()),
        ("temperature", pa.float64()),
        ("max_output_tokens", pa.int32()),
    ]
)
_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_FIELDS: Final = [
    ("chain_id", pa.string()),
    ("image_id", pa.string()),
    ("image_sha256", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("source", pa.string()),
    ("generator", pa.string()),
    ("label", pa.string()),
    ("review_level", pa.string()),
    ("blind_labels", pa.list_(_BLIND_LABEL)),
    ("guidance", _STRINGS),
    ("teacher", pa.string()),
    ("merged_teachers", _STRINGS),
    ("arm", pa.string()),
    ("prompt", _PROMPT),
    ("exemplar_ids", _STRINGS),
    ("corrections", pa.list_(_CORRECTION)),
    ("findings", pa.list_(_FINDING)),
    ("conclusion", pa.string()),
    ("confidence", pa.string()),
    ("text", pa.string()),
]


def schema_of(images: Images) -> pa.Schema:
    """The columns, in their order."""
    fields = list(_FIELDS)
    metadata = {b"fakechain_schema_version": str(SCHEMA_VERSION).encode()}
    if images is not Images.NONE:
        fields.append(("image_path", pa.string()))
    if images is Images.EMBED:
        fields.append(("image", _PICTURE))
        shown = {"info": {"features": {"image": {"_type": "Image"}}}}  # `datasets` decodes it
        metadata[b"huggingface"] = json.dumps(shown).encode()
    return pa.schema(fields, metadata=metadata)


def row_of(entry: Entry, images: Images) -> dict[str, Any]:
    """One row, without the picture itself."""
    chain, image, draft = entry.chain, entry.image, entry.draft
    reasoning = chain.reasoning
    row = {
        "chain_id": chain.chain_id,
        "image_id": image.image_id,
        "image_sha256": image.sha256,
        "width": image.width,
        "height": image.height,
        "source": image.source,
        "generator": image.generator,
        "label": str(reasoning.verdict),
        "review_level": str(chain.review_level),
        "blind_labels": [_blind_label(label, image) for label in entry.blind_labels],
        "guidance": None if entry.guidance is None else list(entry.guidance.categories),
        "teacher": chain.teacher,
        "merged_teachers": list(chain.merged_teachers),
        "arm": chain.arm,
        "prompt": None if entry.told is None else _prompt(draft.prompt_version, entry.told),
        "exemplar_ids": list(draft.exemplar_ids),
        "corrections": [_correction(correction) for correction in entry.corrections],
        "findings": [_finding(finding) for finding in reasoning.findings],
        "conclusion": reasoning.conclusion,
        "confidence": str(reasoning.confidence),
        "text": " ".join(
            filter(None, [*(f.evidence for f in reasoning.findings), reasoning.conclusion])
        ),
    }
    return row if images is Images.NONE else {**row, "image_path": image.path}


def _blind_label(label: BlindLabel, image: ImageRecord) -> dict[str, Any]:
    return {
        "expert": label.expert,
        "verdict": str(label.verdict),
        "is_right": label.verdict is image.label,
        "confidence": str(label.confidence),
        "categories": list(label.categories),
    }


def _prompt(version: str, told: RequestText) -> dict[str, Any]:
    said = asdict(told)
    return {"version": version, **{name: said[name] for name in said if name != "text_id"}}


def _correction(correction: Correction) -> dict[str, Any]:
    return {
        "correction_id": correction.correction_id,
        "expert": correction.expert,
        "version": correction.version,
        "is_adjudication": correction.is_adjudication,
        "outcomes": [str(outcome) for outcome in correction.outcomes],
    }


def _finding(finding: TraceFinding) -> dict[str, Any]:
    return {
        "category": finding.category,
        "evidence": finding.evidence,
        "points_to": str(finding.points_to),
        "region": None if finding.region is None else _region(finding.region),
    }


def _region(region: Region | Mask) -> dict[str, Any]:
    """A polygon in fractions of width and height, or COCO's counts; the other one is null."""
    if isinstance(region, Mask):
        mask = {"width": region.width, "height": region.height, "counts": list(region.counts)}
        return {"polygon": None, "mask": mask}
    return {"polygon": [{"x": x, "y": y} for x, y in region.points], "mask": None}
