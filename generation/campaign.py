"""A drafting campaign as a whole: what is due, what it may cost, how far it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from core.errors import ConfigError
from core.recipe import Arm, Recipe
from core.records import ImageRecord, WorkState
from core.sources import choose_sources
from db.batches import images_in_batches
from db.engine import Database
from db.images import labelled_images, source_names
from db.work import (
    UNDRAFTED,
    add_work,
    given_image_ids,
    open_campaign,
    resume_campaign,
    undrafted_image_ids,
    work_counts,
)
from generation.arms import images_for
from generation.brief import briefs_for
from generation.desk import is_local
from generation.plan import ArmPlan, plan_arms
from generation.stages import let_go_on, unsorted
from generation.steering import steer, steerable
from imaging.store import ImageStore


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """An opened campaign and the images that it still has to draft."""

    campaign_id: str
    images: int
    """labelled images in its sources"""
    drafts: int
    """that they are to get, over all arms"""
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
    in_batches: int = 0
    """images that wait for their batch, beside the total"""


def prepare(
    database: Database,
    store: ImageStore,
    recipe: Recipe,
    *,
    source: str | None = None,
    limit: int | None = None,
    budget_usd: float | None = None,
    in_batches: bool = False,
) -> Campaign:
    """Open the recipe's campaign over the labelled images of `source`; sends nothing.

    Images that wait for their batch are not due. `in_batches` plans with the price of a batch.
    """
    with database.read() as session:
        sources = choose_sources(source_names(session), source)
        images = list(labelled_images(session, sources=sources))[:limit]
    with database.write() as session:
        campaign_id = open_campaign(session, recipe, ceiling_usd=budget_usd)
        resume_campaign(session, campaign_id)
    chosen = {arm.name: _give(database, campaign_id, arm, images, recipe) for arm in recipe.arms}
    due = {name: _undrafted(database, campaign_id, name, given) for name, given in chosen.items()}
    let_go_on(database, recipe)
    return Campaign(
        campaign_id=campaign_id,
        images=len(images),
        drafts=sum(map(len, chosen.values())),
        due=sum(len(missing) for missing in due.values()),
        plans=plan_arms(
            recipe, store, due, brief=partial(briefs_for, database, recipe), in_batches=in_batches
        ),
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
        in_batches = images_in_batches(session, campaign.campaign_id)
    undrafted = sum(counts.get(state, 0) for state in UNDRAFTED)
    waiting = undrafted - in_batches
    return Progress(
        done=max(0, campaign.due - waiting),
        total=campaign.due,
        quarantined=counts.get(WorkState.QUARANTINED, 0),
        in_batches=in_batches,
    )


def _give(
    database: Database,
    campaign_id: str,
    arm: Arm,
    images: Sequence[ImageRecord],
    recipe: Recipe,
) -> list[ImageRecord]:
    """Put before an arm those images that are for it, and return them."""
    with database.read() as session:
        given = set() if arm.sample is None else given_image_ids(session, campaign_id, arm.name)
        chosen = images_for(arm, images, recipe.settings.drafting, given=given)
    chosen = unsorted(database, recipe, arm, steerable(database, recipe, arm, chosen))
    state = WorkState.WAITING if recipe.waits_for(arm) else WorkState.NEW
    with database.write() as session:
        add_work(session, campaign_id, arm.name, [i.image_id for i in chosen], state=state)
    steer(database, recipe, arm, campaign_id)
    return chosen


def _undrafted(
    database: Database, campaign_id: str, arm: str, images: Sequence[ImageRecord]
) -> list[ImageRecord]:
    with database.read() as session:
        missing = undrafted_image_ids(session, campaign_id, arm)
    return [image for image in images if image.image_id in missing]
