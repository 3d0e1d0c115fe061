"""A request in three forms: its hash, its payload on the wire, and what it may cost at most."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from io import BytesIO
from typing import Any

from PIL import Image

from core.errors import DataError
from core.ids import canonical_json, sha256_bytes, sha256_text
from core.records import TeacherRequest, Usage
from teacher.prices import UNKNOWN_IMAGE_TOKENS, ImageTokens

SCHEMA_NAME = "reply"
FRAMING_TOKENS = 64
"""roles and separators that a server puts around the messages"""
UNREADABLE_SIDE = 8192
"""pixels a side assumed for an image whose size cannot be read"""


def request_hash(request: TeacherRequest) -> str:
    """SHA-256 over every field, the image by its own SHA-256: the name of the reply."""
    parts = {field.name: getattr(request, field.name) for field in fields(request)}
    parts["image"] = None if request.image is None else sha256_bytes(request.image)
    return sha256_text(canonical_json(parts))


def schema_text(schema: Mapping[str, Any]) -> str:
    """A JSON schema as it stands in a request: compact, its keys in the order given.

    Teachers write the keys of a strict reply in that order, so findings can come before the
    conclusion that follows from them.
    """
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)


def payload_of(request: TeacherRequest) -> dict[str, Any]:
    """The Chat Completions body: what repeats comes first, the image last, so prefixes are cached.

    The limit is spelt `max_completion_tokens`: newer models refuse `max_tokens`, and refuse both
    together; current vLLM, SGLang and llama.cpp know it. A local server that does not know it
    ignores it and ends at its own limit.
    """
    return {
        "model": request.model,
        "messages": [
            {"role": "system", "content": request.instructions},
            {"role": "user", "content": _user_content(request)},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": SCHEMA_NAME,
                "strict": True,
                "schema": json.loads(request.reply_schema),
            },
        },
        "temperature": request.temperature,
        "max_completion_tokens": request.max_output_tokens,
    }


def _user_content(request: TeacherRequest) -> list[dict[str, Any]]:
    text: dict[str, Any] = {"type": "text", "text": request.question}
    if request.image is None:
        return [text]
    encoded = base64.b64encode(request.image).decode("ascii")
    url = f"data:{request.image_type};base64,{encoded}"
    return [text, {"type": "image_url", "image_url": {"url": url, "detail": request.detail}}]


def request_of(payload: Mapping[str, Any]) -> TeacherRequest:
    """The request with an image that `payload_of` wrote; DataError says what does not fit."""
    try:
        return _read_payload(payload)
    except KeyError as error:
        raise DataError(f"the request lacks {error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"the request has another form than expected: {error}") from None


def _read_payload(payload: Mapping[str, Any]) -> TeacherRequest:
    system, user = payload["messages"]
    question, picture = user["content"]
    image_type, image = _decode_data_url(picture["image_url"]["url"])
    return TeacherRequest(
        model=_typed(str, payload["model"]),
        instructions=_typed(str, system["content"]),
        question=_typed(str, question["text"]),
        image=image,
        image_type=image_type,
        detail=_typed(str, picture["image_url"]["detail"]),
        reply_schema=schema_text(payload["response_format"]["json_schema"]["schema"]),
        temperature=_typed((int, float), payload["temperature"]),
        max_output_tokens=_typed(int, payload["max_completion_tokens"]),
    )


def _typed(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"{value!r:.60} has the wrong type")
    return value


def _decode_data_url(url: Any) -> tuple[str, bytes]:
    head, comma, encoded = _typed(str, url).partition(",")
    if not (head.startswith("data:") and head.endswith(";base64") and comma):
        raise ValueError("the image is no base64 data URL, and nothing is fetched")
    try:
        image = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the image is not valid base64: {error}") from None
    return head.removeprefix("data:").removesuffix(";base64"), image


def worst_case_tokens(
    request: TeacherRequest, image_tokens: ImageTokens = UNKNOWN_IMAGE_TOKENS
) -> Usage:
    """Upper bounds: what a call may be billed for before anybody knows what it costs.

    Text counts one token per two ASCII characters and one per byte beyond ASCII, which no
    byte-level tokenizer exceeds on prose or JSON; the schema is text too.
    """
    text = request.instructions + request.question + request.reply_schema
    image = 0 if request.image is None else image_tokens.bound(*_pixel_size(request.image))
    return Usage(
        prompt_tokens=_text_bound(text) + FRAMING_TOKENS + image,
        image_tokens=image,
        completion_tokens=request.max_output_tokens,
    )


def _text_bound(text: str) -> int:
    num_ascii = sum(map(str.isascii, text))
    num_bytes = len(text.encode("utf-8", errors="surrogatepass"))
    return math.ceil(num_ascii / 2) + num_bytes - num_ascii


def _pixel_size(image: bytes) -> tuple[int, int]:
    try:
        with Image.open(BytesIO(image)) as picture:
            return picture.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return UNREADABLE_SIDE, UNREADABLE_SIDE
