"""A drafting campaign as a whole: what is due, what it may cost, how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import ConfigError
from core.recipe import Recipe
from core.records import ImageRecord, WorkState
from core.sources import choose_sources
from db.engine import Database
from db.images import labelled_images, source_names
from db.work import add_work, open_campaign, resume_campaign, undrafted_image_ids, work_counts
from generation.desk import is_local
from generation.plan import ArmPlan, plan_arms
from imaging.store import ImageStore


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """An opened campaign and the images that it still has to draft."""

    campaign_id: str
    images: int
    """labelled images in its sources"""
    due: int
    """drafts that are missing, over all arms"""
    plans: list[ArmPlan]
    leaves_machine: bool
    """whether any arm asks a teacher on another machine"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a campaign is; `done` grows until `total`."""

    done: int
    total: int
    quarantined: int


def prepare(
    database: Database,
    store: ImageStore,
    recipe: Recipe,
    *,
    source: str | None = None,
    limit: int | None = None,
    budget_usd: float | None = None,
) -> Campaign:
    """Open the recipe's campaign over the labelled images of `source`; sends nothing."""
    with database.read() as session:
        sources = choose_sources(source_names(session), source)
        images = list(labelled_images(session, sources=sources))[:limit]
    with database.write() as session:
        campaign_id = open_campaign(session, recipe, ceiling_usd=budget_usd)
        resume_campaign(session, campaign_id)
        for arm in recipe.arms:
            add_work(session, campaign_id, arm.name, [image.image_id for image in images])
    due = {arm.name: _undrafted(database, campaign_id, arm.name, images) for arm in recipe.arms}
    return Campaign(
        campaign_id=campaign_id,
        images=len(images),
        due=sum(len(missing) for missing in due.values()),
        plans=plan_arms(recipe, store, due),
        leaves_machine=not all(is_local(arm) for arm in recipe.arms),
    )


def check_ceiling(campaign: Campaign, budget_usd: float | None) -> None:
    """Refuse to call a teacher on another machine before the plan was seen and a ceiling given."""
    if campaign.leaves_machine and campaign.due and budget_usd is None:
        plans = "\n  ".join(plan.sentence() for plan in campaign.plans)
        raise ConfigError(
            f"nothing was sent. The plan:\n  {plans}\nGive a ceiling in US dollars to go on: "
            "`--budget 5` here, `BUDGET=5` with make"
        )


def progress(database: Database, campaign: Campaign) -> Progress:
    """How many of the campaign's drafts are there, or set aside."""
    with database.read() as session:
        counts = work_counts(session, campaign.campaign_id)
    waiting = sum(counts.get(s, 0) for s in (WorkState.NEW, WorkState.GUIDED, WorkState.DRAFTING))
    return Progress(
        done=max(0, campaign.due - waiting),
        total=campaign.due,
        quarantined=counts.get(WorkState.QUARANTINED, 0),
    )


def _undrafted(
    database: Database, campaign_id: str, arm: str, images: Sequence[ImageRecord]
) -> list[ImageRecord]:
    with database.read() as session:
        missing = undrafted_image_ids(session, campaign_id, arm)
    return [image for image in images if image.image_id in missing]
