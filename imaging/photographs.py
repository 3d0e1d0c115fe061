"""The demo's photographs: they ship inside the scikit-image and scikit-learn wheels.

Only pictures whose package states a licence or free use are listed (in the docstrings of
`skimage.data` and in `sklearn/datasets/images/README.txt`); `moon`, `page` and the `motorcycle`
pair state none and stay out, and so does everything that would have to be downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from core.errors import ConfigError

Pixels = NDArray[np.uint8]
"""RGB, shape (height, width, 3); grey pictures have three equal channels"""

HALVED_ABOVE = 900
"""pictures with a longer side are halved: their detail is too coarse for small crops"""

PUBLIC_DOMAIN = "public domain"
UNRESTRICTED = "no known copyright restrictions"
SKIMAGE = "skimage/data"
SKLEARN = "sklearn/datasets/images"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photograph:
    """One photograph of the demo, with its licence and where it comes from."""

    name: str
    licence: str
    """SPDX identifier or a short phrase"""
    origin: str
    """file inside the installed package, and the author where attribution is asked for"""
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    file: str
    licence: str
    credit: str = ""

    @property
    def title(self) -> str:
        return f"{self.name} ({self.credit})" if self.credit else self.name


ENTRIES = (
    _Entry("astronaut", f"{SKIMAGE}/astronaut.png", PUBLIC_DOMAIN),
    _Entry("chelsea", f"{SKIMAGE}/chelsea.png", "CC0-1.0"),
    _Entry("coffee", f"{SKIMAGE}/coffee.png", "CC0-1.0"),
    _Entry("hubble-deep-field", f"{SKIMAGE}/hubble_deep_field.jpg", PUBLIC_DOMAIN),
    _Entry("immunohistochemistry", f"{SKIMAGE}/ihc.png", UNRESTRICTED),
    _Entry("retina", f"{SKIMAGE}/retina.jpg", "CC0-1.0"),
    _Entry("rocket", f"{SKIMAGE}/rocket.jpg", PUBLIC_DOMAIN),
    _Entry("china", f"{SKLEARN}/china.jpg", "CC-BY-2.0", "by danielbuechele on Flickr"),
    _Entry("flower", f"{SKLEARN}/flower.jpg", "CC-BY-2.0", "by vultilion on Flickr"),
    _Entry("brick", f"{SKIMAGE}/brick.png", "CC0-1.0"),
    _Entry("camera", f"{SKIMAGE}/camera.png", "CC0-1.0"),
    _Entry("clock", f"{SKIMAGE}/clock_motion.png", PUBLIC_DOMAIN),
    _Entry("coins", f"{SKIMAGE}/coins.png", UNRESTRICTED),
    _Entry("grass", f"{SKIMAGE}/grass.png", "CC0-1.0"),
    _Entry("gravel", f"{SKIMAGE}/gravel.png", "CC0-1.0"),
    _Entry("text", f"{SKIMAGE}/text.png", PUBLIC_DOMAIN),
)

LICENCES = "; ".join(
    f"{licence}: {', '.join(entry.title for entry in ENTRIES if entry.licence == licence)}"
    for licence in sorted({entry.licence for entry in ENTRIES})
)
"""all photographs by licence, in one line"""


def photographs() -> tuple[Photograph, ...]:
    """The photographs of the demo, read from the installed packages; nothing is downloaded."""
    return tuple(_load(entry) for entry in ENTRIES)


def _load(entry: _Entry) -> Photograph:
    return Photograph(
        name=entry.name,
        licence=entry.licence,
        origin=", ".join(filter(None, (entry.file, entry.credit))),
        pixels=_read_pixels(_locate(entry.file)),
    )


def _locate(file: str) -> Path:
    package, inner = file.split("/", 1)
    spec = find_spec(package)  # finds the folder without importing the package
    if spec is None or spec.origin is None:
        raise ConfigError(f"the demo needs {file}: install the package {package}")
    return Path(spec.origin).parent / inner


def _read_pixels(path: Path) -> Pixels:
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); reinstall its package") from None
    return np.asarray(rgb.reduce(2) if max(rgb.size) > HALVED_ABOVE else rgb)
