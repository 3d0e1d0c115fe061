"""What published JSON lists share: authenticity as a number, and fields that may be anything."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from core.errors import DataError
from core.records import Authenticity

ZERO_IS_FAKE: Final[Mapping[int, Authenticity]] = MappingProxyType(
    {0: Authenticity.FAKE, 1: Authenticity.REAL}
)
ZERO_IS_REAL: Final[Mapping[int, Authenticity]] = MappingProxyType(
    {0: Authenticity.REAL, 1: Authenticity.FAKE}
)


def label_of(value: object, polarity: Mapping[int, Authenticity]) -> Authenticity:
    """The label that a number or a word stands for; DataError for any other value."""
    if type(value) is int and value in polarity:
        return polarity[value]
    words = [label for label in Authenticity if label.value == str(value).strip().lower()]
    if not words:
        raise DataError(f"label {value!r} is neither real nor fake")
    return words[0]


def text_of(record: Any, name: str) -> str:
    """A field that must be there as text; DataError where it is not."""
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, str) or not value:
        raise DataError(f"an entry without {name}")
    return value
