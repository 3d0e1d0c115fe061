"""Normalised images: matched sizes, one quality distribution, no resampling, nothing by label."""

from __future__ import annotations

import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.ids import sha256_text
from core.records import Authenticity, ImageRecord
from imaging.jpeg import estimate_quality, subsampling
from imaging.normalise import (
    LEAST_IN_STRATUM,
    Treatment,
    apply_treatment,
    kept_share,
    plan_treatments,
)
from imaging.shortcuts import MetadataScore, measure_metadata
from tests.unit.records import make_image

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
QUALITY = (85, 96)


def collection(real: int = 80, fake: int = 60, *, seed: int = 1) -> list[ImageRecord]:
    """Photographs of many sizes, fakes of few; sizes and formats tell them apart."""
    chance = random.Random(seed)
    photographs = [
        make_image(
            f"photograph {seed} {n}",
            label=REAL,
            width=chance.randint(300, 900),
            height=chance.randint(300, 900),
        )
        for n in range(real)
    ]
    fakes = [
        make_image(f"fake {seed} {n}", label=FAKE, width=side, height=side, format="PNG")
        for n, side in enumerate(chance.choices((256, 512, 1024), k=fake))
    ]
    return photographs + fakes


def plan(images: Sequence[ImageRecord], **changes: int) -> dict[str, Treatment]:
    return plan_treatments(images, **{"least_side": 64, "jpeg_quality": QUALITY, **changes})  # type: ignore[arg-type]


def treated(images: Sequence[ImageRecord]) -> list[ImageRecord]:
    """What the images are afterwards."""
    treatments = plan(images)
    return [
        replace(
            image,
            format="JPEG",
            width=treatments[image.image_id].width,
            height=treatments[image.image_id].height,
            jpeg_quality=treatments[image.image_id].jpeg_quality,
        )
        for image in images
        if image.image_id in treatments
    ]


def sizes(images: Sequence[ImageRecord], label: Authenticity) -> Counter[tuple[int, int]]:
    return Counter((image.width, image.height) for image in images if image.label is label)


def test_a_shortcut_is_gone_afterwards() -> None:
    images = collection(400, 400)
    before, after = measure_metadata(images), measure_metadata(treated(images))
    assert isinstance(before, MetadataScore)
    assert isinstance(after, MetadataScore)
    assert before.low > 0.9
    assert after.low <= 0.5
    assert after.auc < 0.55


def test_every_size_has_the_same_share_of_both_labels() -> None:
    images = treated(collection(120, 60))
    real, fake = sizes(images, REAL), sizes(images, FAKE)
    assert len(real) > 1
    assert {size: count / 2 for size, count in real.items()} == fake


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(33, 3000), st.integers(33, 3000)), min_size=1, max_size=90),
    st.lists(st.tuples(st.integers(33, 3000), st.integers(33, 3000)), min_size=1, max_size=90),
)
def test_crops_fit_and_shares_match_whatever_the_sizes(
    real: list[tuple[int, int]], fake: list[tuple[int, int]]
) -> None:
    images = [
        make_image(f"{label} {n}", label=label, width=width, height=height)
        for label, own in ((REAL, real), (FAKE, fake))
        for n, (width, height) in enumerate(own)
    ]
    treatments = plan(images, least_side=32)
    assert set(treatments) == {image.image_id for image in images}
    for image in images:
        crop = treatments[image.image_id]
        assert 0 < crop.width <= image.width
        assert 0 < crop.height <= image.height
    after = treated([image for image in images if min(image.width, image.height) >= 64])
    for size in {(image.width, image.height) for image in after}:
        by_label = {label: sizes(after, label) for label in (REAL, FAKE)}
        shares = [own[size] / own.total() for own in by_label.values() if own]
        strata = max(1, min(own.total() for own in by_label.values()) // LEAST_IN_STRATUM)
        if len(shares) == 2:
            # rounding moves at most one image of each label at either end of a stratum
            slack = strata * sum(1 / own.total() for own in by_label.values())
            assert abs(shares[0] - shares[1]) <= slack


def test_the_plan_does_not_depend_on_the_order() -> None:
    images = collection()
    assert plan(images) == plan(images[::-1])


def test_small_images_get_no_treatment_and_do_not_shrink_the_others() -> None:
    images = collection()
    tiny = make_image("tiny", label=FAKE, width=40, height=4000)
    assert plan([*images, tiny]) == plan(images)


def test_unlabelled_images_get_no_treatment() -> None:
    images = collection()
    assert plan([*images, make_image("unlabelled", label=None, width=99)]) == plan(images)


def test_qualities_fill_the_range_and_do_not_follow_the_label() -> None:
    images = collection(1200, 1200)
    drawn = plan(images)
    by_label = {
        label: Counter(drawn[i.image_id].jpeg_quality for i in images if i.label is label)
        for label in (REAL, FAKE)
    }
    for counts in by_label.values():
        assert set(counts) == set(range(QUALITY[0], QUALITY[1] + 1))
        assert max(counts.values()) < 2 * min(counts.values())


def test_the_quality_is_that_of_the_image_and_not_of_its_company() -> None:
    images = collection()
    one = images[0]
    alone = plan([one, *images[-30:]])[one.image_id]
    assert alone.jpeg_quality == plan(images)[one.image_id].jpeg_quality


def noise(width: int, height: int) -> Image.Image:
    chance = np.random.default_rng(1)
    return Image.fromarray(chance.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("quality", [50, 85, 100])
def test_bytes_are_a_jpeg_of_the_size_and_quality(quality: int) -> None:
    data = apply_treatment(noise(333, 257), Treatment(width=160, height=64, jpeg_quality=quality))
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("JPEG", (160, 64))
    assert estimate_quality(data) == quality
    assert subsampling(data) == "4:2:0"


def test_pixels_are_cropped_at_the_grid_and_never_resampled() -> None:
    picture = noise(333, 257)
    data = apply_treatment(picture, Treatment(width=160, height=64, jpeg_quality=100))
    left, top = 80, 96  # half of the spare 173 and 193 pixels, on the grid of 16
    expected = np.asarray(picture.crop((left, top, left + 160, top + 64)).convert("L"), dtype=float)
    found = np.asarray(Image.open(io.BytesIO(data)).convert("L"), dtype=float)
    assert np.abs(expected - found).mean() < 3
    moved = np.asarray(picture.crop((left + 1, top, left + 161, top + 64)).convert("L"), float)
    assert np.abs(moved - found).mean() > 30


def test_the_same_picture_gives_the_same_bytes() -> None:
    made = Treatment(width=64, height=64, jpeg_quality=90)
    assert apply_treatment(noise(100, 80), made) == apply_treatment(noise(100, 80), made)


def test_the_kept_share_counts_what_was_left_out() -> None:
    images = [
        make_image(sha256_text("a"), label=REAL, width=128, height=128),
        make_image(sha256_text("b"), label=REAL, width=32, height=512),
        make_image(sha256_text("c"), label=FAKE, width=64, height=64),
    ]
    treatments = plan(images)
    assert kept_share(images, treatments, REAL) == pytest.approx(64 * 64 / (2 * 128 * 128))
    assert kept_share(images, treatments, FAKE) == 1
    assert kept_share([], {}, FAKE) == 0
