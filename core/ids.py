"""Ids are hashes of content, so that doing anything twice gives the same rows."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Any

DIGEST_CHARACTERS = 20  # 80 bits: a collision among 10^9 records has a chance below 10^-6


def canonical_json(value: Any) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, no ASCII escapes.

    A record is an object of its fields.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=fields_of
    )


def fields_of(record: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, as they are; `asdict` copies all that is in them."""
    return {field.name: getattr(record, field.name) for field in fields(record)}


def sha256_text(text: str) -> str:
    """Hexadecimal SHA-256 of the UTF-8 bytes of `text`."""
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def sha256_bytes(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def content_id(prefix: str, *parts: Any) -> str:
    """`prefix-` and 20 hexadecimal digits of the hash of the JSON-serialisable `parts`."""
    return f"{prefix}-{sha256_text(canonical_json(parts))[:DIGEST_CHARACTERS]}"


def image_id_of(sha256: str) -> str:
    """The id of an image from the SHA-256 of its bytes in the image store."""
    return f"img-{sha256[:DIGEST_CHARACTERS]}"


def unit_interval(*parts: Any) -> float:
    """A number in [0, 1) that depends on nothing but `parts`; 52 bits."""
    return int(sha256_text(canonical_json(parts))[:13], 16) / 16**13


def seed_of(*parts: Any) -> int:
    """A 63-bit seed that depends on nothing but `parts`."""
    return int(sha256_text(canonical_json(parts))[:16], 16) >> 1
