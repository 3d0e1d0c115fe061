"""A request in three forms: its hash, its payload on the wire, and what it may cost at most."""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from io import BytesIO
from itertools import pairwise
from typing import Any

from PIL import Image

from core.errors import DataError
from core.ids import canonical_json, sha256_text
from core.records import Picture, TeacherRequest, Usage
from teacher.prices import UNKNOWN_IMAGE_TOKENS, ImageTokens

SCHEMA_NAME = "reply"
FRAMING_TOKENS = 64
"""roles and separators that a server puts around the messages"""
UrlOf = Callable[[Picture], str]
UNREADABLE_SIDE = 8192
"""pixels a side assumed for an image whose size cannot be read"""


def reply_keys(reply_schema: str) -> tuple[str, ...]:
    """What a reply has at its top level, in order; nothing when the schema is of no object."""
    try:
        return tuple(json.loads(reply_schema)["properties"])
    except (ValueError, KeyError, TypeError):
        return ()


def request_hash(request: TeacherRequest) -> str:
    """SHA-256 over every field, pictures by their own SHA-256: the name of the reply."""
    parts = {field.name: getattr(request, field.name) for field in fields(request)}
    parts["pictures"] = [
        [p.sha256, p.media_type, p.detail, p.caption, p.is_exemplar] for p in request.pictures
    ]
    return sha256_text(canonical_json(parts))


def schema_text(schema: Mapping[str, Any]) -> str:
    """A JSON schema as it stands in a request: compact, its keys in the order given.

    Teachers write the keys of a strict reply in that order, so findings can come before the
    conclusion that follows from them.
    """
    return json.dumps(schema, separators=(",", ":"), ensure_ascii=False)


def payload_of(request: TeacherRequest, url_of: UrlOf | None = None) -> dict[str, Any]:
    """The Chat Completions body: what repeats comes first, the image last: prefixes are cached.

    The limit is spelt `max_completion_tokens`: newer models refuse `max_tokens`, and refuse both
    together; current vLLM, SGLang and llama.cpp know it. A local server that does not know it
    ignores it and ends at its own limit. Pictures are data URLs, or what `url_of` makes of them.
    """
    return {
        "model": request.model,
        "messages": [
            {"role": "system", "content": request.instructions},
            {"role": "user", "content": _user_content(request, url_of or _data_url)},
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


def body_of(request: TeacherRequest) -> bytes:
    """The payload as JSON text in ASCII.

    Base64 needs no escapes: pictures are put in after the encoder, which would go through each of
    their characters.
    """
    urls: dict[str, str] = {}

    def stand_in(picture: Picture) -> str:
        name = f"\0picture {len(urls)}"
        urls[name] = _data_url(picture)
        return name

    text = _encode(payload_of(request, stand_in))
    for name, url in urls.items():
        text = text.replace(_encode(name), b'"%b"' % url.encode("ascii"), 1)
    return text


def _encode(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _user_content(request: TeacherRequest, url_of: UrlOf) -> list[dict[str, Any]]:
    return [
        *(part for picture in request.exemplars for part in _picture_parts(picture, url_of)),
        _text_part(request.question),
        *(part for picture in request.judged for part in _picture_parts(picture, url_of)),
    ]


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _picture_parts(picture: Picture, url_of: UrlOf) -> list[dict[str, Any]]:
    image_url = {"url": url_of(picture), "detail": picture.detail}
    shown = {"type": "image_url", "image_url": image_url}
    return [_text_part(picture.caption), shown] if picture.caption else [shown]


def _data_url(picture: Picture) -> str:
    encoded = base64.b64encode(picture.data).decode("ascii")
    return f"data:{picture.media_type};base64,{encoded}"


def shortened_url(picture: Picture) -> str:
    """For people: what the data URL of a picture holds."""
    width, height = pixel_size(picture.data)
    return (
        f"data:{picture.media_type};base64,... ({width} x {height} pixels, "
        f"{len(picture.data)} bytes, SHA-256 {picture.sha256})"
    )


def request_of(payload: Mapping[str, Any]) -> TeacherRequest:
    """The request that `payload_of` wrote; DataError says what does not fit."""
    try:
        return _read_payload(payload)
    except KeyError as error:
        raise DataError(f"the request lacks {error}") from None
    except (AttributeError, TypeError, ValueError) as error:
        raise DataError(f"the request has another form than expected: {error}") from None


def _read_payload(payload: Mapping[str, Any]) -> TeacherRequest:
    system, user = payload["messages"]
    parts = _typed(list, user["content"])
    place = _place_of_question(parts)
    exemplars = _read_pictures(parts[:place], is_exemplar=True)
    judged = _read_pictures(parts[place + 1 :], is_exemplar=False)
    if exemplars and not judged:
        raise ValueError("it shows no image to judge")
    return TeacherRequest(
        model=_typed(str, payload["model"]),
        instructions=_typed(str, system["content"]),
        question=_typed(str, parts[place]["text"]),
        pictures=exemplars + judged,
        reply_schema=schema_text(payload["response_format"]["json_schema"]["schema"]),
        temperature=_typed((int, float), payload["temperature"]),
        max_output_tokens=_typed(int, payload["max_completion_tokens"]),
    )


def _place_of_question(parts: Sequence[Mapping[str, Any]]) -> int:
    """The text that another text follows: a caption; without captions after it, the last one."""
    texts = [place for place, part in enumerate(parts) if part["type"] == "text"]
    if not texts:
        raise ValueError("it asks no question")
    return next((a for a, b in pairwise(texts) if b == a + 1), texts[-1])


def _read_pictures(parts: Sequence[Mapping[str, Any]], *, is_exemplar: bool) -> tuple[Picture, ...]:
    pictures = []
    caption = ""
    for part in parts:
        if part["type"] == "text":
            caption = _typed(str, part["text"])
            continue
        media_type, data = _decode_data_url(part["image_url"]["url"])
        detail = _typed(str, part["image_url"]["detail"])
        pictures.append(
            Picture(
                data=data,
                media_type=media_type,
                detail=detail,
                caption=caption,
                is_exemplar=is_exemplar,
            )
        )
        caption = ""
    return tuple(pictures)


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
    image = sum(image_tokens.bound(*pixel_size(p.data)) for p in request.pictures)
    return Usage(
        prompt_tokens=_text_bound(text_of(request)) + FRAMING_TOKENS + image,
        image_tokens=image,
        completion_tokens=request.max_output_tokens,
    )


def text_of(request: TeacherRequest) -> str:
    """All text of a request, the schema too."""
    captions = "".join(picture.caption for picture in request.pictures)
    return request.instructions + captions + request.question + request.reply_schema


def _text_bound(text: str) -> int:
    num_ascii = len(text.encode("ascii", errors="ignore"))
    num_bytes = len(text.encode("utf-8", errors="surrogatepass"))
    return math.ceil(num_ascii / 2) + num_bytes - num_ascii


def pixel_size(image: bytes) -> tuple[int, int]:
    """Width and height as the header says; those of a large picture where it cannot be read."""
    try:
        with Image.open(BytesIO(image)) as picture:
            return picture.size
    except (OSError, ValueError, Image.DecompressionBombError):
        return UNREADABLE_SIDE, UNREADABLE_SIDE
