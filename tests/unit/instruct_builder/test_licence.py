"""The strictest licence rules."""

from __future__ import annotations

import pytest

from core.records import Source
from instruct_builder.licence import derive_licence, strictness

FREEST_FIRST = [
    "CC0-1.0",
    "MIT",
    "CC BY 4.0",
    "CC-BY-SA-3.0",
    "cc-by-nd-4.0",
    "CC BY-NC 4.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-NC-ND-4.0",
    "ask the author",
]


def test_licences_are_ordered_from_the_freest_to_the_strictest() -> None:
    ranks = [strictness(licence) for licence in FREEST_FIRST]
    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize("free", FREEST_FIRST[:-1])
def test_one_unknown_licence_makes_the_whole_set_unknown(free: str) -> None:
    sources = [Source(name="open", licence=free), Source(name="attic", licence="unknown")]
    derived = derive_licence(sources)
    assert derived.statement.startswith("unknown: nobody said")
    assert "attic" in derived.because


def test_the_strictest_source_is_named() -> None:
    sources = [Source(name="a", licence="CC0-1.0"), Source(name="b", licence="CC-BY-NC-4.0")]
    assert derive_licence(sources).statement == "CC-BY-NC-4.0"
    assert derive_licence(sources).because == (
        "the licence of source b; it is the strictest among 2 sources"
    )


def test_a_statement_may_name_several_licences() -> None:
    demo = "CC-BY-2.0: a flower; CC0-1.0: a cat; public domain: a rocket"
    assert strictness(demo) == strictness("CC-BY-2.0")
    assert strictness("permitted for all") == strictness("unknown")
