"""A reply is used as it stands, or set aside with the reason; never guessed at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.recipe import load_recipe
from core.records import Authenticity, Confidence, Reasoning, TeacherReply, Usage
from generation.parse import parse_draft

TAXONOMY = load_recipe().taxonomy
FINDING = {
    "category": "texture",
    "evidence": "the skin repeats",
    "points_to": "fake",
    "region": [[0, 0], [1, 0], [1, 1]],
}
GOOD: dict[str, Any] = {
    "findings": [FINDING],
    "conclusion": "The picture was generated.",
    "verdict": "fake",
    "confidence": "high",
}


def reply(content: str | None, **changes: Any) -> TeacherReply:
    values: dict[str, Any] = {
        "request_hash": "0" * 64,
        "raw": "{}",
        "content": content,
        "refusal": None,
        "finish_reason": "stop",
        "model": "some-model",
        "usage": Usage(),
        "request_id": None,
        "latency_s": 0.1,
    }
    return TeacherReply(**{**values, **changes})


def test_without_a_told_label_any_verdict_is_kept() -> None:
    for verdict in Authenticity:
        answer = reply(json.dumps({**GOOD, "verdict": verdict}))
        assert parse_draft(answer, taxonomy=TAXONOMY, label=None).verdict is verdict


def parse(answer: TeacherReply) -> Reasoning:
    return parse_draft(answer, taxonomy=TAXONOMY, label=Authenticity.FAKE)


def test_a_good_reply_becomes_a_reasoning() -> None:
    reasoning = parse(reply(json.dumps(GOOD)))
    assert reasoning.verdict is Authenticity.FAKE
    assert reasoning.confidence is Confidence.HIGH
    assert reasoning.findings[0].evidence == "The skin repeats."
    assert reasoning.findings[0].region is not None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"verdict": "real"}, "the verdict is real, but the image is known to be fake"),
        ({"verdict": "unrealistic"}, "verdict"),
        ({"findings": [{**FINDING, "category": "vibes"}]}, "unknown trace category: vibes"),
        ({"findings": [{**FINDING, "evidence": "  "}]}, r"findings\.0\.evidence"),
        ({"findings": [{**FINDING, "region": [[0, 0], [2, 0], [1, 1]]}]}, "region"),
        ({"conclusion": "x" * 100_000}, "conclusion"),
        ({"confidence": 0.9}, "confidence"),
    ],
)
def test_a_reply_that_cannot_be_used_says_why(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse(reply(json.dumps({**GOOD, **changes})))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (reply(None, refusal="I cannot\nhelp."), "the teacher refused: I cannot help"),
        (reply('{"findings": [', finish_reason="length"), "cut off at the token limit"),
        (reply(None, finish_reason="content_filter"), "content filter"),
        (reply("The image is fake."), "does not fit the schema"),
        (reply(None), "does not fit the schema"),
    ],
)
def test_the_wire_format_can_spoil_a_reply_too(answer: TeacherReply, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        parse(answer)


def test_hidden_characters_are_cut_out_and_markup_is_kept_as_text() -> None:
    evil = "\u202egnp.exe\u0007 <script>alert(1)</script> {{ 7 * 7 }}"
    reasoning = parse(reply(json.dumps({**GOOD, "conclusion": evil})))
    assert reasoning.conclusion == "Gnp.exe <script>alert(1)</script> {{ 7 * 7 }}."


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    with pytest.raises(DataError) as caught:
        parse(reply(text))
    assert "\n" not in str(caught.value)


@given(st.text(min_size=5, max_size=200))
def test_the_text_of_a_finding_survives_but_for_spaces_and_hidden_characters(text: str) -> None:
    finding = {**FINDING, "evidence": f"abc {text}"}
    reasoning = parse(reply(json.dumps({**GOOD, "findings": [finding]})))
    visible = [c for c in text if c.isalnum()]
    assert [c for c in reasoning.findings[0].evidence if c.isalnum()] == ["A", "b", "c", *visible]
