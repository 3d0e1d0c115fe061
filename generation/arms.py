"""Which images each arm of a campaign is given. Pure."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Collection, Sequence
from itertools import accumulate

from core.ids import unit_interval
from core.recipe import Arm, Drafting
from core.records import Authenticity, ImageRecord


def images_for(
    arm: Arm, images: Sequence[ImageRecord], drafting: Drafting, *, given: Collection[str]
) -> list[ImageRecord]:
    """Those of `images` that `arm` drafts, in their order.

    A control gets photographs alone. Of the arms that share, each image goes to exactly one: a
    hash of the seed and its id decides, so further images move none. A sample is drawn by such a
    hash too; `given`, the ids of all images that the arm got before, count towards it and stay.
    """
    fitting = [image for image in images if _fits(arm, image, drafting)]
    if arm.sample is None:
        return fitting
    fresh = [image.image_id for image in fitting if image.image_id not in given]
    fresh.sort(key=lambda image_id: unit_interval("sample", drafting.seed, image_id))
    drawn = {*given, *fresh[: max(0, arm.sample - len(given))]}
    return [image for image in fitting if image.image_id in drawn]


def _fits(arm: Arm, image: ImageRecord, drafting: Drafting) -> bool:
    if arm.control:
        return image.label is Authenticity.REAL
    return arm.share is None or _sharing_arm(image.image_id, drafting) == arm.name


def _sharing_arm(image_id: str, drafting: Drafting) -> str:
    """The arm whose stretch of the shares, laid end to end, the image's hash falls into."""
    shares = {arm.name: arm.share for arm in drafting.arms if arm.share is not None}
    ends = list(accumulate(shares.values()))
    return list(shares)[bisect(ends, unit_interval("share", drafting.seed, image_id) * ends[-1])]
