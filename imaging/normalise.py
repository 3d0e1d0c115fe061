"""Normalise: give photographs and fakes the same sizes and one JPEG quality distribution. Pure.

Both labels are sorted by size and cut into the same number of strata, each with the same share of
either label. A stratum is cropped to the largest size that fits all of its images, so a size says
nothing of a label. Nothing is resized: resampling leaves traces of its own. The JPEG quality is
drawn from a hash of the image, whatever its label. Crops begin on the grid of JPEG blocks, so that
an image that is cropped and one that is not keep an earlier grid alike. What an image went through
before stays in its pixels: a second JPEG compression covers the first one, it does not undo it.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from PIL import Image

from core.ids import unit_interval
from core.records import Authenticity, ImageRecord

BLOCK: Final = 16
"""pixels; side of the blocks of a JPEG whose colours are subsampled 4:2:0"""
SUBSAMPLING: Final = "4:2:0"
LEAST_IN_STRATUM: Final = 20
"""images of each label; a size that few images share would tell them apart after all"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """What is done to one image: the size that it is cropped to, in pixels, and JPEG quality."""

    width: int
    height: int
    jpeg_quality: int


def plan_treatments(
    images: Sequence[ImageRecord], *, least_side: int, jpeg_quality: tuple[int, int]
) -> dict[str, Treatment]:
    """The treatment of each labelled image by image id; the order of `images` does not matter.

    Images whose shorter side is below `least_side` pixels get none. `jpeg_quality`: lowest and
    highest, both drawn too.
    """
    fitting = [image for image in images if min(image.width, image.height) >= least_side]
    treatments = {}
    for stratum in _cut_into_strata(fitting):
        width = _whole_blocks(min(image.width for image in stratum))
        height = _whole_blocks(min(image.height for image in stratum))
        for image in stratum:
            quality = _draw_quality(image, jpeg_quality)
            treatments[image.image_id] = Treatment(width=width, height=height, jpeg_quality=quality)
    return treatments


def _cut_into_strata(images: Sequence[ImageRecord]) -> list[list[ImageRecord]]:
    """Each with the same share of the photographs and of the fakes, the smallest images first."""
    by_label = [_by_size(images, label) for label in Authenticity]
    number = max(1, min(map(len, by_label)) // LEAST_IN_STRATUM)
    strata: dict[int, list[ImageRecord]] = defaultdict(list)
    for own in by_label:
        for rank, image in enumerate(own):
            strata[rank * number // len(own)].append(image)
    return [strata[place] for place in sorted(strata)]


def _by_size(images: Sequence[ImageRecord], label: Authenticity) -> list[ImageRecord]:
    """By the shorter side; those of one side from upright to wide, so that crops keep much."""
    return sorted(
        (image for image in images if image.label is label),
        key=lambda i: (min(i.width, i.height), i.width / i.height, i.image_id),
    )


def _whole_blocks(side: int) -> int:
    return max(BLOCK, side // BLOCK * BLOCK)


def _draw_quality(image: ImageRecord, jpeg_quality: tuple[int, int]) -> int:
    lowest, highest = jpeg_quality
    return lowest + int(unit_interval("quality", image.sha256) * (highest - lowest + 1))


def apply_treatment(rgb: Image.Image, treatment: Treatment) -> bytes:
    """JPEG bytes of the centre of an upright RGB picture that is as large as its crop or larger."""
    left = _whole_offset(rgb.width - treatment.width)
    top = _whole_offset(rgb.height - treatment.height)
    crop = rgb.crop((left, top, left + treatment.width, top + treatment.height))
    buffer = io.BytesIO()
    crop.save(buffer, "JPEG", quality=treatment.jpeg_quality, subsampling=SUBSAMPLING)
    return buffer.getvalue()


def _whole_offset(spare: int) -> int:
    """Half of the spare pixels, at the start of a block."""
    return spare // 2 // BLOCK * BLOCK


def kept_share(
    images: Sequence[ImageRecord], treatments: Mapping[str, Treatment], label: Authenticity
) -> float:
    """The share of the pixels of one label that its crops keep, 0..1; 0 when there are none."""
    own = [image for image in images if image.label is label]
    pixels = sum(image.width * image.height for image in own)
    crops = (treatments[image.image_id] for image in own if image.image_id in treatments)
    return sum(crop.width * crop.height for crop in crops) / pixels if pixels else 0.0
