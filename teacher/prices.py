"""What a call costs: a dated table of prices, which a recipe may extend or correct."""

from __future__ import annotations

import math
from datetime import date
from pathlib import Path

from pydantic import Field

from core.errors import ConfigError
from core.recipe import Strict, read_model
from core.records import Usage

PRICES_FILE = "prices.yaml"
PRICE_TABLE = Path(__file__).with_name(PRICES_FILE)
MILLION = 1_000_000
PATCH = 32
"""pixels a side"""
TILE = 512
"""pixels a side, after an image was fitted into 2048 pixels, and its short side into 768"""


class ImageTokens(Strict):
    """How a model counts an image: a base, so many per 512-pixel tile, so many per patch."""

    base: int = Field(0, ge=0)
    tile: int = Field(0, ge=0)
    patch: float = Field(0.0, ge=0)

    def bound(self, width: int, height: int) -> int:
        """Most tokens that an image of this size is counted as, at any detail level."""
        patches = math.ceil(width / PATCH) * math.ceil(height / PATCH)
        return self.base + self.tile * _num_tiles(width, height) + math.ceil(self.patch * patches)


UNKNOWN_IMAGE_TOKENS = ImageTokens(base=3000, patch=2.5)
"""above the counts of every model in the table that counts patches, and of local models"""


class Price(Strict):
    """USD per million tokens of one model."""

    input: float = Field(ge=0)
    cached_input: float = Field(ge=0)
    output: float = Field(ge=0)
    cache_write: float = Field(0.0, ge=0)
    """of input that the server puts into its cache; 0 where that costs nothing extra"""
    image: ImageTokens = UNKNOWN_IMAGE_TOKENS
    batch: float = Field(1.0, ge=0, le=1)
    """share of these prices that is asked for a request in a batch"""


class PriceTable(Strict):
    """`prices.yaml`: prices by model name, with their date and where they were read."""

    as_of: date
    source: str
    models: dict[str, Price]


FREE = Price(input=0, cached_input=0, output=0)
"""of the rehearsal teacher, and of unlisted models on this machine"""


def price_of(model: str, recipe_folder: Path | None = None) -> Price | None:
    """The price of a model: from the recipe folder's `prices.yaml`, else from the shipped one."""
    for table in _tables(recipe_folder):
        if model in table.models:
            return table.models[model]
    return None


def require_price(model: str, *, is_local: bool, recipe_folder: Path) -> Price:
    """The price of a model; an unlisted one is free on this machine and a ConfigError elsewhere."""
    price = price_of(model, recipe_folder)
    if price is None and not is_local:
        raise ConfigError(
            f"the price of model {model!r} is unknown, so no ceiling could hold: write it into "
            f"{recipe_folder / PRICES_FILE}, in the form of {PRICE_TABLE.parent.name}/{PRICES_FILE}"
        )
    return price or FREE


def cost(usage: Usage, price: Price) -> float:
    """USD of a call, never understated: input outside the cache counts as written to it."""
    fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
    return (
        fresh * max(price.input, price.cache_write)
        + usage.cached_tokens * price.cached_input
        + usage.completion_tokens * price.output
    ) / MILLION


def batch_price(price: Price) -> Price:
    """The price of a request in a batch.

    Whether the discounts of a batch and of a cached prompt add up differs by model, so cached
    input counts as other input.
    """
    return price.model_copy(
        update={
            "input": price.input * price.batch,
            "cached_input": price.input * price.batch,
            "cache_write": price.cache_write * price.batch,
            "output": price.output * price.batch,
        }
    )


def _tables(recipe_folder: Path | None) -> list[PriceTable]:
    own = [] if recipe_folder is None else [recipe_folder / PRICES_FILE]
    return [read_model(path, PriceTable) for path in (*own, PRICE_TABLE) if path.is_file()]


def _num_tiles(width: int, height: int) -> int:
    fit = min(1, 2048 / max(width, height))
    shrink = fit * min(1, 768 / (min(width, height) * fit))
    return math.ceil(width * shrink / TILE) * math.ceil(height * shrink / TILE)
