"""From an image record to the request that a teacher is sent. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.errors import ConfigError
from core.ids import sha256_text
from core.recipe import Arm, Recipe
from core.records import Authenticity, Confidence, ImageRecord, TeacherRequest
from core.taxonomy import Taxonomy
from generation.exemplars import Chosen, choose_exemplars
from teacher.request import schema_text

IMAGE_TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


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


def render_request(
    image: ImageRecord,
    data: bytes,
    *,
    recipe: Recipe,
    arm: Arm,
    guidance: Sequence[str] = (),
) -> TeacherRequest:
    """The request for a draft of `image`, whose stored bytes are `data`.

    `guidance` names the categories that blind experts chose for this image. The true label is told
    to the teacher (FakeScope, ACoTI step 3). The image's name, source and generator are not: they
    never reach a teacher. The instructions know nothing of the image, so that images with the same
    demonstrations share them and a teacher can cache them.
    """
    prompt = _compile(arm.mode, recipe.prompts[arm.mode])
    chosen = choose_demonstrations(recipe, arm, guidance=guidance)
    shared = {
        "categories": recipe.taxonomy.categories,
        "demonstrations": chosen.exemplars,
        "uncovered": chosen.uncovered,
        "standing_guidance": recipe.guidance,
    }
    return TeacherRequest(
        model=arm.model,
        instructions=prompt.render("instructions", **shared),
        question=prompt.render("question", label=image.label, guidance=guidance, **shared),
        image=data,
        image_type=IMAGE_TYPES[image.format],
        detail=arm.detail,
        reply_schema=schema_text(reply_schema(recipe.taxonomy)),
        temperature=arm.temperature,
        max_output_tokens=arm.max_output_tokens,
    )


def choose_demonstrations(recipe: Recipe, arm: Arm, *, guidance: Sequence[str] = ()) -> Chosen:
    """The exemplars that a request of this arm shows: by the experts' guidance, or the recipe's.

    A prompt that does not speak of demonstrations shows none.
    """
    variables = _compile(arm.mode, recipe.prompts[arm.mode]).variables
    if not recipe.settings.drafting.demonstrations.use or "demonstrations" not in variables:
        return Chosen()
    return choose_exemplars(guidance or recipe.guidance, recipe.exemplars)


def prompt_version(recipe: Recipe, arm: Arm) -> str:
    """The mode and the beginning of its text's hash: `acoti-1f3a9c02`."""
    return f"{arm.mode}-{sha256_text(recipe.prompts[arm.mode])[:8]}"


def reply_schema(taxonomy: Taxonomy) -> dict[str, Any]:
    """The JSON schema of a reply; flat and strict, as structured output asks for."""
    corner = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
    finding = {
        "category": {"type": "string", "enum": list(taxonomy.ids)},
        "evidence": {"type": "string"},
        "points_to": {"type": "string", "enum": [str(value) for value in Authenticity]},
        "region": {"type": ["array", "null"], "items": corner},
    }
    return _closed_object(
        {
            "findings": {"type": "array", "items": _closed_object(finding)},
            "conclusion": {"type": "string"},
            "verdict": {"type": "string", "enum": [str(value) for value in Authenticity]},
            "confidence": {"type": "string", "enum": [str(value) for value in Confidence]},
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
