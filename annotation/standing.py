"""How far a review is, by what was pulled last: `python -m annotation status`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from annotation.exemplars import Filled, filled_slots
from annotation.preference import count_votes
from core.recipe import Recipe
from core.records import AnnotationFate, Authenticity, TaskKind
from db.blind import count_guidance
from db.engine import Database
from db.reviews import corrections
from db.studio import (
    count_undelivered,
    earlier_projects,
    newest_versions,
    projects,
    tasks_of,
)
from db.studio_tasks import FLAGGED
from db.work import campaign_id_of


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
    tasks: dict[TaskKind, int]
    """made and not lost"""
    annotations: dict[AnnotationFate, int]
    """by what became of their newest version"""
    corrected_images: int
    guided_images: int
    """that blind experts have settled; counted where the recipe asks them"""
    hard_images: int
    """that too many of them took for what they are not"""
    exemplars: dict[Authenticity, Filled]
    """slots by label; empty where the recipe asks for none"""
    preferences: Filled | None
    """votes; None where the recipe asks for none"""
    flags: list[Flag]


def standing(database: Database, recipe: Recipe) -> Standing:
    """Count drafts, tasks, annotations and corrections of the recipe's campaign."""
    campaign_id = campaign_id_of(recipe)
    fates: Counter[AnnotationFate] = Counter()
    flags: list[Flag] = []
    made: Counter[TaskKind] = Counter()
    reviewed: set[str] = set()
    with database.read() as session:
        earlier = earlier_projects(session, recipe.name, campaign_id)
        for project in [*earlier, *projects(session, campaign_id)]:
            tasks = tasks_of(session, project.project_key).values()
            there = [task for task in tasks if task.task_id is not None]
            made[project.kind] += len(there)
            reviewed.update(task.image_id for task in there)
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
        is_blind = recipe.settings.drafting.blind
        guided, hard = count_guidance(session) if is_blind else (0, 0)
        return Standing(
            undelivered=count_undelivered(
                session, campaign_id, recipe.settings.drafting.chain_arms
            ),
            tasks={kind: count for kind, count in made.items() if count},
            annotations=dict(fates),
            corrected_images=len(corrections(session, sorted(reviewed))),
            guided_images=guided,
            hard_images=hard,
            exemplars=filled_slots(database, recipe),
            preferences=count_votes(database, recipe),
            flags=flags,
        )
