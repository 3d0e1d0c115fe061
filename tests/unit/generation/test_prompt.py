"""What a teacher is sent, and what it is never sent."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import ConfigError
from core.ids import sha256_bytes
from core.recipe import DEFAULT_RECIPE, Arm, Demonstrations, Recipe, Views, load_recipe
from core.records import Authenticity, Exemplar, Picture
from generation.prompt import (
    choose_demonstrations,
    printed_request,
    prompt_version,
    render,
    reply_schema,
)
from teacher.conclusions import told_label
from teacher.rehearsal import load_rehearsal
from teacher.request import payload_of, request_hash, worst_case_tokens
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
        request = render(image, b"pixels", recipe=RECIPE, arm=ARM).request
        assert f"Known authenticity: {label}\n" in request.question


def test_name_source_group_and_generator_never_leave() -> None:
    request = render(IMAGE, b"pixels", recipe=RECIPE, arm=ARM).request
    assert "secret" not in request.instructions + request.question


def test_the_instructions_are_the_same_for_every_image() -> None:
    first = render(make_image("a"), b"a", recipe=RECIPE, arm=ARM).request
    second = render(make_image("b", label=Authenticity.REAL), b"b", recipe=RECIPE, arm=ARM).request
    assert first.instructions == second.instructions
    assert first.question != second.question


def test_every_trace_category_stands_in_the_instructions_and_in_the_schema() -> None:
    request = render(IMAGE, b"pixels", recipe=RECIPE, arm=ARM).request
    schema = reply_schema(RECIPE.taxonomy)
    allowed = schema["properties"]["findings"]["items"]["properties"]["category"]["enum"]
    assert allowed == list(RECIPE.taxonomy.ids)
    assert all(f"- {name} (" in request.instructions for name in RECIPE.taxonomy.ids)
    assert json.loads(request.reply_schema) == schema


def draw_picture(width: int, height: int, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def with_drafting(**changes: object) -> Recipe:
    """The shipped recipe with other settings of drafting."""
    drafting = RECIPE.settings.drafting.model_copy(update=changes)
    settings = RECIPE.settings.model_copy(update={"drafting": drafting})
    return RECIPE.model_copy(update={"settings": settings})


def instructions(recipe: Recipe, arm: Arm = ARM, guidance: Sequence[str] = ()) -> str:
    return render(IMAGE, b"pixels", recipe=recipe, arm=arm, guidance=guidance).request.instructions


def test_guidance_of_experts_stands_in_the_question_and_decides_the_demonstrations() -> None:
    guidance = ["texture", "anatomy"]
    request = render(IMAGE, b"pixels", recipe=RECIPE, arm=ARM, guidance=guidance).request
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
    question = render(IMAGE, b"pixels", recipe=recipe, arm=ARM).request.question
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
        render(IMAGE, b"pixels", recipe=recipe, arm=ARM).request for recipe in (without, RECIPE)
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
        rehearsal.complete(render(IMAGE, draw_jpeg(), recipe=recipe, arm=arm).request)["choices"]
        for recipe, arm in zip([*recipes, RECIPE], arms, strict=True)
    ]
    assert answers[0][0]["message"]["content"]
    assert all(answer == answers[0] for answer in answers)


def test_vanilla_says_nothing_but_the_label_and_the_form_of_the_reply() -> None:
    recipe = with_drafting(guidance=("texture",))
    request = render(IMAGE, b"pixels", recipe=recipe, arm=VANILLA, guidance=["edge"]).request
    acoti = render(IMAGE, b"pixels", recipe=recipe, arm=ARM, guidance=["edge"]).request
    text = request.instructions + request.question
    assert "Known authenticity: fake\n" in request.question
    assert request.question == render(IMAGE, b"", recipe=RECIPE, arm=VANILLA).request.question
    assert not any(c.fake_hint in text or c.definition in text for c in RECIPE.taxonomy.categories)
    assert "emonstration" not in text
    assert request.reply_schema == acoti.reply_schema
    assert choose_demonstrations(recipe, VANILLA, guidance=["edge"]).exemplars == ()


def test_by_default_the_stored_bytes_are_sent_without_a_caption_and_recorded() -> None:
    rendered = render(IMAGE, b"pixels", recipe=RECIPE, arm=ARM)
    (picture,) = rendered.request.pictures
    assert picture == Picture(data=b"pixels", media_type="image/jpeg", detail="high")
    assert [view.name for view in rendered.seen] == ["whole"]
    assert rendered.bytes_sent == len(b"pixels")
    assert rendered.prompt_version == prompt_version(RECIPE, ARM.mode)


@pytest.mark.parametrize("arm", [ARM, VANILLA], ids=["acoti", "vanilla"])
def test_captions_say_what_a_thumbnail_and_crops_are(arm: Arm) -> None:
    large = make_image("large", width=300, height=200)
    views = Views(thumbnail=100, crops=2, crop_size=64)
    data = draw_picture(300, 200)
    rendered = render(large, data, recipe=RECIPE, arm=arm.model_copy(update={"views": views}))
    thumbnail, *crops = rendered.request.judged
    assert thumbnail.caption == "The whole image, 300 x 200 pixels, shown with 100 x 67:"
    for view, crop in zip(rendered.seen[1:], crops, strict=True):
        assert "full resolution: 64 x 64 pixels" in crop.caption
        assert f"{view.left} pixels from the left and {view.top} from the top" in crop.caption
        assert view.sha256 == crop.sha256
    assert rendered.bytes_sent == sum(len(p.data) for p in rendered.request.pictures) != len(data)
    whole = render(large, data, recipe=RECIPE, arm=arm).request
    assert (whole.instructions, whole.question) == (
        rendered.request.instructions,
        rendered.request.question,
    )


def test_the_rehearsal_measures_the_thumbnail_and_counts_the_crops() -> None:
    rehearsal = load_rehearsal(DEFAULT_RECIPE)
    large = make_image("large", width=300, height=200)
    views = Views(thumbnail=128, crops=2, crop_size=64)
    arm = ARM.model_copy(update={"views": views})
    request = render(large, draw_picture(300, 200), recipe=RECIPE, arm=arm).request
    completion = rehearsal.complete(request)
    assert json.loads(completion["choices"][0]["message"]["content"])["verdict"] == "fake"
    tokens = completion["usage"]["prompt_tokens_details"]["image_tokens"]
    assert tokens == 4 * 3 + 2 * (2 * 2)


def with_exemplar_pictures(**pictures: bytes) -> Recipe:
    by_id = {name.replace("_", "-"): data for name, data in pictures.items()}
    return RECIPE.model_copy(update={"exemplar_pictures": by_id})


def test_exemplar_pictures_come_before_the_question_without_metadata_and_are_counted() -> None:
    shown = [e.exemplar_id for e in choose_demonstrations(RECIPE, ARM).exemplars]
    exif = Image.Exif()
    exif[0x010E] = "secret place"
    picture = draw_picture(80, 60, exif=exif)
    assert b"secret place" in picture
    recipe = with_exemplar_pictures(**{shown[1]: picture, "sim_other": b"never shown"})
    plain, rendered = (
        render(IMAGE, draw_jpeg(), recipe=chosen, arm=ARM) for chosen in (RECIPE, recipe)
    )
    (exemplar,) = rendered.request.exemplars
    assert b"secret place" not in exemplar.data
    assert exemplar.caption == "The image of demonstration 2, which is real:"
    content = payload_of(rendered.request)["messages"][1]["content"]
    assert [part["type"] for part in content] == ["text", "image_url", "text", "image_url"]
    assert content[2]["text"] == plain.request.question
    assert rendered.bytes_sent == plain.bytes_sent + len(exemplar.data)
    tokens = [worst_case_tokens(each.request).image_tokens for each in (plain, rendered)]
    assert tokens[1] > tokens[0]


def test_an_exemplar_picture_that_cannot_be_decoded_is_named() -> None:
    shown = choose_demonstrations(RECIPE, ARM).exemplars[0].exemplar_id
    with pytest.raises(ConfigError, match=f"the picture of exemplar {shown} cannot be used"):
        render(IMAGE, b"pixels", recipe=with_exemplar_pictures(**{shown: b"no picture"}), arm=ARM)


@pytest.mark.parametrize("arm", [ARM, VANILLA], ids=["acoti", "vanilla"])
def test_a_control_is_not_told_the_label(arm: Arm) -> None:
    blind = arm.model_copy(update={"control": True})
    requests = [
        render(make_image("x", label=label), b"pixels", recipe=RECIPE, arm=blind).request
        for label in Authenticity
    ]
    assert requests[0] == requests[1]
    text = requests[0].instructions + requests[0].question
    assert "nown authenticity" not in text
    assert "judge whether it is real or fake" in text
    assert told_label(requests[0].question) is None


def test_a_prompt_that_would_tell_a_control_the_label_is_refused() -> None:
    text = "{% block instructions %}{% endblock %}{% block question %}{{ label }}{% endblock %}"
    recipe = RECIPE.model_copy(update={"prompts": {"acoti": text}})
    with pytest.raises(ConfigError, match="'label' is undefined"):
        render(IMAGE, b"pixels", recipe=recipe, arm=ARM.model_copy(update={"control": True}))


def test_a_printed_request_is_what_is_sent_with_its_pictures_described() -> None:
    rendered = render(IMAGE, draw_jpeg(), recipe=RECIPE, arm=ARM)
    printed, sent = printed_request(rendered), payload_of(rendered.request)
    shown, picture = printed["messages"][1]["content"]
    assert shown == sent["messages"][1]["content"][0]
    digest = sha256_bytes(draw_jpeg())
    assert picture["image_url"] == {
        "url": f"data:image/jpeg;base64,... (128 x 128 pixels, {len(draw_jpeg())} bytes, "
        f"SHA-256 {digest})",
        "detail": "high",
    }
    assert {**printed, "messages": []} == {**sent, "messages": []}


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
        render(IMAGE, b"pixels", recipe=recipe, arm=ARM)


def test_the_version_follows_the_text() -> None:
    changed = RECIPE.model_copy(update={"prompts": {"acoti": "other"}})
    assert prompt_version(RECIPE, ARM.mode).startswith("acoti-")
    assert prompt_version(changed, ARM.mode) != prompt_version(RECIPE, ARM.mode)
