"""What the figures of an image mean, and that they exist for any image."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image

from core.errors import DataError
from imaging.measurements import FIGURES, WINDOW, measure
from imaging.photographs import photographs

Pixels = NDArray[np.uint8]
SIDES = st.integers(16, 48)


def grey(plane: NDArray[np.floating]) -> Pixels:
    rounded = np.clip(np.rint(plane), 0, 255).astype(np.uint8)
    return np.repeat(rounded[..., None], 3, axis=2)


def crop(name: str, side: int = 128) -> Pixels:
    photo = next(p for p in photographs() if p.name == name)
    return photo.pixels[40 : 40 + side, 150 : 150 + side]


def compress(rgb: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


@settings(max_examples=80, deadline=None)
@given(st.tuples(SIDES, SIDES).flatmap(lambda s: arrays(np.uint8, (*s, 3))))
def test_figures_are_finite_on_any_pixels(rgb: Pixels) -> None:
    figures = measure(rgb).as_dict()

    assert tuple(figures) == FIGURES
    assert all(math.isfinite(value) for value in figures.values())


@settings(max_examples=40, deadline=None)
@given(SIDES, st.integers(16, 300), st.tuples(*[st.integers(0, 255)] * 3))
def test_figures_are_finite_on_one_colour_of_any_shape(
    height: int, width: int, colour: tuple[int, int, int]
) -> None:
    figures = measure(np.full((height, width, 3), colour, np.uint8)).as_dict()

    assert all(math.isfinite(value) for value in figures.values())
    assert [figures[name] for name in ("noise", "lattice", "contrast")] == pytest.approx([0, 0, 0])


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_figures_do_not_change_when_the_image_is_mirrored(seed: int) -> None:
    rng = np.random.default_rng(seed)
    smooth = rng.integers(0, 256, (12, 12, 3)).astype(np.uint8)
    rgb = np.asarray(Image.fromarray(smooth).resize((96, 96), Image.Resampling.BICUBIC))
    rgb = np.clip(rgb + rng.normal(0, 3, rgb.shape), 0, 255).astype(np.uint8)

    figures, mirrored = measure(rgb).as_dict(), measure(rgb[:, ::-1]).as_dict()

    assert mirrored == pytest.approx(figures, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("shape", [(15, 64, 3), (64, 15, 3), (64, 64), (64, 64, 4)])
def test_pixels_that_cannot_be_measured_are_bad_data(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="cannot measure pixels of shape"):
        measure(np.zeros(shape, np.uint8))


def test_a_large_image_is_measured_on_its_centre() -> None:
    rng = np.random.default_rng(2)
    rgb = rng.integers(0, 256, (900, 1300, 3), np.uint8)
    top, left = (900 - WINDOW) // 2, (1300 - WINDOW) // 2

    centre = measure(rgb[top : top + WINDOW, left : left + WINDOW])

    assert measure(rgb).as_dict() == centre.as_dict()


def test_places_are_fractions_of_the_whole_image_not_of_the_window() -> None:
    height, width = 1024, 2048
    strength = np.zeros((height, width))
    strength[320:352, 800:832] = 20  # inside the centre window
    strength += 2
    lattice = strength * np.where(np.arange(width) % 2, -1, 1)

    left, top, right, bottom = measure(grey(120 + lattice)).places["lattice"].bounding_box()

    assert left <= 816 / width <= right and top <= 336 / height <= bottom
    assert right - left == pytest.approx(32 / width)
    assert bottom - top == pytest.approx(32 / height)


@pytest.mark.parametrize("amplitude", [2.0, 5.0, 9.0])
def test_lattice_is_the_step_between_neighbouring_columns(amplitude: float) -> None:
    columns = np.where(np.arange(128) % 2, -amplitude, amplitude)

    figures = measure(grey(np.full((128, 128), 100.0) + columns)).as_dict()

    assert figures["lattice"] == pytest.approx(2 * amplitude, rel=0.05)


def test_a_lattice_that_multiplies_the_light_follows_it_and_one_that_adds_does_not() -> None:
    light = np.linspace(40, 200, 128)[:, None] * np.ones((128, 128))
    wave = np.where(np.arange(128) % 2, -1.0, 1.0)

    multiplied = measure(grey(light * (1 + 0.06 * wave)))
    added = measure(grey(light + 6 * wave))

    assert multiplied.lattice_follows_light > 0.9
    assert abs(added.lattice_follows_light) < 0.3


@pytest.mark.parametrize("sigma", [1.5, 4.0, 10.0])
def test_noise_is_measured_in_grey_levels(sigma: float) -> None:
    noise = np.random.default_rng(1).normal(0, sigma, (256, 256))

    assert measure(grey(128 + noise)).noise == pytest.approx(sigma, rel=0.1)


def test_noise_on_one_half_only_is_uneven() -> None:
    noise = np.random.default_rng(1).normal(0, 6, (128, 128))
    half = noise * (np.arange(128) < 64)

    assert measure(grey(128 + half)).noise_unevenness > 20
    assert measure(grey(128 + noise)).noise_unevenness < 5


@pytest.mark.parametrize("name", ["coffee", "grass", "china"])
def test_repeated_pixels_step_in_pairs_and_the_jpeg_grid_does_not_count(name: str) -> None:
    original = crop(name)
    repeated = original[::2, ::2].repeat(2, axis=0).repeat(2, axis=1)

    assert measure(repeated).pair_steps > 15
    assert measure(compress(original, 75)).pair_steps < 1.5
    assert measure(compress(original, 40)).jpeg_steps > 1.5 * measure(original).jpeg_steps


@pytest.mark.parametrize("name", ["coffee", "grass", "china"])
def test_a_blurred_crop_loses_edges_grain_and_fine_detail(name: str) -> None:
    sharp = crop(name)
    image = Image.fromarray(sharp)
    soft = np.asarray(image.resize((43, 43)).resize((128, 128), Image.Resampling.BICUBIC))

    before, after = measure(sharp), measure(soft)

    assert after.edge_width > before.edge_width
    assert after.edge_snap < before.edge_snap
    assert after.finest_drop > before.finest_drop + 5
    assert after.grain < before.grain
    assert after.diagonal_tie > before.diagonal_tie
    assert after.bare_blocks > before.bare_blocks


def test_colour_figures_tell_grey_from_colour() -> None:
    colour, plain = measure(crop("coffee")), measure(crop("camera"))

    assert plain.saturation == 0 and colour.saturation > 20
    assert colour.chroma_detail > plain.chroma_detail + 10


def test_clipping_counts_pixels_at_the_ends_of_the_scale() -> None:
    plane = np.full((64, 64), 128.0)
    plane[:16], plane[48:] = 0, 255

    figures = measure(grey(plane))

    assert figures.clipped_dark == figures.clipped_bright == 25
    assert figures.tonal_range == 255
