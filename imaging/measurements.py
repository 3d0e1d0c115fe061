"""What can be measured on the pixels of one image: figures for findings and for a linear baseline.

Every figure is taken at native resolution from the centre of the image, at most `WINDOW` pixels a
side, so that the cost is bounded. All are finite on any picture: ratios carry a small constant in
grey levels (`FLOOR`), far below what 8-bit rounding leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from core.errors import DataError
from core.records import Region

Pixels = NDArray[np.uint8]
"""RGB, shape (height, width, 3)"""
Plane = NDArray[np.float64]
"""one channel in grey levels 0..255, shape (height, width)"""

WINDOW = 512
"""pixels; larger images are measured on their centre"""
BLOCK = 16
"""pixels; side of the blocks that local figures are taken over, and the least side of an image"""
FLOOR = 0.05
"""grey levels"""
JPEG_GRID = 8
LUMA = np.array([0.299, 0.587, 0.114])
NOISE_MASK = np.array([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]]) / 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """The figures of one image. Grey levels run from 0 to 255, decibels are 10 log10."""

    lattice: float
    """grey levels between neighbouring columns, rows or diagonals that alternate over the frame"""
    lattice_of_light: float
    """the same in percent of the local brightness"""
    lattice_follows_light: float
    """correlation over blocks of the lattice's strength with the brightness, -1..1"""
    pair_steps: float
    """percent by which steps between neighbours alternate with period 2, beyond the JPEG grid"""
    quad_steps: float
    """percent by which steps between neighbours vary with period 4, beyond the JPEG grid"""
    quad_bends: float
    """percent by which second differences vary less with period 4 than the JPEG grid explains"""
    jpeg_steps: float
    """percent by which steps between neighbours vary with period 8: the grid of JPEG itself"""
    finest_drop: float
    """decibels of structures under 3 pixels (above 0.35 cycles per pixel) below all detail"""
    fine_drop: float
    """decibels from structures of 8..16 pixels down to those of 2.5..4 pixels"""
    middle_drop: float
    """decibels from structures of 8..16 pixels down to those of 4..8 pixels"""
    spectrum_bend: float
    """decibels by which the spectrum falls faster around 8 pixels than around 4"""
    noise: float
    """median over blocks of the noise level in grey levels (Immerkaer 1996)"""
    noise_in_smooth: float
    """the same, lowest tenth of the blocks"""
    noise_unevenness: float
    """decibels between the noisiest and the quietest tenth of the blocks"""
    grain: float
    """noise in percent of the contrast of its block, highest tenth of the blocks that have any
    contrast; 100 where none has"""
    grain_floor: float
    """the same, lowest tenth"""
    neighbour_tie: float
    """correlation of the residual with that of the next pixel, -1..1"""
    diagonal_tie: float
    """the same for the diagonal neighbour"""
    skip_tie: float
    """the same for the pixel after the next"""
    edge_width: float
    """pixels that the strongest edges take from dark to light"""
    edge_contrast: float
    """grey levels across the strongest edges"""
    edge_snap: float
    """percent of the local contrast that the sharpest steps cover between two neighbours"""
    gradient_tails: float
    """natural logarithm of the kurtosis of the gradient"""
    step_tails: float
    """spread of the residual's extremes in its own standard deviations"""
    contrast: float
    """median over blocks of the standard deviation, grey levels"""
    textured_blocks: float
    """percent of the blocks that hold any texture of 4 to 16 pixels"""
    bare_blocks: float
    """percent of textured blocks that hold next to no fine detail"""
    chroma_detail: float
    """decibels of fine colour detail against fine luminance detail"""
    saturation: float
    """mean of (max - min) / max over the channels, percent"""
    clipped_dark: float
    """percent of pixels below 3 grey levels"""
    clipped_bright: float
    """percent of pixels above 252 grey levels"""
    tonal_range: float
    """grey levels between the 1st and the 99th percentile"""
    places: Mapping[str, Region]
    """where a figure is most extreme: `lattice` strongest, `grain` weakest"""

    def as_dict(self) -> dict[str, float]:
        """The figures by name, in a fixed order."""
        return {name: getattr(self, name) for name in FIGURES}


FIGURES: tuple[str, ...] = tuple(f.name for f in fields(Measurements) if f.name != "places")
PLACES: tuple[str, ...] = ("lattice", "grain")


def measure(rgb: Pixels) -> Measurements:
    """Measure an upright image: uint8 RGB, shape (height, width, 3), 16 pixels a side or more."""
    if rgb.ndim != 3 or rgb.shape[2] != 3 or min(rgb.shape[:2]) < BLOCK:
        raise DataError(f"cannot measure pixels of shape {rgb.shape}: need 16 x 16 x 3 or more")
    window, frame = _centre(rgb)
    luma = window @ LUMA
    lattice, strongest = _measure_lattice(luma)
    noise, weakest = _measure_noise(luma)
    figures: dict[str, Any] = {
        **lattice,
        **_measure_grids(luma),
        **_measure_spectrum(luma),
        **noise,
        **_measure_residual(luma),
        **_measure_edges(luma),
        **_measure_tones(window, luma),
    }
    regions = (frame.region(strongest), frame.region(weakest))
    places = dict(zip(PLACES, regions, strict=True))
    return Measurements(**{name: float(v) for name, v in figures.items()}, places=places)


@dataclass(frozen=True, slots=True)
class _Frame:
    """The measured window inside its image, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def region(self, box: tuple[int, int, int, int]) -> Region:
        """A rectangle of the window (top, left, bottom, right) as fractions of the image."""
        top, bottom = ((self.top + y) / self.height for y in (box[0], box[2]))
        left, right = ((self.left + x) / self.width for x in (box[1], box[3]))
        return Region(points=((left, top), (right, top), (right, bottom), (left, bottom)))


def _centre(rgb: Pixels) -> tuple[NDArray[np.float64], _Frame]:
    height, width = rgb.shape[:2]
    top, left = max(0, height - WINDOW) // 2, max(0, width - WINDOW) // 2
    window = rgb[top : top + WINDOW, left : left + WINDOW].astype(np.float64)
    return window, _Frame(top, left, height, width)


def _blocks(plane: Plane) -> NDArray[np.float64]:
    """Whole blocks, shape (rows, columns, BLOCK * BLOCK)."""
    rows, columns = plane.shape[0] // BLOCK, plane.shape[1] // BLOCK
    cut = plane[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return cut.swapaxes(1, 2).reshape(rows, columns, BLOCK * BLOCK)


def _peak(scores: Plane) -> tuple[int, int, int, int]:
    """The pixel rectangle of the 2 x 2 blocks with the highest mean score."""
    span = min(2, *scores.shape)
    sums = np.lib.stride_tricks.sliding_window_view(scores, (span, span)).sum(axis=(2, 3))
    row, column = np.unravel_index(np.argmax(sums), sums.shape)
    top, left = int(row) * BLOCK, int(column) * BLOCK
    return top, left, top + span * BLOCK, left + span * BLOCK


def _decibels(numerator: float, denominator: float) -> float:
    return 10 * float(np.log10((numerator + FLOOR) / (denominator + FLOOR)))


def _correlate(first: Plane, second: Plane) -> float:
    """Pearson's correlation; next to nothing varying counts as no correlation."""
    a, b = first - first.mean(), second - second.mean()
    return float((a * b).mean() / (a.std() * b.std() + FLOOR**2))


def _measure_lattice(luma: Plane) -> tuple[dict[str, float], tuple[int, int, int, int]]:
    """Deconvolution's checkerboard keeps its sign from block to block; texture does not."""
    height, width = luma.shape
    residual = luma - ndimage.uniform_filter(luma, 3)
    columns = 1.0 - 2 * (np.arange(width) % 2)
    rows = (1.0 - 2 * (np.arange(height) % 2))[:, None]
    waves = (columns[None, :], rows, rows * columns)
    gains = (3 / 2, 3 / 2, 9 / 4)  # from the residual of a wave to the step between its neighbours
    maps = [
        gain * _blocks(residual * wave).mean(axis=2)
        for wave, gain in zip(waves, gains, strict=True)
    ]
    levels = [abs(float(np.median(m))) for m in maps]
    light = _blocks(luma).mean(axis=2) + BLOCK
    best = maps[int(np.argmax(levels))]
    figures = {
        "lattice": max(levels),
        "lattice_of_light": 100 * abs(float(np.median(best / light))),
        "lattice_follows_light": _correlate(np.abs(best), light),
    }
    return figures, _peak(np.abs(best))


def _measure_grids(luma: Plane) -> dict[str, float]:
    """Up-sampling makes derivatives periodic (Gallagher 2005); the part that JPEG explains is off.

    A JPEG grid is an impulse every 8 pixels in the first difference, the same at every period 8/k,
    and twice as wide in the second, which weights it with cos(pi k / 8).
    """
    steps, bends = _fold(luma, 1), _fold(luma, 2)
    grid = (steps[1] + steps[3]) / 2
    weights = np.cos(np.pi * np.arange(4) / JPEG_GRID)
    explained = (bends[1] + bends[3]) / (weights[1] + weights[3]) * weights[2]
    return {
        "pair_steps": 100 * (steps[4] - grid),
        "quad_steps": 100 * (steps[2] - grid),
        "quad_bends": 100 * (explained - bends[2]),
        "jpeg_steps": 100 * grid,
    }


def _fold(luma: Plane, order: int) -> NDArray[np.float64]:
    """Relative amplitude of the periods 8/k, k = 0..4, in the mean size of a derivative."""
    amplitudes = np.zeros(JPEG_GRID // 2 + 1)
    for axis in (0, 1):
        sizes = np.log1p(np.abs(np.diff(luma, order, axis=axis))).mean(axis=1 - axis)
        phases = np.array([sizes[phase::JPEG_GRID].mean() for phase in range(JPEG_GRID)])
        amplitudes += np.abs(np.fft.rfft(phases)) / (phases.sum() + 2 * FLOOR) / 2
    return amplitudes


def _measure_spectrum(luma: Plane) -> dict[str, float]:
    """Energy by size of structure: generators damp or bend the natural, steady fall."""
    height, width = luma.shape
    taper = np.hanning(height + 2)[1:-1, None] * np.hanning(width + 2)[None, 1:-1]
    power = np.abs(np.fft.rfft2((luma - luma.mean()) * taper)) ** 2 / luma.size
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    edges = np.array([0.03, 0.0625, 0.125, 0.25, 0.35, 0.40])
    band = np.digitize(radius, edges).ravel()
    energy = np.bincount(band, power.ravel(), minlength=7)
    density = energy / np.maximum(np.bincount(band, minlength=7), 1)
    middle_drop = _decibels(density[2], density[3])
    fine_drop = _decibels(density[2], density[4])
    return {
        "finest_drop": _decibels(energy[1:].sum(), energy[5:].sum()),
        "fine_drop": fine_drop,
        "middle_drop": middle_drop,
        "spectrum_bend": 2 * middle_drop - fine_drop,
    }


def _measure_noise(luma: Plane) -> tuple[dict[str, float], tuple[int, int, int, int]]:
    """Sensor noise lies over everything; what a generator smooths has none where texture is."""
    residual = ndimage.correlate(luma, NOISE_MASK)
    level = np.abs(_blocks(residual)).mean(axis=2) * np.sqrt(np.pi / 2)
    contrast = _blocks(luma).std(axis=2)
    low, high = np.quantile(level, (0.1, 0.9))
    coarse = ndimage.gaussian_filter(luma, 1.0) - ndimage.gaussian_filter(luma, 2.5)
    texture = np.square(_blocks(coarse)).mean(axis=2)
    is_textured = texture > 1
    is_alive = contrast > 10 * FLOOR
    grain = np.where(is_alive, 100 * (level + FLOOR) / (contrast + 10 * FLOOR), 100.0)
    is_bare = is_textured & (np.square(level) < texture / 16)
    floor, ceiling = np.quantile(grain[is_alive], (0.1, 0.9)) if is_alive.any() else (100, 100)
    figures = {
        "noise": np.median(level),
        "noise_in_smooth": low,
        "noise_unevenness": 2 * _decibels(high, low),
        "grain": ceiling,
        "grain_floor": floor,
        "contrast": np.median(contrast),
        "textured_blocks": 100 * is_textured.mean(),
        "bare_blocks": 100 * is_bare.sum() / max(1, is_textured.sum()),
    }
    return figures, _peak(-grain)


def _measure_residual(luma: Plane) -> dict[str, float]:
    """Neighbouring residuals are tied where pixels were interpolated from common sources."""
    residual = luma - ndimage.gaussian_filter(luma, 1.0)
    power = float(np.square(residual).mean()) + FLOOR
    right, down = residual[:, :-1] * residual[:, 1:], residual[:-1] * residual[1:]
    falling, rising = residual[:-1, :-1] * residual[1:, 1:], residual[:-1, 1:] * residual[1:, :-1]
    right2, down2 = residual[:, :-2] * residual[:, 2:], residual[:-2] * residual[2:]
    low, high = np.quantile(residual, (0.001, 0.999))
    return {
        "neighbour_tie": (right.mean() + down.mean()) / 2 / power,
        "diagonal_tie": (falling.mean() + rising.mean()) / 2 / power,
        "skip_tie": (right2.mean() + down2.mean()) / 2 / power,
        "step_tails": (high - low) / np.sqrt(power),
    }


def _measure_edges(luma: Plane) -> dict[str, float]:
    """Width and strength of the strongest twentieth of all edges, and how heavy their tails are."""
    across, along = np.gradient(luma)
    squares = np.square(across)
    slope = np.sqrt(squares + np.square(along))
    local = ndimage.maximum_filter(luma, 9) - ndimage.minimum_filter(luma, 9)
    strongest = slope >= np.quantile(slope, 0.95)
    down, right = (np.abs(np.diff(luma, axis=axis)) for axis in (0, 1))
    steps = np.maximum(  # the largest around each corner where four pixels meet
        np.maximum(down[:, :-1], down[:, 1:]), np.maximum(right[:-1], right[1:])
    )
    return {
        "edge_width": np.median(local[strongest] / (slope[strongest] + 10 * FLOOR)),
        "edge_contrast": np.median(local[strongest]),
        "edge_snap": min(100, 100 * np.quantile(steps, 0.99) / (np.quantile(local, 0.9) + 1)),
        "gradient_tails": np.log((np.square(squares).mean() + 1) / (squares.mean() ** 2 + 1)),
    }


def _measure_tones(window: NDArray[np.float64], luma: Plane) -> dict[str, float]:
    """Colour against luminance, and how the tones fill their range."""
    red, green, blue = (np.ascontiguousarray(window[..., channel]) for channel in range(3))
    brightest = np.maximum(np.maximum(red, green), blue)
    darkest = np.minimum(np.minimum(red, green), blue)
    darkest_tone, brightest_tone = np.quantile(luma, (0.01, 0.99))
    return {
        "chroma_detail": _decibels(
            _fine_power(red - luma) + _fine_power(blue - luma), _fine_power(luma)
        ),
        "saturation": 100 * np.mean((brightest - darkest) / (brightest + 1)),
        "clipped_dark": 100 * np.mean(luma < 3),
        "clipped_bright": 100 * np.mean(luma > 252),
        "tonal_range": brightest_tone - darkest_tone,
    }


def _fine_power(plane: Plane) -> float:
    return float(np.square(plane - ndimage.uniform_filter(plane, 7)).mean())
