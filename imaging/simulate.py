"""Simulated generators, and the demo images that they and the photographs make.

No image here comes from a real generator. Each function named `sim-...` passes a photograph's crop
through the kind of bottleneck and up-sampling that generators use, because that is what leaves
their traces: AutoGAN (X. Zhang, S. Karaman, S.-F. Chang, "Detecting and Simulating Artifacts in GAN
Fake Images", WIFS 2019, sections III and IV), where up-sampling copies the low spectrum around the
Nyquist frequency; and R. Durall, M. Keuper, J. Keuper, "Watch your Up-Convolution", CVPR 2020, for
the damped end of the spectrum.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from core.errors import ConfigError
from core.ids import seed_of
from core.records import Authenticity
from imaging.photographs import ENTRIES, Photograph, Pixels, photographs

Plane = NDArray[np.float64]
"""RGB as floats 0..255, shape (height, width, 3)"""
SimulatedGenerator = Callable[[Pixels, Generator], Pixels]

DETAIL_WINDOW = 16
"""side in pixels of the neighbourhood whose contrast counts as detail"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoImage:
    """One image of the demo; `group` is the photograph that it was cut from."""

    name: str
    """a file name; says nothing about the label"""
    data: bytes
    """JPEG"""
    label: Authenticity
    generator: str | None
    group: str


def checkerboard(rgb: Pixels, rng: Generator) -> Pixels:
    """A transposed convolution, stride 2, with a 3x3 kernel: its uneven overlap is a checkerboard.

    With side taps of exactly 0.5 the kernel interpolates bilinearly; learnt kernels miss that.
    """
    side = 0.5 + rng.choice((-1, 1)) * rng.uniform(0.03, 0.06)
    pooled = _pool(_pad(rgb, 4), 2)
    spread = np.zeros((pooled.shape[0] * 2, pooled.shape[1] * 2, 3))
    spread[::2, ::2] = pooled
    taps = np.array([side, 1.0, side])
    return _finish(_convolve(spread, taps) / (0.5 + side) ** 2, rgb)


def nearest(rgb: Pixels, rng: Generator) -> Pixels:
    """Nearest-neighbour up-sampling of a bottleneck, then a small kernel that softens the steps."""
    side = rng.uniform(0.08, 0.16)
    blocks = _pool(_pad(rgb, 4), 2).repeat(2, axis=0).repeat(2, axis=1)
    return _finish(_convolve(blocks, np.array([side, 1 - 2 * side, side])), rgb)


def bilinear(rgb: Pixels, rng: Generator) -> Pixels:
    """Bilinear up-sampling of a bottleneck, then the slight sharpening that decoders learn."""
    side = rng.uniform(0.02, 0.10)
    smooth = _enlarge(_pool(_pad(rgb, 4), 2), 2, order=1)
    return _finish(_convolve(smooth, np.array([-side, 1 + 2 * side, -side])), rgb)


def autoencoder(rgb: Pixels, rng: Generator) -> Pixels:
    """A fourfold bottleneck, enlarged bicubically; part of the detail comes back past it."""
    kept = rng.uniform(0.15, 0.35)
    padded = _pad(rgb, 4)
    return _finish(kept * padded + (1 - kept) * _enlarge(_pool(padded, 4), 4, order=3), rgb)


def damped(rgb: Pixels, rng: Generator) -> Pixels:
    """The upper end of the spectrum damped, as generators fail to reproduce it."""
    cutoff, floor = rng.uniform(0.16, 0.24), rng.uniform(0.02, 0.12)
    padded = np.pad(_pad(rgb, 4), ((16, 16), (16, 16), (0, 0)), mode="reflect")
    height, width = padded.shape[:2]
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    gain = floor + (1 - floor) / (1 + (radius / cutoff) ** 8)
    spectrum = np.fft.rfft2(padded, axes=(0, 1)) * gain[:, :, None]
    return _finish(np.fft.irfft2(spectrum, s=(height, width), axes=(0, 1))[16:-16, 16:-16], rgb)


GENERATORS: Mapping[str, SimulatedGenerator] = MappingProxyType(
    {
        "sim-checkerboard": checkerboard,
        "sim-nearest": nearest,
        "sim-bilinear": bilinear,
        "sim-autoencoder": autoencoder,
        "sim-damped": damped,
    }
)


def _pad(rgb: Pixels, multiple: int) -> Plane:
    """Repeat the last row and column until both sides are multiples of `multiple`."""
    height, width = rgb.shape[:2]
    missing = ((0, -height % multiple), (0, -width % multiple), (0, 0))
    return np.pad(rgb.astype(np.float64), missing, mode="edge")


def _pool(plane: Plane, factor: int) -> Plane:
    height, width = plane.shape[:2]
    blocks = plane.reshape(height // factor, factor, width // factor, factor, 3)
    pooled: Plane = blocks.mean(axis=(1, 3))
    return pooled


def _enlarge(plane: Plane, factor: int, *, order: int) -> Plane:
    large: Plane = ndimage.zoom(
        plane, (factor, factor, 1), order=order, mode="mirror", grid_mode=True
    )
    return large


def _convolve(plane: Plane, taps: NDArray[np.float64]) -> Plane:
    rows = ndimage.convolve1d(plane, taps, axis=0, mode="mirror")
    both: Plane = ndimage.convolve1d(rows, taps, axis=1, mode="mirror")
    return both


def _finish(plane: Plane, like: Pixels) -> Pixels:
    height, width = like.shape[:2]
    return np.clip(np.rint(plane[:height, :width]), 0, 255).astype(np.uint8)


def count_demo_images(crops: int) -> int:
    """How many images `demo_images` makes when asked for at least `crops`."""
    return 2 * len(ENTRIES) * _crops_per_class(crops)


def _crops_per_class(crops: int) -> int:
    return -(-crops // (2 * len(ENTRIES)))


def demo_images(
    *,
    seed: int,
    crops: int,
    crop_size: int,
    generators: Sequence[str],
    jpeg_quality: tuple[int, int],
    holdout: Collection[str],
    test_photographs: frozenset[str],
) -> Iterator[DemoImage]:
    """At least `crops` JPEG images: per photograph as many real as fake, made from other crops.

    Generators in `holdout` are used on `test_photographs` only. Both classes get the same sizes,
    flips and, per photograph, the very same JPEG qualities (inclusive range, 4:2:0).
    """
    sources = photographs()
    per_class = _crops_per_class(crops)
    _check_generators(generators, holdout)
    for photograph in sources:
        _check_room(photograph, 2 * per_class, crop_size)
    for photograph in sources:
        is_test = photograph.name in test_photographs
        allowed = [name for name in generators if is_test or name not in holdout]
        rng = np.random.default_rng(seed_of("demo", seed, photograph.name))
        cuts = _cut(photograph.pixels, 2 * per_class, crop_size, rng)
        qualities = rng.integers(jpeg_quality[0], jpeg_quality[1], per_class, endpoint=True)
        yield from _deal(photograph.name, cuts, allowed, qualities, rng)


def _check_generators(generators: Sequence[str], holdout: Collection[str]) -> None:
    for name in (*generators, *holdout):
        if name not in GENERATORS:
            known = ", ".join(GENERATORS)
            raise ConfigError(f"there is no simulated generator {name!r}; there are: {known}")
    if not set(generators) - set(holdout):
        raise ConfigError("demo: every generator is held out; leave at least one for training")


def _check_room(photograph: Photograph, count: int, size: int) -> None:
    height, width = photograph.pixels.shape[:2]
    places = max(0, height - size + 1) * max(0, width - size + 1) // 2
    if places < count:
        raise ConfigError(
            f"demo: photograph {photograph.name} ({width} x {height}) has room for {places} crops "
            f"of {size} px, not for {count}; lower crops or crop_size"
        )


def _cut(pixels: Pixels, count: int, size: int, rng: Generator) -> list[Pixels]:
    """Crops at `count` different places, each flipped left to right or not."""
    places = _detailed_places(pixels, size)
    chosen = rng.choice(len(places), count, replace=False)
    flips = rng.integers(2, size=count)
    return [
        pixels[top : top + size, left : left + size][:, :: -1 if flip else 1]
        for (top, left), flip in zip(places[chosen], flips, strict=True)
    ]


def _detailed_places(pixels: Pixels, size: int) -> NDArray[np.intp]:
    """Top and left of that half of all crops with the most detail, so that none is featureless.

    Detail is the mean logarithm of the local standard deviation: flat corners weigh it down.
    """
    grey = pixels.mean(axis=2)
    mean = ndimage.uniform_filter(grey, DETAIL_WINDOW)
    variance = ndimage.uniform_filter(grey**2, DETAIL_WINDOW) - mean**2
    detail = ndimage.uniform_filter(np.log1p(np.maximum(variance, 0)), size)
    half = size // 2
    inner = detail[half : half + grey.shape[0] - size + 1, half : half + grey.shape[1] - size + 1]
    return np.argwhere(inner >= np.median(inner))


def _deal(
    group: str,
    cuts: Sequence[Pixels],
    generators: Sequence[str],
    qualities: NDArray[np.int64],
    rng: Generator,
) -> Iterator[DemoImage]:
    """Turn by turn one real image and one fake one; the fakes go round the generators."""
    order = rng.permutation(len(cuts))
    for turn, quality in enumerate(qualities):
        generator = generators[turn % len(generators)]
        real, source = cuts[2 * turn], cuts[2 * turn + 1]
        fake = GENERATORS[generator](source, rng)
        for place, pixels, maker in ((2 * turn, real, None), (2 * turn + 1, fake, generator)):
            yield DemoImage(
                name=f"{group}-{order[place]:04d}.jpg",
                data=_encode_jpeg(pixels, int(quality)),
                label=Authenticity.FAKE if maker else Authenticity.REAL,
                generator=maker,
                group=group,
            )


def _encode_jpeg(pixels: Pixels, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, "JPEG", quality=quality, subsampling="4:2:0"
    )
    return buffer.getvalue()
