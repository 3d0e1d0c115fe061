"""Each check finds what it is there to find, in the plan and in the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core.errors import PermanentError
from core.records import Authenticity, Split
from instruct_builder.checks import (
    Balance,
    Checks,
    Figures,
    NameFinder,
    NoNames,
    Options,
    Planned,
    RightAnswers,
    Splits,
    UniqueRows,
)
from instruct_builder.forms import CASES
from instruct_builder.plan import Turns
from instruct_builder.shards import ROW_SCHEMA
from instruct_builder.words import Words
from tests.unit.instruct_builder.specimens import (
    Pair,
    images_of,
    make_pair,
    make_pairs,
    plan_of,
    recipe,
    table_of,
    templates,
)
from tests.unit.records import make_image

PAIRS = make_pairs(80)
NAMES = ("rehearsal", "demo", "sim-nearest")
NAMING = (
    "It looks like SIM-Nearest made it.",
    "The rehearsal, it says.",
    "See demo.",
    f"The file is {make_image('image 0').sha256}.",
    f"This is {make_image('image 0').image_id}.",
)
FORMS = [name for _, name, _ in templates().forms()]
Row = dict[str, Any]


def finder(*names: str) -> NameFinder:
    return NameFinder(names or NAMES, templates(), recipe().taxonomy)


def planned_of(
    pairs: Sequence[Pair], change: Callable[[Turns], Turns] = lambda turns: turns
) -> Planned:
    """The plan of these chains, its turns changed."""
    plan, chains = plan_of(pairs)
    words = Words(templates(), recipe().taxonomy)
    changed = replace(plan, turns=change(plan.turns))
    return Planned(changed, chains, images_of(pairs), words)


def run(check: Any, planned: Planned | None = None, table: pa.Table | None = None) -> Figures:
    checks = Checks([check])
    if planned is not None:
        checks.see_plan(planned)
    if table is not None:
        checks.see_rows(table)
    return checks.facts()[check.name].figures


def change_first(form: str, change: Callable[[Row], Row], table: pa.Table) -> pa.Table:
    """The same rows, the first of a form changed."""
    rows = table.to_pylist()
    place = next(place for place, row in enumerate(rows) if row["form"] == form)
    rows[place] = change(rows[place])
    return pa.Table.from_pylist(rows, schema=ROW_SCHEMA)


def say(answer: str, **changes: str) -> Callable[[Row], Row]:
    def change(row: Row) -> Row:
        messages = [*row["messages"][:-1], {"role": "assistant", "content": answer}]
        return {**row, **changes, "messages": messages}

    return change


def first_turn(planned: Planned, form: str) -> int:
    return int(np.flatnonzero(planned.plan.turns.form == FORMS.index(form))[0])


def test_a_sound_set_passes_and_leaves_its_figures() -> None:
    planned, table = planned_of(PAIRS), table_of(PAIRS)
    rows = table.num_rows
    unique = run(UniqueRows(), planned, table)
    assert unique == {"rows": rows, "compared": rows, "repeated": 0, "threshold": 0}
    assert run(RightAnswers(templates()), planned, table)["wrong"] == 0
    assert run(Options(recipe().taxonomy), planned)["wrong"] == 0
    names = run(NoNames(finder()), planned, table)
    assert (names["chains"], names["found"]) == (len(PAIRS), 0)


@pytest.mark.parametrize("form", ["verdict_is_fake", "verdict_what", "aspect_trace", "aspect_free"])
def test_a_plan_with_a_turned_answer_is_found(form: str) -> None:
    turns = planned_of(PAIRS).plan.turns
    affirming = [
        code
        for code, case in enumerate(CASES)
        if case.label is Authenticity.FAKE and (case.present or form.startswith("verdict"))
    ]
    mine = (turns.form == FORMS.index(form)) & np.isin(turns.case, affirming)
    turn = int(np.flatnonzero(mine)[0])

    def turned(turns: Turns) -> Turns:
        """The answer that a chain of the other label would get."""
        case = turns.case.copy()
        own = CASES[case[turn]]
        case[turn] = CASES.index(replace(own, label=own.label.opposite))
        return replace(turns, case=case)

    with pytest.raises(PermanentError, match=rf"check 'polarity' failed.*of form {form}"):
        run(RightAnswers(templates()), planned_of(PAIRS, turned))


@pytest.mark.parametrize("text", ["Real or fake, who knows.", "Well."])
def test_an_answer_whose_text_says_something_else_is_found(text: str) -> None:
    fakes = [make_pair(f"fake {n}") for n in range(8)]
    table = change_first("verdict_what", say(text), table_of(fakes))
    with pytest.raises(PermanentError, match=r"check 'polarity' failed.*of form verdict_what"):
        run(RightAnswers(templates()), table=table)


def test_a_wrong_letter_and_a_wrong_option_are_found() -> None:
    turn = first_turn(planned_of(PAIRS), "aspect_choice")

    def letter(turns: Turns) -> Turns:
        right = turns.right.copy()
        right[turn] = (right[turn] + 1) % 4
        return replace(turns, right=right)

    def option(turns: Turns) -> Turns:
        shown = turns.shown.copy()
        shown[turn, 0] = shown[turn, 1]
        return replace(turns, shown=shown)

    for change in (letter, option):
        with pytest.raises(PermanentError, match=r"check 'options' failed.*of form aspect_choice"):
            run(Options(recipe().taxonomy), planned_of(PAIRS, change))


def test_an_id_twice_and_a_conversation_twice_are_found() -> None:
    plan, chains = plan_of(PAIRS[:8])
    upper, lower = plan.upper.copy(), plan.lower.copy()
    upper[1], lower[1] = upper[0], lower[0]
    changed, words = replace(plan, upper=upper, lower=lower), Words(templates(), recipe().taxonomy)
    planned = Planned(changed, chains, images_of(PAIRS[:8]), words)
    with pytest.raises(PermanentError, match=r"check 'unique' failed.*by its id"):
        run(UniqueRows(), planned)
    table = table_of(PAIRS[:8])
    with pytest.raises(PermanentError, match=r"check 'unique' failed.*instruction ins-"):
        run(UniqueRows(), table=pa.concat_tables([table, table.slice(0, 1)]))


@pytest.mark.parametrize("text", NAMING)
def test_a_name_in_a_text_is_found(text: str) -> None:
    table = change_first("holistic_inference", say(text), table_of(PAIRS[:1]))
    with pytest.raises(PermanentError, match="check 'names' failed"):
        run(NoNames(finder()), table=table)


@pytest.mark.parametrize("text", NAMING)
@pytest.mark.parametrize("where", ["evidence", "conclusion"])
def test_a_name_in_a_chain_is_found_though_no_row_is_read(where: str, text: str) -> None:
    chain, image = make_pair("image 0")
    said = chain.reasoning
    first, *others = said.findings
    named = (
        replace(said, findings=(replace(first, evidence=text), *others))
        if where == "evidence"
        else replace(said, conclusion=text)
    )
    planned = planned_of([*PAIRS[1:3], (replace(chain, reasoning=named), image)])
    with pytest.raises(PermanentError, match=rf"check 'names' failed.*{chain.chain_id} names"):
        run(NoNames(finder()), planned)


def test_as_many_may_be_found_as_the_recipe_allows() -> None:
    table = change_first("holistic_inference", say("See demo."), table_of(PAIRS[:1]))
    twice = pa.concat_tables([table, table.slice(0, 1)])
    assert run(NoNames(finder(), most=1), table=table)["found"] == 1
    assert run(UniqueRows(most=1), table=twice)["repeated"] == 1
    with pytest.raises(PermanentError, match="check 'unique' failed"):
        run(UniqueRows(), table=twice)


def test_parts_of_words_and_words_of_the_recipe_are_no_names() -> None:
    found = finder("demo", "texture", "photograph")
    assert found.exempt == ("photograph", "texture")
    assert found.find("A democratic view of texture in a photograph.", "img-1", "a/b.jpg") is None


@pytest.mark.parametrize("kind", ["image", "cluster", "group", "held-out generator"])
def test_whatever_is_in_two_splits_is_found(kind: str) -> None:
    first, second = make_image("first"), make_image("second", generator="sim-damped")
    if kind == "image":
        second = replace(second, image_id=first.image_id)
    if kind in ("cluster", "group"):
        second = replace(second, **{kind: getattr(first, kind)})
    holdout = ["sim-damped"] if kind == "held-out generator" else []
    check = Splits([(first, Split.TEST), (second, Split.TRAIN)], holdout)
    with pytest.raises(PermanentError, match=rf"'splits' failed.*{kind} .*in test and train"):
        Checks([check]).facts()


def test_splits_that_part_nothing_pass() -> None:
    pairs = [(make_image("first"), Split.TEST), (make_image("second"), Split.TRAIN)]
    assert Splits(pairs, []).failures() == []
    assert Splits(pairs, []).figures() == {
        "images": 2,
        "clusters": 2,
        "groups": 2,
        "in_two_splits": 0,
        "threshold": 0,
    }


def test_what_is_not_even_is_reported_and_fails_nothing() -> None:
    fakes = [make_pair(f"image {n}", Authenticity.FAKE) for n in range(30)]
    uneven = str(run(Balance(templates()), planned_of(fakes))["uneven"]).split(", ")
    assert {"verdict_what", "label.verdict", "verdict_is_fake"} <= set(uneven)
    even = run(Balance(templates()), planned_of(PAIRS))
    assert abs(float(even["verdict.yes"]) - 0.5) < 0.1
