"""What a campaign would cost at most, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean

from core.recipe import Arm, Recipe
from core.records import ImageRecord, Usage
from generation.brief import Brief
from generation.desk import price_of_arm
from imaging.store import ImageStore
from teacher.prices import Price, batch_price, cost
from teacher.request import worst_case_tokens

SAMPLE = 100
"""images whose requests are rendered to estimate the tokens of all"""
CUT_SAMPLE = 10
"""where large images are cut into views, which takes a while"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmPlan:
    """The calls of one arm, one per image; re-asked images come on top."""

    arm: str
    teacher: str
    model: str
    calls: int
    prompt_tokens: int
    """estimated, image included"""
    completion_tokens: int
    """at most"""
    usd: float
    """at most, without re-asking"""

    def sentence(self) -> str:
        return (
            f"arm {self.arm}: {self.calls} calls to {self.model} at {self.teacher}, about "
            f"{self.prompt_tokens:,} tokens in and at most {self.completion_tokens:,} out, "
            f"at most ${self.usd:,.2f} (images that must be asked again come on top)"
        )


def plan_arms(
    recipe: Recipe,
    store: ImageStore,
    due: Mapping[str, Sequence[ImageRecord]],
    *,
    brief: Callable[[Arm, Sequence[ImageRecord]], Mapping[str, Brief]],
    in_batches: bool = False,
) -> list[ArmPlan]:
    """One plan per arm for the images that it still has to draft; `brief` says what it knows."""
    plans = []
    for arm in recipe.arms:
        price = price_of_arm(recipe, arm)
        asked = batch_price(price) if in_batches else price
        plans.append(_plan_arm(recipe, store, arm, due[arm.name], asked, partial(brief, arm)))
    return plans


def _plan_arm(
    recipe: Recipe,
    store: ImageStore,
    arm: Arm,
    images: Sequence[ImageRecord],
    price: Price,
    brief: Callable[[Sequence[ImageRecord]], Mapping[str, Brief]],
) -> ArmPlan:
    size = SAMPLE if arm.views is None else CUT_SAMPLE
    sample = images[:: max(1, len(images) // size)]
    briefs = brief(sample)
    counts = [
        worst_case_tokens(
            briefs[image.image_id].stand_in().render(store.read(image.path)).request, price.image
        )
        for image in sample
    ]
    merged = _merged_tokens(recipe, arm) * len(images)
    total = Usage(
        prompt_tokens=_scale([count.prompt_tokens for count in counts], len(images)) + merged,
        completion_tokens=_scale([count.completion_tokens for count in counts], len(images)),
    )
    return ArmPlan(
        arm=arm.name,
        teacher=arm.teacher,
        model=arm.model,
        calls=len(images),
        prompt_tokens=total.prompt_tokens,
        completion_tokens=total.completion_tokens,
        usd=cost(total, price),
    )


def _merged_tokens(recipe: Recipe, arm: Arm) -> int:
    """What an arm that merges may read at most: drafts that are not there when it is planned."""
    names = arm.merge.arms if arm.merge else ()
    return sum(recipe.arm(name).max_output_tokens for name in names)


def _scale(sample: Sequence[int], count: int) -> int:
    return round(fmean(sample) * count) if sample else 0
