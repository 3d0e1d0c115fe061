"""Values on their way into the database."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import sqlite

from db.columns import Dollars, UtcTime, storable

DIALECT = sqlite.dialect()


@given(st.text(st.characters(codec=None)))
def test_storable_text_has_one_form_and_can_be_encoded(text: str) -> None:
    kept = storable(text)
    assert storable(kept) == kept
    assert "\0" not in kept
    kept.encode("utf-8")


@given(st.text())
def test_ordinary_text_is_kept_as_it_is(text: str) -> None:
    assert storable(text) == text.replace("\0", "\\u0000")


def test_inside_json_a_lone_surrogate_keeps_its_meaning() -> None:
    raw = '{"evidence": "half a \ud83d pair"}'
    assert json.loads(storable(raw)) == json.loads(raw)


@given(st.integers(0, 10**18))
def test_billionths_of_a_dollar_are_exact_up_to_a_million_dollars(nano: int) -> None:
    kind = Dollars()
    usd = kind.process_result_value(nano, DIALECT)
    assert usd is not None
    if nano < 10**15:
        assert kind.process_bind_param(usd, DIALECT) == nano


def test_times_are_stored_in_utc_and_need_a_zone() -> None:
    kind = UtcTime()
    berlin = datetime(2026, 3, 1, 13, tzinfo=timezone(timedelta(hours=1)))
    stored = kind.process_bind_param(berlin, DIALECT)
    assert stored == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert kind.process_result_value(datetime(2026, 3, 1, 12), DIALECT) == berlin  # noqa: DTZ001
    with pytest.raises(AssertionError):
        kind.process_bind_param(datetime(2026, 3, 1, 12), DIALECT)  # noqa: DTZ001
