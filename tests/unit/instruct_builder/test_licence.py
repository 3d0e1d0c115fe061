"""The strictest licence rules."""

from __future__ import annotations

import pytest

from instruct_builder.licence import derive_licence, strictness
from instruct_builder.manifest import LicenceFact, SourceFact, TeacherFact

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


def source(name: str, licence: str, terms: str = "") -> SourceFact:
    return SourceFact(name=name, licence=licence, may_train=True, terms=terms)


def teacher(name: str = "rehearsal", licence: str = "Apache-2.0", terms: str = "") -> TeacherFact:
    return TeacherFact(name=name, simulated=False, chains=1, licence=licence, terms=terms)


def derive(*sources: SourceFact, teachers: tuple[TeacherFact, ...] = ()) -> LicenceFact:
    return derive_licence(sources, teachers or (teacher(),))


def test_licences_are_ordered_from_the_freest_to_the_strictest() -> None:
    ranks = [strictness(licence) for licence in FREEST_FIRST]
    assert ranks == sorted(set(ranks))


@pytest.mark.parametrize("free", FREEST_FIRST[:-1])
def test_one_unknown_licence_makes_the_whole_set_unknown(free: str) -> None:
    derived = derive(source("open", free), source("attic", "unknown"))
    assert derived.statement == ("unknown: nobody said under which terms source attic may be used")
    assert "attic" in derived.because


def test_a_teacher_whose_terms_nobody_said_makes_the_whole_set_unknown() -> None:
    derived = derive(source("open", "CC0-1.0"), teachers=(teacher("some-model", "unknown"),))
    assert derived.statement == (
        "unknown: nobody said under which terms teacher some-model may be used"
    )


def test_the_strictest_part_is_named() -> None:
    derived = derive(source("a", "CC0-1.0"), source("b", "CC-BY-NC-4.0"))
    assert derived.statement == "CC-BY-NC-4.0"
    assert derived.because == (
        "the licence of source b; it is the strictest among 2 sources and 1 teacher"
    )
    by_teacher = derive(source("a", "CC0-1.0"))
    assert by_teacher.because.startswith("the licence of teacher rehearsal; ")


def test_what_is_asked_beyond_a_licence_holds_for_the_set() -> None:
    derived = derive(
        source("a", "CC0-1.0", "name the photographer"),
        source("b", "CC0-1.0"),
        teachers=(teacher(terms="not to train competing models"),),
    )
    assert derived.conditions == (
        "source a: name the photographer",
        "teacher rehearsal: not to train competing models",
    )


def test_a_statement_may_name_several_licences() -> None:
    demo = "CC-BY-2.0: a flower; CC0-1.0: a cat; public domain: a rocket"
    assert strictness(demo) == strictness("CC-BY-2.0")
    assert strictness("permitted for all") == strictness("unknown")
