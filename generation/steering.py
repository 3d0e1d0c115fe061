"""ACoTI's first step: the trace categories that blind experts have settled on steer the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.recipe import Arm, Recipe
from core.records import ImageRecord
from db.blind import guidance_among
from db.engine import Database
from db.work import quarantine_hard, release_guided


def steering(
    database: Database, recipe: Recipe, arm: Arm, image_ids: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    """The categories that steer an arm, by image id; none where the recipe asks no blind experts.

    A control is not steered: what experts chose says whether the image is fake.
    """
    if not recipe.settings.drafting.blind or arm.control:
        return {}
    with database.read() as session:
        found = guidance_among(session, image_ids)
    return {image_id: guidance.categories for image_id, guidance in found.items()}


def steerable(
    database: Database, recipe: Recipe, arm: Arm, images: Sequence[ImageRecord]
) -> list[ImageRecord]:
    """The images that an arm may draft: all, or those that blind experts have settled."""
    if not recipe.settings.drafting.blind or arm.control:
        return list(images)
    with database.read() as session:
        settled = guidance_among(session, [image.image_id for image in images])
    return [image for image in images if image.image_id in settled]


def steer(database: Database, recipe: Recipe, arm: Arm, campaign_id: str) -> None:
    """Let settled images go on: they are guided, or set aside as hard."""
    if not recipe.settings.drafting.blind or arm.control:
        return
    with database.write() as session:
        quarantine_hard(session, campaign_id, arm.name)
        release_guided(session, campaign_id, arm.name)
