"""Trace categories, read from a recipe's `taxonomy.yaml`."""

from __future__ import annotations

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, field_validator


class Level(StrEnum):
    """How much understanding of the scene a trace asks for."""

    LOW = "low"
    MIDDLE = "middle"
    HIGH = "high"


class TraceCategory(BaseModel):
    """One kind of trace, with what to look for in generated images and in photographs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    name: str
    """lower case, as it stands in the middle of a sentence: `light and shadow`"""
    level: Level
    definition: str
    fake_hint: str
    real_hint: str
    image_advice: str
    """what would mend this trace in the picture at hand; a full sentence"""
    generation_advice: str
    """what would avoid this trace when generating; a full sentence"""


class Taxonomy(BaseModel):
    """The closed set of trace categories of one recipe, in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    categories: tuple[TraceCategory, ...]

    @field_validator("categories")
    @classmethod
    def _ids_differ(cls, categories: tuple[TraceCategory, ...]) -> tuple[TraceCategory, ...]:
        ids = [category.id for category in categories]
        twice = sorted({name for name in ids if ids.count(name) > 1})
        if twice:
            raise ValueError(f"category ids must differ: {', '.join(twice)}")
        return categories

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(category.id for category in self.categories)

    def __getitem__(self, category_id: str) -> TraceCategory:
        return next(c for c in self.categories if c.id == category_id)

    def __contains__(self, category_id: object) -> bool:
        return category_id in self.ids
