"""A form that could go wrong on some chain is refused when the recipe is read."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pydantic import ValidationError

from core.errors import ConfigError
from core.recipe import Recipe, parse_model
from core.records import Authenticity, Confidence
from instruct_builder.forms import Case, Form, first_target, first_targets
from instruct_builder.patterns import parse_pattern
from instruct_builder.templates import Family, read_templates
from tests.unit.instruct_builder.specimens import recipe, templates

OPEN = {"scope": "image", "answer": "open", "questions": ["Why?"]}
VERDICT = {"scope": "image", "answer": "verdict", "questions": ["Real or fake?"]}
YES_NO = {"scope": "image", "answer": "yes_no", "asks": "fake", "questions": ["Is it fake?"]}
ASPECT = {"scope": "aspect", "answer": "open", "questions": ["And {aspect}?"]}
CHOICE = {"scope": "aspect", "answer": "choice", "questions": ["Which?\n{options}"]}
CHOICES = {**CHOICE, "answer": "choices"}
REGION = {"scope": "region", "answer": "open", "questions": ["What is {place}?"]}
PAIR = {"scope": "pair", "answer": "open", "questions": ["{aspect} or {second_aspect}?"]}


def make_form(kind: dict[str, Any], *patterns: str, **changes: Any) -> Form:
    return Form(**{**kind, "answers": [{"patterns": list(patterns)}], **changes})


def test_the_recipe_has_all_forms_with_enough_patterns() -> None:
    forms = {name: (family, form) for family, name, form in templates().forms()}
    assert set(templates().families) == {"verdict", "holistic", "fine_grained", "discussion"}
    for _, form in forms.values():
        assert len(form.questions) >= 10 if form.stands_alone else len(form.follow_ups) >= 7
    for _, form in forms.values():
        for case in form.cases():
            assert len(form.fitting(case, has_conclusion=False)) >= 2
            assert len(form.fitting(case, has_conclusion=True)) >= 4


def test_forms_that_give_the_verdict_away_are_marked() -> None:
    marked = {name for _, name, form in templates().forms() if form.states_verdict}
    assert marked == {
        "holistic_fault_finding",
        "holistic_authenticity",
        "discuss_generation_advice",
        "discuss_imitation",
    }
    fault_finding = templates().named["holistic_fault_finding"][1]
    assert fault_finding.opener == "This is a fake image, because"


def test_the_families_come_in_the_order_of_the_recipe() -> None:
    assert list(templates().families) == list(recipe().settings.build.rows_per_chain)


@pytest.mark.parametrize(
    ("kind", "patterns", "changes", "named"),
    [
        (OPEN, ["{findngs}"], {}, "no slot 'findngs' here; did you mean findings"),
        (OPEN, ["{aspect}"], {}, "no slot 'aspect' here"),
        (OPEN, ["{findings}"], {}, "no answer pattern for label real, findings none"),
        (OPEN, ["{conclusion}"], {}, "no answer pattern for label real, findings none"),
        (OPEN, ["Well."], {"questions": ["{aspect}?"]}, "no slot 'aspect' here"),
        (OPEN, ["Well."], {"absent": "any"}, "belong to forms of scope aspect"),
        (OPEN, ["Well."], {"opener": "Because"}, "does not start with the opener"),
        (OPEN, ["Well {verdict:>5}."], {}, "a slot is a name in braces"),
        (OPEN, ["Well {}."], {}, "a slot is a name in braces"),
        (OPEN, ["Well }."], {}, "Single '}'"),
        (OPEN, ["Well."], {"asks": "real"}, "`asks` belongs to yes_no forms"),
        (VERDICT, ["It is fake."], {}, "should answer real"),
        (VERDICT, ["{verdict}"], {"scope": "aspect"}, "a verdict is about the whole image"),
        (YES_NO, ["Yes."], {}, "should answer no for label real"),
        (YES_NO, ["Yes."], {"asks": None}, "`asks` belongs to yes_no forms"),
        (ASPECT, ["{evidence}"], {"absent": "any"}, "no answer pattern for .* finding absent"),
        (ASPECT, ["Well."], {"questions": ["And?"]}, "the question names no aspect"),
        (CHOICE, ["{evidence} {letter}."], {}, "should answer A"),
        (CHOICE, ["{letter}."], {"questions": ["{aspect}?"]}, "no slot 'aspect' here"),
        (CHOICE, ["{letter}."], {"questions": ["{options}?"]}, "does not end with a line"),
        (CHOICE, ["{letter}."], {"absent": "any"}, "no `absent`"),
        (CHOICES, ["{letter}."], {}, "no slot 'letter' here"),
        (CHOICES, ["These. {letters}."], {}, "should answer A and B"),
        (CHOICE, ["{letter}. {evidence}"], {"right": "absent"}, "no slot 'evidence' here"),
        (OPEN, ["Well."], {"right": "absent"}, "`right` belongs to choices"),
        (
            REGION,
            ["{evidence}"],
            {"questions": ["What is there?"]},
            "names no place, box",
        ),
        (REGION, ["Yes."], {"answer": "yes_no", "asks": "fake"}, "answered freely"),
        (PAIR, ["Both."], {"questions": ["{aspect}?"]}, "does not name both aspects"),
        (PAIR, ["{second_evidence}"], {}, "no answer pattern for .* second absent"),
        (OPEN, ["Well."], {"questions": []}, "has no `questions`"),
        (OPEN, ["Well."], {"negated": True}, "`negated`"),
        (ASPECT, ["Well."], {"rows": 0, "absent": "matched"}, "`rows` at least 1"),
    ],
)
def test_a_form_that_can_go_wrong_is_refused(
    kind: dict[str, Any], patterns: list[str], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValidationError, match=named):
        make_form(kind, *patterns, **changes)


def test_free_text_may_not_stand_before_a_closed_answer() -> None:
    answers = [{"patterns": ["{main_evidence} So it is {verdict}."]}]
    needs = {"findings": "some"}
    with pytest.raises(ValidationError, match="should answer real"):
        Form(**VERDICT, answers=answers, needs=needs)
    form = make_form(VERDICT, "It is {verdict}. {main_evidence}", needs=needs)
    assert first_target(form, "It is real. A fake shadow.") == "real"


@pytest.mark.parametrize(
    "name", ["verdict_what", "verdict_is_fake", "aspect_choice", "aspect_choices"]
)
def test_answers_are_read_alike_one_by_one_and_in_columns(name: str) -> None:
    form = templates().named[name][1]
    texts = [
        "Real. A fake shadow.", "unreal", "It is FAKE", "Yes, fake.", "yesterday", "Well, yes.",
        "No", "A. Texture", "a", "A and C. Both.", "A, B and D", "B and C", "",
        "\nYes", "Fäke fake",
    ]  # fmt: skip
    one_by_one = [first_target(form, text) for text in texts]
    assert first_targets(form, pa.array(texts)).to_pylist() == one_by_one
    assert any(one_by_one) and None in one_by_one


def test_an_unknown_key_is_named_with_the_right_one() -> None:
    content = {"forms": {"why": {**OPEN, "answer_s": []}}}
    with pytest.raises(ConfigError, match="unknown key, did you mean answers"):
        parse_model(content, Family, where="holistic.yaml")


def change_recipe(**changes: Any) -> Recipe:
    return recipe().model_copy(update=changes)


def test_shares_must_name_the_families_there_are() -> None:
    missing = {
        name: content for name, content in recipe().instructions.items() if name != "verdict"
    }
    with pytest.raises(ConfigError, match="no family 'verdict'; there are: discussion"):
        read_templates(change_recipe(instructions=missing))
    more = {**recipe().instructions, "poems": recipe().instructions["verdict"]}
    with pytest.raises(ConfigError, match="family 'poems' is missing; 0 leaves it out"):
        read_templates(change_recipe(instructions=more))


def test_form_names_must_differ_over_all_families() -> None:
    double = {**recipe().instructions, "holistic": recipe().instructions["verdict"]}
    with pytest.raises(ConfigError, match="form 'verdict_what' is in two families"):
        read_templates(change_recipe(instructions=double))


def test_inserted_text_is_never_read_as_a_pattern() -> None:
    assert parse_pattern("Seen: {evidence}").fill({"evidence": "{letter}"}) == "Seen: {letter}"


@pytest.mark.parametrize("label", Authenticity)
@pytest.mark.parametrize("asks", Authenticity)
def test_yes_means_that_the_label_is_the_one_asked_about(
    label: Authenticity, asks: Authenticity
) -> None:
    answers = [
        {"when": {"label": asks}, "patterns": ["Yes."]},
        {"when": {"label": asks.opposite}, "patterns": ["No."]},
    ]
    form = Form(**{**YES_NO, "asks": asks}, answers=answers)
    case = Case(label, has_findings=True, confidence=Confidence.HIGH)
    assert form.target(case) == ("yes" if label is asks else "no")


def with_dialogue(*turns: list[str]) -> Recipe:
    """The recipe with one more dialogue."""
    discussion = recipe().instructions["discussion"]
    dialogues = {**discussion["dialogues"], "talk": {"turns": turns}}
    changed = {**recipe().instructions, "discussion": {**discussion, "dialogues": dialogues}}
    return change_recipe(instructions=changed)


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        ((["verdict_what"], ["discuss_why"]), "there is no form 'discuss_why'"),
        (
            (["discuss_because"], ["discuss_doubt"]),
            "form discuss_because has no `questions`",
        ),
        ((["discuss_next_check"], ["verdict_what"]), "turn 2: form verdict_what is closed"),
        ((["aspect_trace"], ["discuss_because"]), "turn 1: form aspect_trace may not stand there"),
        ((["verdict_what"], ["verdict_is_fake"], ["discuss_because"]), "turns 1 and 2 ask"),
        ((["discuss_certainty"], ["verdict_what"], ["discuss_because"]), "gives the verdict away"),
        ((["aspect_narrative"], ["verdict_what"], ["discuss_because"]), "gives the verdict away"),
        ((["verdict_what"], ["discuss_imitation"]), "discuss_imitation states the verdict that"),
        ((["verdict_what"], ["discuss_doubt"], ["discuss_doubt"]), "stands there a second time"),
    ],
)
def test_a_dialogue_that_can_go_wrong_is_refused(
    turns: tuple[list[str], ...], problem: str
) -> None:
    with pytest.raises(ConfigError, match=f"dialogue talk.*{problem}"):
        read_templates(with_dialogue(*turns))


def test_nothing_but_hints_may_stand_before_a_verdict_question() -> None:
    turns = (["discuss_next_check"], ["verdict_what"], ["discuss_because"])
    assert "talk" in {name for _, name, _ in read_templates(with_dialogue(*turns)).dialogues()}


def test_a_question_stands_once_in_the_whole_recipe() -> None:
    verdict = recipe().instructions["verdict"]
    twice = {**verdict["forms"], "again": verdict["forms"]["verdict_what"]}
    changed = {**recipe().instructions, "verdict": {"forms": twice}}
    with pytest.raises(ConfigError, match=r"question 'Is this image real or fake\?' is in form"):
        read_templates(change_recipe(instructions=changed))
