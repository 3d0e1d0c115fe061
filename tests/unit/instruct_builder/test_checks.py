"""Each check finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from core.errors import PermanentError
from core.records import Authenticity, Instruction, Message, Split
from instruct_builder.checks import (
    Balance,
    Check,
    Checks,
    NameFinder,
    NoNames,
    Options,
    RightAnswers,
    Splits,
    UniqueRows,
)
from instruct_builder.shards import Placed, rows_table
from tests.unit.instruct_builder.specimens import (
    make_pair,
    make_pairs,
    place_all,
    recipe,
    templates,
)
from tests.unit.records import make_image

PAIRS = make_pairs(40)
CHAINS = [chain for chain, _ in PAIRS]
NAMES = ("rehearsal", "demo", "sim-nearest")


def finder(*names: str) -> NameFinder:
    return NameFinder(names or NAMES, templates(), recipe().taxonomy)


def run(check: Check, placed: Sequence[Placed]) -> dict[str, int | float | str]:
    checks = Checks([check])
    checks.see(rows_table(placed))
    return checks.facts()[check.name].figures


def change_first(
    form: str, change: Callable[[Instruction], Instruction], placed: Sequence[Placed]
) -> list[Placed]:
    """The same rows, the first of a form changed."""
    changed: list[Placed] = []
    waiting = True
    for item in placed:
        rows = list(item.instructions)
        for number, row in enumerate(rows):
            if waiting and row.form == form:
                rows[number], waiting = change(row), False
        changed.append(replace(item, instructions=rows))
    assert not waiting
    return changed


def say(answer: str) -> Callable[[Instruction], Instruction]:
    def change(row: Instruction) -> Instruction:
        return replace(row, messages=(row.messages[0], Message(role="assistant", content=answer)))

    return change


def answer(target: str) -> Callable[[Instruction], Instruction]:
    return lambda row: replace(row, target=target)


def test_a_sound_set_passes_and_leaves_its_figures() -> None:
    placed = place_all(PAIRS)
    rows = sum(len(item.instructions) for item in placed)
    assert run(UniqueRows(), placed) == {"rows": rows, "repeated": 0}
    assert run(RightAnswers(templates(), CHAINS), placed)["wrong"] == 0
    assert run(Options(templates(), recipe().taxonomy, CHAINS), placed)["wrong"] == 0
    assert run(NoNames(finder()), placed)["found"] == 0


@pytest.mark.parametrize("form", ["verdict_is_fake", "verdict_what", "aspect_trace"])
def test_a_turned_answer_is_found(form: str) -> None:
    closed = templates().named[form][1].targets

    def turn(row: Instruction) -> Instruction:
        other = next(target for target in closed if target != row.target)
        return replace(say(f"{other.capitalize()}.")(row), target=other)

    with pytest.raises(PermanentError, match=rf"check 'polarity' failed.*of form {form}"):
        run(RightAnswers(templates(), CHAINS), change_first(form, turn, place_all(PAIRS)))


def test_an_answer_whose_text_says_something_else_is_found() -> None:
    for text in ("Real or fake, who knows.", "Well."):
        placed = change_first("verdict_what", say(text), place_all(PAIRS[1:2]))
        with pytest.raises(PermanentError, match="polarity"):
            run(RightAnswers(templates(), CHAINS), placed)


def test_a_wrong_letter_is_found() -> None:
    def shift(row: Instruction) -> Instruction:
        return answer("A" if row.target != "A" else "B")(row)

    placed = change_first("aspect_choice", shift, place_all(PAIRS))
    with pytest.raises(PermanentError, match="check 'options' failed"):
        run(Options(templates(), recipe().taxonomy, CHAINS), placed)


def test_a_distractor_that_is_a_finding_is_found() -> None:
    pair = make_pair("image", categories=["texture"])
    more = make_pair("image", categories=["texture", *recipe().taxonomy.ids[1:]])[0]
    with pytest.raises(PermanentError, match="check 'options' failed"):
        run(Options(templates(), recipe().taxonomy, [more]), place_all([pair]))


def test_an_id_twice_and_a_conversation_twice_are_found() -> None:
    placed = place_all(PAIRS)
    with pytest.raises(PermanentError, match="check 'unique' failed"):
        run(UniqueRows(), [*placed, placed[0]])
    again = [
        replace(row, instruction_id=f"{row.instruction_id}x") for row in placed[0].instructions
    ]
    with pytest.raises(PermanentError, match="check 'unique' failed"):
        run(UniqueRows(), [replace(placed[0], instructions=[*placed[0].instructions, *again])])


@pytest.mark.parametrize(
    "text",
    [
        "It looks like SIM-Nearest made it.",
        "The rehearsal, it says.",
        "See demo.",
        f"The file is {make_image('image 0').sha256}.",
        f"This is {make_image('image 0').image_id}.",
    ],
)
def test_a_name_in_a_text_is_found(text: str) -> None:
    placed = change_first("holistic_inference", say(text), place_all(PAIRS[:1]))
    with pytest.raises(PermanentError, match="check 'names' failed"):
        run(NoNames(finder()), placed)


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
    }


def test_what_is_not_even_is_reported_and_fails_nothing() -> None:
    fakes = [make_pair(f"image {n}", Authenticity.FAKE) for n in range(30)]
    uneven = str(run(Balance(templates()), place_all(fakes))["uneven"]).split(", ")
    assert {"verdict_what", "label.verdict", "verdict_is_fake", "aspect_trace"} <= set(uneven)
    assert "verdict" not in uneven
    even = run(Balance(templates()), place_all(PAIRS))
    assert even["verdict.yes"] == 0.5
    assert "verdict_what" not in str(even["uneven"])
