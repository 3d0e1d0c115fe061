"""What a campaign would cost at most, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from core.recipe import Arm, Recipe
from core.records import ImageRecord, Usage
from generation.desk import price_of_arm
from generation.prompt import render_request
from imaging.store import ImageStore
from teacher.prices import cost
from teacher.request import worst_case_tokens

SAMPLE = 100
"""images whose requests are rendered to estimate the tokens of all"""


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
    recipe: Recipe, store: ImageStore, due: Mapping[str, Sequence[ImageRecord]]
) -> list[ArmPlan]:
    """One plan per arm for the images that it still has to draft."""
    return [_plan_arm(recipe, store, arm, due[arm.name]) for arm in recipe.arms]


def _plan_arm(
    recipe: Recipe, store: ImageStore, arm: Arm, images: Sequence[ImageRecord]
) -> ArmPlan:
    price = price_of_arm(recipe, arm)
    sample = images[:: max(1, len(images) // SAMPLE)]
    counts = [
        worst_case_tokens(
            render_request(image, store.read(image.path), recipe=recipe, arm=arm), price.image
        )
        for image in sample
    ]
    total = Usage(
        prompt_tokens=_scale([count.prompt_tokens for count in counts], len(images)),
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


def _scale(sample: Sequence[int], count: int) -> int:
    return round(fmean(sample) * count) if sample else 0
