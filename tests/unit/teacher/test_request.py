from __future__ import annotations

import base64
import json
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError
from core.ids import canonical_json
from core.records import Picture, TeacherRequest
from teacher.prices import UNKNOWN_IMAGE_TOKENS, ImageTokens
from teacher.request import body_of, payload_of, request_hash, request_of, worst_case_tokens
from tests.unit.teacher.scripted import draw_jpeg, make_picture, make_request

schemas = st.dictionaries(st.text(), st.text() | st.integers()).map(canonical_json)


def pictures(*, captions: st.SearchStrategy[str], is_exemplar: bool = False) -> Any:
    return st.builds(
        Picture,
        data=st.binary(),
        media_type=st.sampled_from(["image/jpeg", "image/png"]),
        detail=st.sampled_from(["low", "high", "original"]),
        caption=captions,
        is_exemplar=st.just(is_exemplar),
    )


captioned = pictures(captions=st.text(min_size=1))
judged = st.lists(captioned, min_size=1) | st.lists(pictures(captions=st.just("")), min_size=1)
exemplars = st.lists(pictures(captions=st.text(min_size=1), is_exemplar=True))
requests = st.builds(
    TeacherRequest,
    model=st.text(min_size=1),
    instructions=st.text(),
    question=st.text(),
    pictures=st.builds(lambda shown, asked: (*shown, *asked), exemplars, judged),
    reply_schema=schemas,
    temperature=st.floats(0, 2),
    max_output_tokens=st.integers(1, 10_000),
)


@settings(deadline=None)
@given(requests)
def test_a_request_survives_the_wire_unchanged(request: TeacherRequest) -> None:
    on_the_wire = json.loads(body_of(request))
    assert on_the_wire == json.loads(json.dumps(payload_of(request)))
    assert request_of(on_the_wire) == request
    assert request_hash(request_of(on_the_wire)) == request_hash(request)


CHANGES: dict[str, Any] = {
    "model": "another",
    "instructions": "Look again.",
    "question": "Known authenticity: real",
    "pictures": (),
    "reply_schema": "{}",
    "temperature": 0.5,
    "max_output_tokens": 501,
}


@pytest.mark.parametrize("name", [field.name for field in fields(TeacherRequest)])
def test_each_field_changes_the_hash(name: str) -> None:
    request = make_request()
    assert request_hash(replace(request, **{name: CHANGES[name]})) != request_hash(request)


@pytest.mark.parametrize(
    "change",
    [
        {"data": draw_jpeg(1)},
        {"media_type": "image/png"},
        {"detail": "low"},
        {"caption": "All of it."},
        {"is_exemplar": True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_field_of_a_picture_changes_the_hash(change: dict[str, Any]) -> None:
    changed = make_request(pictures=(replace(make_picture(), **change),))
    assert request_hash(changed) != request_hash(make_request())


def test_equal_requests_have_equal_hashes_of_64_digits() -> None:
    assert request_hash(make_request()) == request_hash(make_request())
    assert len(request_hash(make_request(pictures=()))) == 64


def test_payload_puts_instructions_first_and_the_image_last() -> None:
    payload = payload_of(make_request(pictures=(make_picture(b"\xff\xd8picture"),)))
    system, user = payload["messages"]
    assert system == {"role": "system", "content": "Look closely."}
    assert [part["type"] for part in user["content"]] == ["text", "image_url"]
    url = user["content"][1]["image_url"]["url"]
    assert base64.b64decode(url.removeprefix("data:image/jpeg;base64,")) == b"\xff\xd8picture"
    assert user["content"][1]["image_url"]["detail"] == "high"


def test_exemplars_stand_before_the_question_and_captions_before_their_pictures() -> None:
    shown = [
        make_picture(caption="The whole image."),
        make_picture(caption="Demonstration 1.", is_exemplar=True),
        make_picture(caption="A crop of it."),
    ]
    user = payload_of(make_request(pictures=tuple(shown)))["messages"][1]["content"]
    assert [part.get("text", "picture") for part in user] == [
        "Demonstration 1.",
        "picture",
        "Known authenticity: fake\nDescribe the traces.",
        "The whole image.",
        "picture",
        "A crop of it.",
        "picture",
    ]


def test_payload_asks_for_strict_json_of_the_schema_within_the_limit() -> None:
    payload = payload_of(make_request())
    assert payload["response_format"]["json_schema"]["strict"] is True
    assert payload["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert payload["max_completion_tokens"] == 500
    assert "max_tokens" not in payload


def test_a_payload_without_pictures_is_text_alone() -> None:
    request = make_request(pictures=())
    payload = payload_of(request)
    assert [part["type"] for part in payload["messages"][1]["content"]] == ["text"]
    assert request_of(payload) == request


def test_a_payload_with_the_pictures_of_exemplars_alone_asks_about_no_image() -> None:
    exemplar = make_picture(caption="Demonstration 1.", is_exemplar=True)
    with pytest.raises(DataError, match="no image to judge"):
        request_of(payload_of(make_request(pictures=(exemplar,))))


def test_a_payload_without_a_question_is_a_data_error() -> None:
    payload = payload_of(make_request())
    del payload["messages"][1]["content"][0]
    with pytest.raises(DataError, match="asks no question"):
        request_of(payload)


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


def test_worst_case_counts_every_picture_and_its_caption() -> None:
    tiles = ImageTokens(base=85, tile=170)
    pair = (make_picture(caption="x" * 100), make_picture(draw_jpeg(side=600), caption="y" * 100))
    bound = worst_case_tokens(make_request(pictures=pair), tiles)
    assert bound.image_tokens == 255 + 85 + 4 * 170
    alone = worst_case_tokens(make_request(), tiles)
    assert bound.prompt_tokens == alone.prompt_tokens + 85 + 4 * 170 + 100


def test_worst_case_counts_every_byte_of_other_scripts() -> None:
    plain = worst_case_tokens(make_request(question="", pictures=()))
    foreign = worst_case_tokens(make_request(question="痕跡", pictures=()))
    assert foreign.prompt_tokens == plain.prompt_tokens + 6


def test_an_unreadable_image_is_counted_as_a_large_one() -> None:
    bound = worst_case_tokens(make_request(pictures=(make_picture(b"no picture"),)))
    assert bound.image_tokens == UNKNOWN_IMAGE_TOKENS.bound(8192, 8192)
