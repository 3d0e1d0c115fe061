"""Sampled rows as a check sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from core.errors import PermanentError
from instruct_builder.checks import Figures
from instruct_builder.shards import ROW_SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a check of rows looks at; questions and answers in turn."""

    image_id: str
    turns: tuple[str, ...]
    form: str = "verdict_what"
    template: str = "verdict_what/q01/a01"
    target: str | None = None
    label: str = "fake"


def sampled(rows: Sequence[Row]) -> pa.Table:
    """Rows of whole images in ROW_SCHEMA."""
    values = [
        {
            "instruction_id": f"ins-{number}",
            "image_id": row.image_id,
            "form": row.form,
            "template_id": row.template,
            "messages": [
                {"role": ("user", "assistant")[place % 2], "content": text}
                for place, text in enumerate(row.turns)
            ],
            "target": row.target,
            "label": row.label,
        }
        for number, row in enumerate(rows)
    ]
    return pa.Table.from_pylist(values, schema=ROW_SCHEMA)


def facts_of(check: object, *tables: pa.Table) -> Figures:
    """What a check says of these tables; raises as a build would where it fails."""
    for table in tables:
        check.see_rows(table)
    if failures := check.failures():
        raise PermanentError(failures[0])
    return check.figures()
