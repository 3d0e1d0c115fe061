"""The arms of a campaign side by side."""

from __future__ import annotations

import json
from pathlib import Path

from db.engine import Database
from generation.compare import as_text, compare_arms
from tests.databases import (  # noqa: F401
    database,
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)
from tests.replies import RECIPE, Drafting


def answer_with(label: str, *findings: tuple[str, str]) -> str:
    """A reply with that verdict and findings of these categories, each pointing to a label."""
    found = [
        {"category": category, "evidence": "It shows.", "points_to": points_to, "region": None}
        for category, points_to in findings
    ]
    values = {"findings": found, "conclusion": "It does.", "verdict": label, "confidence": "low"}
    return json.dumps(values)


def test_replies_drafts_and_traces_are_counted_by_arm(
    database: Database,  # noqa: F811
    tmp_path: Path,
) -> None:
    drafting = Drafting(database, tmp_path / "images", images=3)
    first, second, third = drafting.images
    told, other = first.label, first.label.opposite
    wrong = drafting.answer(first, content=answer_with(other))
    texts = [("texture", told), ("texture", told), ("edge", told), ("clarity", other)]
    drafting.keep(first, drafting.answer(first, content=answer_with(told, *texts)))
    drafting.keep(second, drafting.answer(second, content=answer_with(second.label)))
    drafting.answer(third, content="{")
    drafting.set_aside(third)

    (row,) = compare_arms(database, RECIPE)

    assert (row.arm, row.drafts, row.set_aside, row.replies) == ("main", 2, 1, 4)
    assert (row.unusable_replies, row.wrong_verdicts) == (2, 1)
    assert (row.categories_per_draft, row.opposing_per_draft, row.without_trace) == (1.0, 0.5, 1)
    assert row.prompt_tokens_per_reply == wrong.usage.prompt_tokens
    assert row.completion_tokens_per_reply == wrong.usage.completion_tokens
    assert row.picture_bytes_per_draft == len(drafting.store.read(first.path))
    lines = list(as_text([row, row]))
    assert lines[0].split() == ["arm", "main", "main"]
    assert "wrong verdicts                       1          1" in lines


def test_an_arm_without_drafts_has_no_means(
    database: Database,  # noqa: F811
    tmp_path: Path,
) -> None:
    Drafting(database, tmp_path / "images", images=1)
    (row,) = compare_arms(database, RECIPE)
    assert (row.drafts, row.replies) == (0, 0)
    assert row.categories_per_draft is row.prompt_tokens_per_reply is None
    assert any(line.split()[-1] == "-" for line in as_text([row]))
