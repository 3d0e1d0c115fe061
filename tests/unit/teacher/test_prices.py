from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError
from core.recipe import read_model
from core.records import Usage
from teacher.prices import (
    FREE,
    PRICE_TABLE,
    ImageTokens,
    Price,
    PriceTable,
    batch_price,
    cost,
    price_of,
    require_price,
)

OWN_TABLE = """
as_of: 2027-01-01
source: our contract
models:
  sturgeon-2: {input: 1, cached_input: 0.5, output: 2}
  gpt-4o: {input: 9, cached_input: 9, output: 9}
"""


def test_the_shipped_table_is_dated_and_names_its_source() -> None:
    table = read_model(PRICE_TABLE, PriceTable)
    assert table.as_of.year >= 2026
    assert table.source
    assert all(price.cached_input <= price.input <= price.output for price in table.models.values())


def test_the_rehearsal_model_is_free() -> None:
    price = price_of("rehearsal")
    assert price is not None
    assert cost(Usage(prompt_tokens=10**6, completion_tokens=10**6), price) == 0


@pytest.mark.parametrize(
    ("model", "width", "height", "tokens"),
    [
        ("gpt-6-astra", 512, 512, 308),
        ("gpt-6-astra", 1024, 1536, 1844),
        ("gpt-6-astra", 3000, 4000, 14100),
        ("gpt-4o", 512, 512, 255),
        ("gpt-4o", 1024, 1024, 765),
        ("gpt-4o", 1024, 1536, 1105),
        ("gpt-4o", 2048, 2048, 765),
        ("gpt-4o-mini", 1024, 1536, 36835),
    ],
)
def test_image_tokens_are_those_of_the_provider(
    model: str, width: int, height: int, tokens: int
) -> None:
    price = price_of(model)
    assert price is not None
    assert price.image.bound(width, height) == tokens


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_tiles_never_exceed_two_by_four(width: int, height: int) -> None:
    assert 1 <= ImageTokens(tile=1).bound(width, height) <= 8


def test_cost_counts_cached_input_apart() -> None:
    price = Price(input=2, cached_input=1, output=10)
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=400_000, completion_tokens=100_000)
    assert cost(usage, price) == pytest.approx(1.2 + 0.4 + 1.0)


def test_cost_is_never_understated_where_cache_writes_cost_more() -> None:
    price = Price(input=2, cached_input=1, cache_write=2.5, output=10)
    assert cost(Usage(prompt_tokens=1_000_000), price) == pytest.approx(2.5)


def test_a_recipe_extends_and_corrects_the_table(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(OWN_TABLE)
    assert price_of("sturgeon-2") is None
    assert price_of("sturgeon-2", tmp_path) == Price(input=1, cached_input=0.5, output=2)
    assert price_of("gpt-4o", tmp_path) == Price(input=9, cached_input=9, output=9)
    assert price_of("gpt-5.5", tmp_path) == price_of("gpt-5.5")


def test_an_unlisted_model_is_free_here_and_an_error_elsewhere(tmp_path: Path) -> None:
    assert require_price("sturgeon-2", is_local=True, recipe_folder=tmp_path) == FREE
    with pytest.raises(ConfigError, match=r"sturgeon-2.*unknown.*prices\.yaml"):
        require_price("sturgeon-2", is_local=False, recipe_folder=tmp_path)


def test_an_unknown_key_in_a_table_gets_a_suggestion(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(OWN_TABLE.replace("cached_input", "cached_imput"))
    with pytest.raises(ConfigError, match="did you mean cached_input"):
        price_of("sturgeon-2", tmp_path)


def test_a_request_in_a_batch_costs_half() -> None:
    price = price_of("gpt-6-astra")
    assert price is not None
    usage = Usage(prompt_tokens=10_000, completion_tokens=500)
    assert cost(usage, batch_price(price)) == pytest.approx(cost(usage, price) / 2)


def test_cached_input_is_not_discounted_twice() -> None:
    price = Price(input=10, cached_input=1, output=20, batch=0.5)
    usage = Usage(prompt_tokens=1_000_000, cached_tokens=1_000_000)
    assert cost(usage, batch_price(price)) == 5.0


def test_without_a_known_discount_a_batch_costs_as_much_as_single_calls() -> None:
    price = Price(input=10, cached_input=10, output=20)
    assert batch_price(price) == price
