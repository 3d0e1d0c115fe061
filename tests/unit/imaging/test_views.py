"""What of an image is sent: the stored file as it is, or a thumbnail and crops of its pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import DataError
from core.ids import sha256_bytes
from core.recipe import Views
from core.records import ImageRecord
from imaging.views import Window, choose_windows, take_views
from tests.unit.records import make_image

VIEWS = Views(thumbnail=128, crops=3, crop_size=64)
NOISE = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)


def encode(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, **{"format": "PNG", **options})
    return file.getvalue()


def record(width: int, height: int, image_format: str = "PNG") -> ImageRecord:
    return make_image(width=width, height=height, format=image_format)


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("views", [None, Views(thumbnail=300)])
def test_an_image_that_is_not_too_large_is_sent_as_it_is_stored(views: Views | None) -> None:
    stored = b"never decoded"
    (shot,) = take_views(record(300, 200, "WEBP"), stored, views)
    assert shot.data is stored
    assert shot.media_type == "image/webp"
    view = shot.view
    assert (view.name, view.left, view.top, view.width, view.height) == ("whole", 0, 0, 300, 200)
    assert (view.sent_width, view.sent_height) == (300, 200)
    assert (view.num_bytes, view.sha256) == (len(stored), sha256_bytes(stored))


def test_a_larger_image_is_sent_as_a_thumbnail_and_crops_of_its_own_pixels() -> None:
    thumbnail, *crops = take_views(record(300, 200), encode(NOISE), VIEWS)
    assert thumbnail.view.name == "thumbnail"
    assert (thumbnail.view.width, thumbnail.view.height) == (300, 200)
    assert pixels_of(thumbnail.data).shape == (85, 128, 3)
    assert (thumbnail.view.sent_width, thumbnail.view.sent_height) == (128, 85)
    assert len(crops) == 3
    for crop in crops:
        view = crop.view
        assert (view.name, view.width, view.height) == ("crop", 64, 64)
        assert (view.sent_width, view.sent_height) == (64, 64)
        cut = NOISE[view.top : view.top + 64, view.left : view.left + 64]
        assert np.array_equal(pixels_of(crop.data), cut)
        assert (view.num_bytes, view.sha256) == (len(crop.data), sha256_bytes(crop.data))


def test_the_same_image_gives_the_same_bytes() -> None:
    shots = [take_views(record(300, 200), encode(NOISE), VIEWS) for _ in range(2)]
    assert shots[0] == shots[1]


def test_a_turned_photograph_is_cut_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # its left edge is the top of the picture
    grey = np.zeros((200, 300, 3), dtype=np.uint8)
    grey[:, :150] = 255  # shown: the upper half is white
    stored = encode(grey, format="JPEG", quality=95, exif=exif)
    thumbnail, *_ = take_views(record(200, 300, "JPEG"), stored, VIEWS)
    shown = pixels_of(thumbnail.data)
    assert shown.shape == (128, 85, 3)
    assert shown[:60].min() > 200
    assert shown[68:].max() < 50
    assert Image.open(io.BytesIO(thumbnail.data)).getexif() == {}


def test_both_may_be_sent_as_jpeg_of_a_stated_quality() -> None:
    views = VIEWS.model_copy(update={"jpeg_quality": 90})
    shots = take_views(record(300, 200), encode(NOISE), views)
    assert {shot.media_type for shot in shots} == {"image/jpeg"}
    assert all(shot.data.startswith(b"\xff\xd8") for shot in shots)
    lossless = take_views(record(300, 200), encode(NOISE), VIEWS)
    assert sum(len(s.data) for s in shots) < sum(len(s.data) for s in lossless)


def test_crops_lie_where_the_detail_is() -> None:
    smooth = np.full((256, 256, 3), 128, dtype=np.uint8)
    smooth[128:192, 64:128] = NOISE[:64, :64]
    smooth[0:64, 192:256] = NOISE[:64, :64] // 2
    windows = choose_windows(Image.fromarray(smooth), size=64, count=2)
    assert windows == [Window(192, 0, 64, 64), Window(64, 128, 64, 64)]


def test_without_any_detail_the_first_windows_are_taken() -> None:
    windows = choose_windows(Image.new("RGB", (256, 128)), size=64, count=2)
    assert windows == [Window(0, 0, 64, 64), Window(64, 0, 64, 64)]


@settings(deadline=None)
@given(st.integers(32, 400), st.integers(32, 400), st.integers(64, 200))
def test_windows_enough_cover_every_pixel_and_none_leaves_the_image(
    width: int, height: int, size: int
) -> None:
    windows = choose_windows(Image.new("RGB", (width, height)), size=size, count=1000)
    covered = np.zeros((height, width), dtype=bool)
    for left, top, right, bottom in (window.box for window in windows):
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        covered[top:bottom, left:right] = True
    assert covered.all()
    assert len(windows) == -(-width // size) * -(-height // size)


def test_bytes_that_cannot_be_decoded_are_a_data_error() -> None:
    with pytest.raises(DataError):
        take_views(record(300, 200), b"no picture", VIEWS)
