"""`croissant.json` of a shard set: what programs that know Croissant 1.0 read, from the manifest.

Croissant is MLCommons' vocabulary for data sets in JSON-LD, on top of schema.org; the terms of its
responsible-AI extension (`rai:`) say what is known of how the data came about.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa

from core.ids import sha256_text
from instruct_builder.card import LIMITS, PERSONAL_DATA, title
from instruct_builder.manifest import Manifest, caveats
from instruct_builder.shards import IMAGE_SCHEMA, IMAGES, ROW_SCHEMA

CROISSANT: Final = "croissant.json"
ROWS: Final = "row-files"
PARQUET: Final = "application/x-parquet"
CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""of the specification, as it demands it"""

Node = dict[str, Any]


def render_croissant(manifest: Manifest) -> bytes:
    """JSON-LD as UTF-8; it speaks of row files and images, which are what the set consists of."""
    return (json.dumps(_dataset(manifest), indent=2, ensure_ascii=False) + "\n").encode()


def _dataset(manifest: Manifest) -> Node:
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [
            "http://mlcommons.org/croissant/1.0",
            "http://mlcommons.org/croissant/RAI/1.0",
        ],
        "name": title(manifest),
        "description": (
            f"{manifest.rows:,} instructions about the authenticity of {manifest.images:,} images, "
            f"from {manifest.chains:,} reasoning chains. {manifest.statement}. "
            + " ".join(caveats(manifest))
        ),
        "license": manifest.licence.statement,
        "usageInfo": _terms(manifest),
        "version": _version(manifest),
        "inLanguage": "en",
        "keywords": ["image-forensics", *(["simulated"] if manifest.simulated else [])],
        "rai:dataCollection": f"Images of these sources: {_names(manifest.sources)}.",
        "rai:dataAnnotationProtocol": (
            f"Drafted by {_names(manifest.teachers)} from images whose label was told; "
            "rationales are written after the fact."
        ),
        "rai:dataLimitation": list(LIMITS),
        "rai:personalSensitiveInformation": PERSONAL_DATA,
        "rai:dataReleaseMaintenancePlan": f"Withdrawn images so far: {len(manifest.tombstones)}.",
        "distribution": list(_distribution(manifest)),
        "recordSet": [_instructions(), _images()],
    }


def _names(parts: Any) -> str:
    return "; ".join(f"{part.name} (licence {part.licence})" for part in parts)


def _terms(manifest: Manifest) -> str:
    conditions = "".join(f" Asked: {condition}." for condition in manifest.licence.conditions)
    return f"{manifest.licence.because}.{conditions}"


def _version(manifest: Manifest) -> str:
    """A new one whenever a file is another: nothing else tells versions apart."""
    files = [file.sha256 for file in manifest.files if file.rows is not None]
    return f"1.0.0+{sha256_text(' '.join(files))[:12]}"


def _distribution(manifest: Manifest) -> Iterator[Node]:
    for file in manifest.files:
        if file.rows is not None:
            yield {
                "@type": "cr:FileObject",
                "@id": file.path,
                "name": file.path,
                "contentUrl": file.path,
                "contentSize": f"{file.bytes} B",
                "encodingFormat": PARQUET,
                "sha256": file.sha256,
            }
    yield {
        "@type": "cr:FileSet",
        "@id": ROWS,
        "name": ROWS,
        "description": "All rows; a file holds rows of one split, and is listed with its checksum.",
        "encodingFormat": PARQUET,
        "includes": "rows-*.parquet",
    }


def _instructions() -> Node:
    return _record_set(
        "instructions",
        "One conversation about one image; the image stands before the first turn.",
        key="instruction_id",
        schema=ROW_SCHEMA,
        source={"fileSet": {"@id": ROWS}},
    )


def _images() -> Node:
    return _record_set(
        "images",
        "One image of the set; its file is not part of it.",
        key="image_id",
        schema=IMAGE_SCHEMA,
        source={"fileObject": {"@id": IMAGES}},
    )


def _record_set(name: str, description: str, *, key: str, schema: pa.Schema, source: Node) -> Node:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "description": description,
        "key": {"@id": f"{name}/{key}"},
        "field": [_field(name, column, source) for column in schema],
    }


def _field(record_set: str, column: pa.Field, source: Node) -> Node:
    name = f"{record_set}/{column.name}"
    field = {"@type": "cr:Field", "@id": name, "name": column.name}
    found = {**source, "extract": {"column": column.name}}
    if not pa.types.is_list(column.type):
        kind = "sc:Integer" if pa.types.is_integer(column.type) else "sc:Text"
        return field | {"dataType": kind, "source": found}
    parts = [
        {
            "@type": "cr:Field",
            "@id": f"{name}/{part.name}",
            "name": part.name,
            "dataType": "sc:Text",
            "source": found | {"transform": {"jsonPath": f"$.{part.name}"}},
        }
        for part in column.type.value_type
    ]
    return field | {"repeated": True, "subField": parts}
