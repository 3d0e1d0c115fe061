"""`rewriting.yaml` of a recipe: how a text model rewords chains, and what it must leave alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from core.errors import ConfigError
from core.limits import Limits
from core.recipe import REHEARSAL, Strict, read_model
from core.settings import Settings

REWRITING_FILE = "rewriting.yaml"

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Word = Annotated[Text, StringConstraints(to_lower=True)]
Words = Annotated[tuple[Word, ...], Field(min_length=1)]


class LockedWords(Strict):
    """What a rewording must keep, word by word; case does not matter."""

    fake: Words
    """words that speak of a fake; whether a text speaks of one, and of a photograph, must stay"""
    real: Words
    negations: Words
    """as many of these must stay, whichever they are"""
    places: Words
    """of places, degrees and numbers each must stay as often as it is there"""
    degrees: Words
    numbers: Words


class Bounds(Strict):
    """How far a rewording may go from its original, in shares."""

    shortest: float = Field(0.6, gt=0, le=1)
    """of the original's words"""
    longest: float = Field(1.6, ge=1)
    kept: float = Field(0.35, ge=0, le=1)
    """least share of the original's longer words that stay"""
    new: float = Field(0.6, ge=0, le=1)
    """greatest share of the rewording's longer words that the original does not have"""


class Rewriting(Strict):
    """The rewriting stage of a recipe."""

    teacher: str
    """`rehearsal`, or the address (base URL) of an OpenAI-compatible server"""
    model: str
    temperature: float = 0.7
    max_output_tokens: int = Field(1600, ge=64)
    timeout_s: float = Field(120.0, gt=0)
    limits: Limits | None = None
    """what the teacher allows in a minute"""
    calls_in_flight: int = Field(16, ge=1, le=256)
    max_tries: int = Field(4, ge=1)
    """calls for one chain that fail in passing, before the chain is left as it is"""
    variants: int = Field(2, ge=1, le=9)
    """rewordings of each text"""
    max_reasks: int = Field(1, ge=0)
    """further calls for a chain, with the reasons why a rewording was rejected"""
    instructions: Text
    locked: LockedWords
    bounds: Bounds = Bounds()
    rehearsal: dict[Text, tuple[Text, ...]] = Field(default_factory=dict)
    """replacements by phrase, with which the rehearsal teacher rewords"""


def load_rewriting(folder: Path, settings: Settings) -> Rewriting:
    """The rewriting stage as this deployment runs it; ConfigError where the recipe has none.

    As with arms, `rehearsal` gives way to the teacher of the environment, if it names one.
    """
    path = folder / REWRITING_FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: the recipe has no {REWRITING_FILE}, so nothing is reworded")
    rewriting = read_model(path, Rewriting)
    if rewriting.teacher != REHEARSAL or settings.openai_base_url is None:
        return rewriting
    if settings.openai_model is None:
        raise ConfigError("OPENAI_BASE_URL names a teacher: name its model in OPENAI_MODEL too")
    teacher = {"teacher": settings.openai_base_url, "model": settings.openai_model}
    return rewriting.model_copy(update=teacher)
