from __future__ import annotations

import base64
import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import DataError
from core.ids import canonical_json
from core.records import TeacherRequest
from teacher.prices import UNKNOWN_IMAGE_TOKENS, ImageTokens
from teacher.request import payload_of, request_hash, request_of, worst_case_tokens
from tests.unit.teacher.scripted import draw_jpeg, make_request

schemas = st.dictionaries(st.text(), st.text() | st.integers()).map(canonical_json)
requests = st.builds(
    TeacherRequest,
    model=st.text(min_size=1),
    instructions=st.text(),
    question=st.text(),
    image=st.binary(),
    image_type=st.sampled_from(["image/jpeg", "image/png"]),
    detail=st.sampled_from(["low", "high", "original"]),
    reply_schema=schemas,
    temperature=st.floats(0, 2),
    max_output_tokens=st.integers(1, 10_000),
)


@given(requests)
def test_a_request_survives_the_wire_unchanged(request: TeacherRequest) -> None:
    on_the_wire = json.loads(json.dumps(payload_of(request)))
    assert request_of(on_the_wire) == request
    assert request_hash(request_of(on_the_wire)) == request_hash(request)


CHANGES: dict[str, Any] = {
    "model": "another",
    "instructions": "Look again.",
    "question": "Known authenticity: real",
    "image": draw_jpeg(1),
    "image_type": "image/png",
    "detail": "low",
    "reply_schema": "{}",
    "temperature": 0.5,
    "max_output_tokens": 501,
}


@pytest.mark.parametrize("name", [field.name for field in fields(TeacherRequest)])
def test_each_field_changes_the_hash(name: str) -> None:
    request = make_request()
    assert request_hash(replace(request, **{name: CHANGES[name]})) != request_hash(request)


def test_equal_requests_have_equal_hashes_of_64_digits() -> None:
    assert request_hash(make_request()) == request_hash(make_request())
    assert len(request_hash(make_request(image=None))) == 64


def test_payload_puts_instructions_first_and_the_image_last() -> None:
    payload = payload_of(make_request(image=b"\xff\xd8picture"))
    system, user = payload["messages"]
    assert system == {"role": "system", "content": "Look closely."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    url = user["content"][1]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) == b"\xff\xd8picture"
    assert user["content"][1]["image_url"]["detail"] == "high"


def test_payload_asks_for_strict_json_of_the_schema_within_the_limit() -> None:
    payload = payload_of(make_request())
    assert payload["response_format"]["json_schema"]["strict"] is True
    assert payload["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert payload["max_completion_tokens"] == 500
    assert "max_tokens" not in payload


def test_payload_without_image_is_text_alone() -> None:
    user = payload_of(make_request(image=None))["messages"][1]
    assert [part["type"] for part in user["content"]] == ["text"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://example.org/cat.jpg", "no base64 data URL"),
        ("data:image/jpeg,plain", "no base64 data URL"),
        ("data:image/jpeg;base64,@@@@", "not valid base64"),
        (7, "wrong type"),
    ],
)
def test_a_bad_image_address_is_named(url: object, reason: str) -> None:
    payload = payload_of(make_request())
    payload["messages"][1]["content"][1]["image_url"]["url"] = url
    with pytest.raises(DataError, match=reason):
        request_of(payload)


@given(st.dictionaries(st.sampled_from(sorted(payload_of(make_request()))), st.none() | st.text()))
def test_a_payload_of_another_form_is_a_data_error(changes: dict[str, object]) -> None:
    payload = {**payload_of(make_request()), "messages": None, **changes}
    with pytest.raises(DataError):
        request_of(payload)


def test_worst_case_counts_text_image_and_the_whole_output() -> None:
    tiles = ImageTokens(base=85, tile=170)
    bound = worst_case_tokens(make_request(), tiles)
    assert bound.image_tokens == 255
    assert bound.completion_tokens == 500
    assert 255 < bound.prompt_tokens < 500
    longer = worst_case_tokens(make_request(question="x" * 1000), tiles)
    assert longer.prompt_tokens > bound.prompt_tokens + 400


def test_worst_case_counts_every_byte_of_other_scripts() -> None:
    plain = worst_case_tokens(make_request(question="", image=None))
    foreign = worst_case_tokens(make_request(question="痕跡", image=None))
    assert foreign.prompt_tokens == plain.prompt_tokens + 6


def test_an_unreadable_image_is_counted_as_a_large_one() -> None:
    bound = worst_case_tokens(make_request(image=b"no picture"))
    assert bound.image_tokens == UNKNOWN_IMAGE_TOKENS.bound(8192, 8192)
