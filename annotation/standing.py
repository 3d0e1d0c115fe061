"""How far a review is, by what was pulled last: `python -m annotation status`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from core.recipe import Recipe
from core.records import AnnotationFate
from db.engine import Database
from db.reviews import corrections
from db.studio import (
    count_undelivered,
    drafts_by_id,
    newest_versions,
    projects,
    tasks_of,
)
from db.work import campaign_id_of

FLAGGED = (AnnotationFate.OVERWRITTEN, AnnotationFate.UNREADABLE)


@dataclass(frozen=True, kw_only=True)
class Flag:
    """An annotation that somebody has to look at: it does not count as it is."""

    task_id: int | None
    expert: str | None
    fate: AnnotationFate
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The review of one recipe's drafts, over all servers."""

    undelivered: int
    """newest drafts of the chain arms that no task shows"""
    tasks: int
    """made and not lost"""
    annotations: dict[AnnotationFate, int]
    """by what became of their newest version"""
    corrected_images: int
    flags: list[Flag]


def standing(database: Database, recipe: Recipe) -> Standing:
    """Count drafts, tasks, annotations and corrections of the recipe's campaign."""
    campaign_id = campaign_id_of(recipe)
    fates: Counter[AnnotationFate] = Counter()
    flags: list[Flag] = []
    draft_ids: list[str] = []
    with database.read() as session:
        for project in projects(session, campaign_id):
            tasks = tasks_of(session, project.project_key).values()
            draft_ids += [task.draft_id for task in tasks if task.task_id is not None]
            for task, version in newest_versions(session, project.project_key):
                fates[version.fate] += 1
                if version.fate in FLAGGED:
                    flags.append(
                        Flag(
                            task_id=task.task_id,
                            expert=version.expert,
                            fate=version.fate,
                            reason=version.reason,
                        )
                    )
        image_ids = {draft.image_id for draft in drafts_by_id(session, draft_ids).values()}
        return Standing(
            undelivered=count_undelivered(
                session, campaign_id, recipe.settings.drafting.chain_arms
            ),
            tasks=len(draft_ids),
            annotations=dict(fates),
            corrected_images=len(corrections(session, sorted(image_ids))),
            flags=flags,
        )
