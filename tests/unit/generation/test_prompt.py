"""What a teacher is sent, and what it is never sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import pytest

from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE, Arm, Demonstrations, Recipe, load_recipe
from core.records import Authenticity, Exemplar
from generation.prompt import (
    choose_demonstrations,
    prompt_version,
    render_request,
    reply_schema,
)
from teacher.rehearsal import load_rehearsal
from teacher.request import request_hash, worst_case_tokens
from tests.unit.records import make_image
from tests.unit.teacher.scripted import draw_jpeg

RECIPE = load_recipe()
ARM = RECIPE.arm("main")
VANILLA = ARM.model_copy(update={"name": "plain", "mode": "vanilla"})
QUESTION = "{% block question %}{% endblock %}"
IMAGE = make_image(
    "secret-name", generator="secret-generator", source="secret-source", group="secret-group"
)


def test_the_known_label_is_told() -> None:
    for label in Authenticity:
        image = make_image("x", label=label)
        request = render_request(image, b"pixels", recipe=RECIPE, arm=ARM)
        assert f"Known authenticity: {label}\n" in request.question


def test_name_source_group_and_generator_never_leave() -> None:
    request = render_request(IMAGE, b"pixels", recipe=RECIPE, arm=ARM)
    assert "secret" not in request.instructions + request.question


def test_the_instructions_are_the_same_for_every_image() -> None:
    first = render_request(make_image("a"), b"a", recipe=RECIPE, arm=ARM)
    second = render_request(make_image("b", label=Authenticity.REAL), b"b", recipe=RECIPE, arm=ARM)
    assert first.instructions == second.instructions
    assert first.question != second.question


def test_every_trace_category_stands_in_the_instructions_and_in_the_schema() -> None:
    request = render_request(IMAGE, b"pixels", recipe=RECIPE, arm=ARM)
    schema = reply_schema(RECIPE.taxonomy)
    allowed = schema["properties"]["findings"]["items"]["properties"]["category"]["enum"]
    assert allowed == list(RECIPE.taxonomy.ids)
    assert all(f"- {name} (" in request.instructions for name in RECIPE.taxonomy.ids)
    assert json.loads(request.reply_schema) == schema


def with_drafting(**changes: object) -> Recipe:
    """The shipped recipe with other settings of drafting."""
    drafting = RECIPE.settings.drafting.model_copy(update=changes)
    settings = RECIPE.settings.model_copy(update={"drafting": drafting})
    return RECIPE.model_copy(update={"settings": settings})


def instructions(recipe: Recipe, arm: Arm = ARM, guidance: Sequence[str] = ()) -> str:
    return render_request(IMAGE, b"pixels", recipe=recipe, arm=arm, guidance=guidance).instructions


def test_guidance_of_experts_stands_in_the_question_and_decides_the_demonstrations() -> None:
    guidance = ["texture", "anatomy"]
    request = render_request(IMAGE, b"pixels", recipe=RECIPE, arm=ARM, guidance=guidance)
    chosen = choose_demonstrations(RECIPE, ARM, guidance=guidance)
    assert "did not know the authenticity chose these trace categories: texture, anatomy\n" in (
        request.question
    )
    assert [e.exemplar_id for e in chosen.exemplars] == ["sim-fake-portrait", "sim-real-portrait"]
    assert all(e.description in request.instructions for e in chosen.exemplars)


def test_without_guidance_one_demonstration_of_either_label_is_shown() -> None:
    labels = [e.label for e in choose_demonstrations(RECIPE, ARM).exemplars]
    assert labels == [Authenticity.FAKE, Authenticity.REAL]
    assert instructions(RECIPE).count("\nDemonstration ") == 2


def test_guidance_of_the_recipe_is_not_said_to_be_the_experts() -> None:
    recipe = with_drafting(guidance=("layout", "edge"))
    question = render_request(IMAGE, b"pixels", recipe=recipe, arm=ARM).question
    assert "No expert has chosen" in question
    assert "Look above all at these: edge, layout\n" in question


def test_guidance_by_all_categories_shows_every_one_of_them() -> None:
    chosen = choose_demonstrations(with_drafting(guidance="all"), ARM)
    shown = {category for exemplar in chosen.exemplars for category in exemplar.categories}
    assert shown == set(RECIPE.taxonomy.ids)
    assert chosen.uncovered == ()


def test_the_shipped_exemplars_are_simulated_and_the_teacher_is_told() -> None:
    assert len(RECIPE.exemplars) == 6
    assert sum(exemplar.label is Authenticity.FAKE for exemplar in RECIPE.exemplars) == 3
    assert all(e.simulated and e.exemplar_id.startswith("sim-") for e in RECIPE.exemplars)
    assert instructions(RECIPE).count("an imagined (simulated) image that is") == 2


@pytest.mark.parametrize("exemplar", RECIPE.exemplars, ids=lambda exemplar: exemplar.exemplar_id)
def test_a_shipped_exemplar_has_the_published_style(exemplar: Exemplar) -> None:
    """The verdict, then `because`, then one numbered point per category."""
    opening, *points = exemplar.description.splitlines()
    assert f" is {exemplar.label}, because " in opening
    assert [point.split()[0] for point in points] == [
        f"{number}." for number in range(1, len(exemplar.categories) + 1)
    ]


def test_categories_that_no_exemplar_shows_are_named() -> None:
    pair = tuple(e for e in RECIPE.exemplars if "portrait" in e.exemplar_id)
    recipe = with_drafting(guidance=("texture", "theme")).model_copy(update={"exemplars": pair})
    assert choose_demonstrations(recipe, ARM).uncovered == ("theme",)
    assert "None of them shows: theme\n" in instructions(recipe)


@pytest.mark.parametrize(
    "recipe",
    [
        RECIPE.model_copy(update={"exemplars": ()}),
        with_drafting(demonstrations=Demonstrations(use=False)),
    ],
    ids=["no exemplars", "not used"],
)
def test_without_exemplars_or_use_the_step_is_skipped(recipe: Recipe) -> None:
    assert choose_demonstrations(recipe, ARM).exemplars == ()
    assert "Demonstration" not in instructions(recipe)
    assert instructions(RECIPE).startswith(instructions(recipe))


def test_a_demonstration_is_text_and_never_run() -> None:
    described = [replace(e, description="{{ 7 * 7 }}") for e in RECIPE.exemplars]
    recipe = RECIPE.model_copy(update={"exemplars": tuple(described)})
    assert "{{ 7 * 7 }}" in instructions(recipe)


def test_demonstrations_are_part_of_the_request_and_of_its_worst_case() -> None:
    without = RECIPE.model_copy(update={"exemplars": ()})
    plain, shown = (
        render_request(IMAGE, b"pixels", recipe=recipe, arm=ARM) for recipe in (without, RECIPE)
    )
    text = "".join(e.description for e in choose_demonstrations(RECIPE, ARM).exemplars)
    assert request_hash(plain) != request_hash(shown)
    difference = worst_case_tokens(shown).prompt_tokens - worst_case_tokens(plain).prompt_tokens
    assert difference >= len(text) // 2


def test_the_rehearsal_answers_the_same_with_and_without_demonstrations() -> None:
    rehearsal = load_rehearsal(DEFAULT_RECIPE)
    recipes = [RECIPE, RECIPE.model_copy(update={"exemplars": ()}), with_drafting(guidance="all")]
    arms = [ARM, ARM, ARM, VANILLA]
    answers = [
        rehearsal.complete(render_request(IMAGE, draw_jpeg(), recipe=recipe, arm=arm))["choices"]
        for recipe, arm in zip([*recipes, RECIPE], arms, strict=True)
    ]
    assert answers[0][0]["message"]["content"]
    assert all(answer == answers[0] for answer in answers)


def test_vanilla_says_nothing_but_the_label_and_the_form_of_the_reply() -> None:
    recipe = with_drafting(guidance=("texture",))
    request = render_request(IMAGE, b"pixels", recipe=recipe, arm=VANILLA, guidance=["edge"])
    acoti = render_request(IMAGE, b"pixels", recipe=recipe, arm=ARM, guidance=["edge"])
    text = request.instructions + request.question
    assert "Known authenticity: fake\n" in request.question
    assert request.question == render_request(IMAGE, b"", recipe=RECIPE, arm=VANILLA).question
    assert not any(c.fake_hint in text or c.definition in text for c in RECIPE.taxonomy.categories)
    assert "emonstration" not in text
    assert request.reply_schema == acoti.reply_schema
    assert choose_demonstrations(recipe, VANILLA, guidance=["edge"]).exemplars == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{% block instructions %}{% endblock %}", "no block 'question'"),
        ("{% block instructions %}{{ nothing }}{% endblock %}" + QUESTION, "nothing"),
        ("{% block instructions %}{{ label }}{% endblock %}" + QUESTION, "'label' is undefined"),
        ("{% block instructions %}{% endblok %}" + QUESTION, "endblok"),
        ("{% block instructions %}{{ ''.__class__.__mro__ }}{% endblock %}" + QUESTION, "unsafe"),
    ],
)
def test_a_bad_prompt_is_named(text: str, problem: str) -> None:
    recipe = RECIPE.model_copy(update={"prompts": {"acoti": text}})
    with pytest.raises(ConfigError, match=rf"prompts/acoti\.jinja.*{problem}"):
        render_request(IMAGE, b"pixels", recipe=recipe, arm=ARM)


def test_the_version_follows_the_text() -> None:
    changed = RECIPE.model_copy(update={"prompts": {"acoti": "other"}})
    assert prompt_version(RECIPE, ARM).startswith("acoti-")
    assert prompt_version(changed, ARM) != prompt_version(RECIPE, ARM)
