"""The demo steps back as soon as other images are there."""

from __future__ import annotations

import pytest

from core.errors import ConfigError
from core.sources import choose_sources


@pytest.mark.parametrize(
    ("present", "asked", "chosen"),
    [
        (["demo"], None, ["demo"]),
        (["demo", "wild"], None, ["wild"]),
        (["demo", "wild"], "demo", ["demo"]),
        (["b", "a"], None, ["a", "b"]),
        ([], None, []),
    ],
)
def test_sources_are_chosen(present: list[str], asked: str | None, chosen: list[str]) -> None:
    assert choose_sources(present, asked) == chosen


def test_an_unknown_source_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ConfigError, match="no source 'wold'; ingested so far: wild"):
        choose_sources(["wild"], "wold")
