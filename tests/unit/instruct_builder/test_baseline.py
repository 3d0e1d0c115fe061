"""The text-only baseline finds what a question, an option or an earlier turn gives away."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from core.errors import PermanentError
from instruct_builder.baseline import TextBaseline, read_options
from instruct_builder.checks import Figures
from tests.unit.instruct_builder.samples import Row, facts_of, sampled
from tests.unit.instruct_builder.specimens import recipe, templates

NUMBER = 600
LABELS = ("real", "fake")
QUESTIONS = templates().named["verdict_what"][1].questions
NAMES = [category.name.capitalize() for category in recipe().taxonomy.categories]
COMPONENT_OF = {f"img-{n}": f"group {n // 2}" for n in range(NUMBER)}


def run(rows: Iterator[Row] | list[Row], *, most_auc: float = 0.55) -> Figures:
    check = TextBaseline(templates(), COMPONENT_OF, most_auc=most_auc)
    return facts_of(check, sampled(list(rows)))


def verdicts(question_of: Callable[[random.Random, str], str]) -> Iterator[Row]:
    draw = random.Random(1)
    for n in range(NUMBER):
        label = draw.choice(LABELS)
        turns = (question_of(draw, label), f"{label.capitalize()}.")
        yield Row(image_id=f"img-{n}", turns=turns, target=label, label=label)


def test_questions_that_lean_to_neither_side_pass() -> None:
    figures = run(verdicts(lambda draw, label: draw.choice(QUESTIONS)))
    assert figures["verdict_what: rows"] == NUMBER
    assert figures["verdict_what: low"] < 0.5 < figures["verdict_what: high"]
    assert figures["threshold"] == 0.55


def test_a_pattern_that_is_used_more_for_fakes_is_found() -> None:
    rows = verdicts(
        lambda draw, label: draw.choice(QUESTIONS[:9] if label == "fake" else QUESTIONS)
    )
    with pytest.raises(
        PermanentError,
        match=r"form verdict_what: AUC 0\.\d+, 95 % interval .* threshold 0\.55; word",
    ):
        run(rows)


def aspect_rows(share_of_yes: Callable[[int], float]) -> Iterator[Row]:
    draw = random.Random(2)
    for n in range(NUMBER):
        place = draw.randrange(len(NAMES))
        target = "yes" if draw.random() < share_of_yes(place) else "no"
        question = f"Is there a trace of generation when it comes to {NAMES[place].lower()}?"
        turns = (question, f"{target.capitalize()}.")
        yield Row(image_id=f"img-{n}", turns=turns, form="aspect_trace", target=target)


def test_an_aspect_that_is_mostly_answered_with_yes_is_found() -> None:
    run(aspect_rows(lambda place: 0.5))
    with pytest.raises(PermanentError, match=r"form aspect_trace: .*absent: matched"):
        run(aspect_rows(lambda place: 0.8 if place < 7 else 0.2))


def choices(right: Callable[[random.Random], int], wrong: list[int], form: str) -> Iterator[Row]:
    draw = random.Random(3)
    for n in range(NUMBER):
        place = right(draw)
        shown = draw.sample([other for other in wrong if other != place], 3)
        letter = draw.randrange(4)
        shown.insert(letter, place)
        options = "\n".join(f"{'ABCD'[i]}. {NAMES[other]}" for i, other in enumerate(shown))
        question = f"Which of these aspects holds the evidence?\n{options}"
        target = "ABCD"[letter]
        turns = (question, f"{target}.")
        yield Row(image_id=f"img-{n}", turns=turns, form=form, target=target)


def test_options_that_are_right_as_often_as_others_pass() -> None:
    figures = run(choices(lambda draw: draw.randrange(15), list(range(15)), "aspect_choice"))
    assert figures["aspect_choice, each option: rows"] == 4 * NUMBER
    assert figures["aspect_choice, option in its question: low"] < 0.55


def test_an_option_that_is_never_wrong_is_found() -> None:
    rows = choices(lambda draw: draw.randrange(5), list(range(4, 15)), "aspect_choice")
    with pytest.raises(PermanentError, match=r"form aspect_choice, each option: .*rarely a wrong"):
        run(rows)


def test_options_are_read_with_their_place_and_their_neighbours() -> None:
    question = "Which?\nA. Texture\nB. Light and shadow\nC. Edges\nD. Shape"
    options = list(read_options(question, "B and D"))
    assert [option.is_right for option in options] == [False, True, False, True]
    assert options[1].alone == "light and shadow at:B"
    assert set(options[0].among.split()) > {"texture", "at:A", "asked:which?", "beside:shadow"}


def talks(before: Callable[[random.Random, str], tuple[str, ...]]) -> Iterator[Row]:
    draw = random.Random(4)
    for n in range(NUMBER):
        label = draw.choice(LABELS)
        verdict = (draw.choice(QUESTIONS), f"{label.capitalize()}.", "Why?", "Look at it.")
        turns = (*before(draw, label), *verdict)
        yield Row(image_id=f"img-{n}", turns=turns, form="dialogue_checks_first", label=label)


def test_a_turn_before_the_verdict_question_that_gives_it_away_is_found() -> None:
    signs = {"fake": "Look at texture, that is smooth.", "real": "Look at texture, that has grain."}
    fair = run(talks(lambda draw, label: ("What next?", signs[draw.choice(LABELS)])))
    assert fair["dialogue_checks_first: rows"] == NUMBER
    with pytest.raises(PermanentError, match=r"form dialogue_checks_first: .*before the verdict"):
        run(talks(lambda draw, label: ("What next?", signs[label])))


def test_what_is_said_after_the_verdict_counts_for_nothing() -> None:
    rows = [
        Row(image_id=row.image_id, turns=(*row.turns[:2], "Why?", f"It is {row.label}."),
            form="dialogue_short", label=row.label)
        for row in verdicts(lambda draw, label: draw.choice(QUESTIONS))
    ]  # fmt: skip
    assert run(rows)["dialogue_short: low"] < 0.5


def test_forms_that_state_the_verdict_are_exempt() -> None:
    rows = [
        Row(image_id=f"img-{n}", turns=("This image is fake. What shows it?", "This."),
            form="holistic_fault_finding", template="holistic_fault_finding/q01/a01")
        for n in range(NUMBER)
    ]  # fmt: skip
    figures = run(rows)
    assert figures == {"threshold": 0.55, "exempt_forms": 4}


def test_few_rows_are_reported_as_too_few() -> None:
    rows = list(verdicts(lambda draw, label: f"This {label} image is what?"))[:150]
    assert run(rows)["verdict_what"] == "too few: 150 rows"


def test_a_form_with_one_answer_is_reported() -> None:
    rows = (
        Row(image_id=f"img-{n}", turns=(QUESTIONS[n % 10], "Fake."), target="fake")
        for n in range(NUMBER)
    )
    assert run(rows)["verdict_what"] == "one answer only"
