"""Which images fill the slots of the exemplar set. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from core.ids import unit_interval
from core.records import Authenticity


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotImage:
    """A drafted image that can fill a slot."""

    image_id: str
    draft_id: str
    label: Authenticity
    generator: str | None
    kin: frozenset[str]
    """photograph, identity and near-duplicates: no two slots share one"""
    categories: frozenset[str]
    """of its draft's traces that speak for the label"""


def fill_slots(
    candidates: Iterable[SlotImage],
    free: Mapping[Authenticity, int],
    *,
    filled: Sequence[SlotImage],
    seed: int,
) -> list[SlotImage]:
    """Images for the free slots of each label, beside those that are filled.

    The next image is the one whose categories are rarest among the slots of its label, so that
    demonstrations can be found for every category; then the one whose generator is; then a hash
    decides. The order of the candidates changes nothing.
    """
    taken = {name for image in filled for name in image.kin}
    given: list[SlotImage] = []
    waiting = sorted(candidates, key=lambda image: unit_interval("slot", seed, image.image_id))
    for label in Authenticity:
        slots = [image for image in filled if image.label is label]
        pool = [image for image in waiting if image.label is label and image.categories]
        for _ in range(free.get(label, 0)):
            pool = [image for image in pool if not image.kin & taken]
            if not pool:
                break
            chosen = _rarest(pool, slots)
            slots.append(chosen)
            given.append(chosen)
            taken |= chosen.kin
    return given


def _rarest(pool: Sequence[SlotImage], slots: Sequence[SlotImage]) -> SlotImage:
    """The first of those that add most to the slots of their label."""
    shown = Counter(category for image in slots for category in image.categories)
    made_by = Counter(image.generator for image in slots)

    def worth(image: SlotImage) -> tuple[float, int]:
        rarity = sum(1 / (1 + shown[category]) for category in sorted(image.categories))
        return rarity, -made_by[image.generator]

    return max(pool, key=worth)
