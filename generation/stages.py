"""Arms that wait for others: images go on once those have drafted them or set them aside."""

from __future__ import annotations

from collections.abc import Sequence

from core.recipe import Arm, Recipe
from core.records import ImageRecord
from db.engine import Database
from db.work import campaign_id_of, release_waiting
from generation.brief import known_topics


def let_go_on(database: Database, recipe: Recipe) -> int:
    """Make due what no longer waits; returns how much."""
    waiting = [(arm.name, recipe.waits_for(arm)) for arm in recipe.arms]
    if not any(others for _, others in waiting):
        return 0
    with database.write() as session:
        return sum(
            release_waiting(session, campaign_id_of(recipe), name, waits_for=others)
            for name, others in waiting
            if others
        )


def unsorted(
    database: Database, recipe: Recipe, arm: Arm, images: Sequence[ImageRecord]
) -> list[ImageRecord]:
    """The images for an arm: for one that sorts, those whose topic nobody has named."""
    if not arm.sorts:
        return list(images)
    known = known_topics(database, recipe, [image.image_id for image in images])
    return [image for image in images if image.image_id not in known]
