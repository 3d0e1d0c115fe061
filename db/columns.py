"""Column types that behave the same on SQLite and PostgreSQL."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum, StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, Dialect, Integer, Text
from sqlalchemy import Enum as EnumType
from sqlalchemy.types import TypeDecorator

from core.ids import fields_of
from core.records import View

NANO = 1_000_000_000
UNSTORABLE = re.compile("[\0\ud800-\udfff]")

COUNTER = BigInteger().with_variant(Integer, "sqlite")
"""a primary key that the database counts up; SQLite does that for INTEGER alone"""


def storable(text: str) -> str:
    r"""`text` as both databases can hold it: NUL and lone surrogates become `\u0000`, `\ud800`.

    Inside JSON text this is the character's own escape, so a raw reply keeps its meaning.
    """
    if text.isascii() and "\0" not in text:
        return text
    return UNSTORABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


class PlainText(TypeDecorator[str]):
    """Text of any length, stored whatever it holds and sorted by code point everywhere."""

    impl = Text().with_variant(Text(collation="C"), "postgresql")
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else storable(value)


class UtcTime(TypeDecorator[datetime]):
    """A moment in UTC; a time without a zone is refused."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, f"{value} has no time zone"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Dollars(TypeDecorator[float]):
    """US dollars, counted in whole billionths: sums are exact, and so is a ceiling."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> int | None:
        return None if value is None else round(value * NANO)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> float | None:
        return None if value is None else int(value) / NANO


class Names(TypeDecorator[tuple[str, ...]]):
    """Names in their order, as a JSON array."""

    impl = JSON
    cache_ok = True

    def process_bind_param(
        self, value: tuple[str, ...] | None, dialect: Dialect
    ) -> list[str] | None:
        return None if value is None else list(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> tuple[str, ...] | None:
        return None if value is None else tuple(value)


class Counts(TypeDecorator[tuple[int, ...]]):
    """Whole numbers in their order, as a JSON array."""

    impl = JSON
    cache_ok = True

    def process_bind_param(
        self, value: tuple[int, ...] | None, dialect: Dialect
    ) -> list[int] | None:
        return None if value is None else list(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> tuple[int, ...] | None:
        return None if value is None else tuple(value)


class Views(TypeDecorator[tuple[View, ...]]):
    """What a teacher saw of an image, as a JSON array of objects."""

    impl = JSON
    cache_ok = True

    def process_bind_param(
        self, value: tuple[View, ...] | None, dialect: Dialect
    ) -> list[dict[str, Any]] | None:
        return None if value is None else [fields_of(view) for view in value]

    def process_result_value(self, value: Any | None, dialect: Dialect) -> tuple[View, ...] | None:
        return None if value is None else tuple(View(**fields) for fields in value)


def exact_sum(amounts: Iterable[float]) -> float:
    """The sum of US dollars as `Dollars` counts them."""
    return sum(round(amount * NANO) for amount in amounts) / NANO


def _values(kind: type[Enum]) -> list[str]:
    return [str(member.value) for member in kind]


WORD = EnumType(StrEnum, native_enum=False, length=16, values_callable=_values)
"""a member of any of our enumerations, stored as its value"""
