"""From an image record to the request that a teacher is sent. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.consensus import Vote
from core.errors import ConfigError, DataError
from core.ids import sha256_text
from core.recipe import Arm, Recipe
from core.records import (
    Authenticity,
    Confidence,
    Exemplar,
    ImageRecord,
    Picture,
    RequestText,
    TeacherRequest,
    View,
)
from core.taxonomy import Taxonomy
from core.topics import Topic
from generation.exemplars import Chosen, choose_exemplars
from imaging.decode import open_image
from imaging.views import MEDIA_TYPES, WHOLE, Shot, take_views
from teacher.request import payload_of, schema_text, shortened_url


class Prompt(NamedTuple):
    """A compiled `prompts/<name>.jinja`."""

    name: str
    template: Template
    variables: frozenset[str]
    """what the text speaks of"""

    def render(self, block: str, **values: Any) -> str:
        """One block of the text; a name that is not among the values is a ConfigError."""
        try:
            context = self.template.new_context(values)
            return "".join(self.template.blocks[block](context)).strip()
        except KeyError as error:
            raise ConfigError(f"prompts/{self.name}.jinja has no block {error}") from None
        except TemplateError as error:
            raise ConfigError(f"prompts/{self.name}.jinja, block {block}: {error}") from None


class Rendered(NamedTuple):
    """A request, and what a draft records of it."""

    request: TeacherRequest
    text: RequestText
    """all that is sent but the pictures"""
    prompt_version: str
    chosen: Chosen
    seen: tuple[View, ...]

    @property
    def bytes_sent(self) -> int:
        """Of all pictures, those of exemplars too."""
        return sum(len(picture.data) for picture in self.request.pictures)


def render(
    image: ImageRecord,
    data: bytes,
    *,
    recipe: Recipe,
    arm: Arm,
    guidance: Sequence[str] = (),
    topic: Topic | None = None,
    taxonomy: Taxonomy | None = None,
) -> Rendered:
    """The request for a draft of `image`, whose stored bytes are `data`.

    `guidance` names the categories that blind experts chose for this image, `topic` what it shows,
    and `taxonomy` the categories to look for; without it all of the recipe's. The true label is
    told to the teacher (FakeScope, ACoTI step 3), unless the arm is a control. The image's name,
    source and generator are not: they never reach a teacher. The instructions know nothing of the
    image, so that images with the same demonstrations share them and a teacher can cache them.
    """
    mode = recipe.mode_of(arm, image.generator)
    prompt = _compile(mode, recipe.prompts[mode])
    chosen = choose_demonstrations(recipe, arm, guidance=guidance)
    shots = take_views(image, data, arm.views)
    texts = _write_texts(
        prompt,
        taxonomy or recipe.taxonomy,
        chosen,
        topic=topic.name if topic else None,
        standing_guidance=recipe.guidance,
        guidance=tuple(guidance),
        label=None if arm.control else image.label,
    )
    request = TeacherRequest(
        model=arm.model,
        instructions=texts.instructions,
        question=texts.question,
        pictures=(
            *_exemplar_pictures(prompt, chosen.exemplars, recipe=recipe, detail=arm.detail),
            *_pictures(prompt, shots, detail=arm.detail),
        ),
        reply_schema=texts.reply_schema,
        temperature=arm.temperature,
        max_output_tokens=arm.max_output_tokens,
    )
    return Rendered(
        request=request,
        text=RequestText.of(request),
        prompt_version=prompt_version(recipe, mode),
        chosen=chosen,
        seen=tuple(shot.view for shot in shots),
    )


def render_sorting(image: ImageRecord, data: bytes, *, recipe: Recipe, arm: Arm) -> Rendered:
    """The request that asks which of the recipe's topics `image` has; its label is not told."""
    prompt = _compile(arm.mode, recipe.prompts[arm.mode])
    shots = take_views(image, data, arm.views)
    named = {"type": "string", "enum": [topic.id for topic in recipe.topics]}
    texts = Texts(
        instructions=prompt.render("instructions", topics=recipe.topics),
        question=prompt.render("question", topics=recipe.topics),
        reply_schema=schema_text(_closed_object({"topic": named})),
    )
    pictures = tuple(_pictures(prompt, shots, detail=arm.detail))
    return _rendered(texts, pictures, shots, recipe=recipe, arm=arm)


def render_merge(
    image: ImageRecord, kept: Sequence[Vote], *, recipe: Recipe, arm: Arm, num_drafts: int
) -> Rendered:
    """The request to word the points that were kept about `image`, of which no picture is sent.

    The question holds them as JSON, each with what its teachers said.
    """
    assert arm.merge is not None and image.label is not None
    prompt = _compile(arm.mode, recipe.prompts[arm.mode])
    opening = arm.merge.opens(image.label)
    points = [
        {
            "category": vote.category,
            "name": recipe.taxonomy[vote.category].name,
            "points_to": vote.points_to.value,
            "said": [finding.evidence for finding in vote.findings],
        }
        for vote in kept
    ]
    task = {"opening": opening, "points": points}
    told = {"label": image.label, "opening": opening, "num_drafts": num_drafts}
    texts = Texts(
        instructions=prompt.render("instructions", votes=arm.merge.votes),
        question=prompt.render("question", task=json.dumps(task, ensure_ascii=False), **told),
        reply_schema=schema_text(_merge_schema(recipe.taxonomy)),
    )
    return _rendered(texts, (), (), recipe=recipe, arm=arm)


def _rendered(
    texts: Texts,
    pictures: tuple[Picture, ...],
    shots: Sequence[Shot],
    *,
    recipe: Recipe,
    arm: Arm,
) -> Rendered:
    """A request without demonstrations."""
    request = TeacherRequest(
        model=arm.model,
        instructions=texts.instructions,
        question=texts.question,
        pictures=pictures,
        reply_schema=texts.reply_schema,
        temperature=arm.temperature,
        max_output_tokens=arm.max_output_tokens,
    )
    return Rendered(
        request=request,
        text=RequestText.of(request),
        prompt_version=prompt_version(recipe, arm.mode),
        chosen=Chosen(),
        seen=tuple(shot.view for shot in shots),
    )


def printed_request(rendered: Rendered) -> dict[str, Any]:
    """What would be sent, its pictures described instead of encoded."""
    return payload_of(rendered.request, shortened_url)


class Texts(NamedTuple):
    """The text of a request, which many images share."""

    instructions: str
    question: str
    reply_schema: str


@lru_cache(maxsize=256)
def _write_texts(
    prompt: Prompt,
    taxonomy: Taxonomy,
    chosen: Chosen,
    *,
    topic: str | None,
    standing_guidance: tuple[str, ...],
    guidance: tuple[str, ...],
    label: Authenticity | None,
) -> Texts:
    shared = {
        "categories": taxonomy.categories,
        "demonstrations": chosen.exemplars,
        "uncovered": chosen.uncovered,
        "standing_guidance": standing_guidance,
        "told": label is not None,
        **({"topic": topic} if topic else {}),
    }
    told = {"label": label} if label else {}
    return Texts(
        instructions=prompt.render("instructions", **shared),
        question=prompt.render("question", guidance=guidance, **shared, **told),
        reply_schema=schema_text(reply_schema(taxonomy, glaring=topic is not None)),
    )


def _pictures(prompt: Prompt, shots: Sequence[Shot], *, detail: str) -> Iterator[Picture]:
    """The image itself; captions say what is what, where it is not sent as it is stored."""
    for view, data, media_type in shots:
        is_file = view.name == WHOLE
        caption = "" if is_file else prompt.render("caption", view=view, whole=shots[0].view)
        yield Picture(data=data, media_type=media_type, detail=detail, caption=caption)


def _exemplar_pictures(
    prompt: Prompt, exemplars: Sequence[Exemplar], *, recipe: Recipe, detail: str
) -> Iterator[Picture]:
    for number, exemplar in enumerate(exemplars, start=1):
        name = exemplar.exemplar_id
        if name in recipe.exemplar_pictures:
            data, media_type = _exemplar_file(name, recipe.exemplar_pictures[name])
            yield Picture(
                data=data,
                media_type=media_type,
                detail=detail,
                caption=prompt.render("demonstration_caption", number=number, exemplar=exemplar),
                is_exemplar=True,
            )


@lru_cache(maxsize=256)
def _exemplar_file(name: str, data: bytes) -> tuple[bytes, str]:
    """The picture without its metadata, and its media type."""
    try:
        kept, image_format = open_image(data).encode()
    except DataError as error:
        raise ConfigError(f"the picture of exemplar {name} cannot be used: {error}") from None
    return kept, MEDIA_TYPES[image_format]


def choose_demonstrations(recipe: Recipe, arm: Arm, *, guidance: Sequence[str] = ()) -> Chosen:
    """The exemplars that a request of this arm shows: by the experts' guidance, or the recipe's.

    A prompt that does not speak of demonstrations shows none.
    """
    variables = _compile(arm.mode, recipe.prompts[arm.mode]).variables
    if not recipe.settings.drafting.demonstrations.use or "demonstrations" not in variables:
        return Chosen()
    return choose_exemplars(guidance or recipe.guidance, recipe.exemplars)


def prompt_version(recipe: Recipe, mode: str) -> str:
    """The mode and the beginning of its text's hash: `acoti-1f3a9c02`."""
    return f"{mode}-{sha256_text(recipe.prompts[mode])[:8]}"


def reply_schema(taxonomy: Taxonomy, *, glaring: bool = False) -> dict[str, Any]:
    """The JSON schema of a reply; flat and strict, as structured output asks for.

    `glaring`: each finding also says whether it is plain at first sight.
    """
    corner = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    finding = {
        "category": {"type": "string", "enum": list(taxonomy.ids)},
        "evidence": {"type": "string"},
        "points_to": {"type": "string", "enum": [str(value) for value in Authenticity]},
        "region": {"type": ["array", "null"], "items": corner},
        **({"glaring": {"type": "boolean"}} if glaring else {}),
    }
    return _closed_object(
        {
            "findings": {"type": "array", "items": _closed_object(finding)},
            "conclusion": {"type": "string"},
            "verdict": {"type": "string", "enum": [str(value) for value in Authenticity]},
            "confidence": {"type": "string", "enum": [str(value) for value in Confidence]},
        }
    )


def _merge_schema(taxonomy: Taxonomy) -> dict[str, Any]:
    finding = {
        "category": {"type": "string", "enum": list(taxonomy.ids)},
        "points_to": {"type": "string", "enum": [str(value) for value in Authenticity]},
        "evidence": {"type": "string"},
    }
    return _closed_object(
        {
            "findings": {"type": "array", "items": _closed_object(finding)},
            "conclusion": {"type": "string"},
        }
    )


def _closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@lru_cache(maxsize=64)
def _compile(name: str, source: str) -> Prompt:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    try:
        variables = find_undeclared_variables(environment.parse(source))
        return Prompt(name, environment.from_string(source), frozenset(variables))
    except TemplateError as error:
        raise ConfigError(f"prompts/{name}.jinja: {error}") from None
