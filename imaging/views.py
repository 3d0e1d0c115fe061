"""What of an image a teacher is sent: the stored file as it is, or a thumbnail and crops. Pure.

Teachers shrink large images before they look at them, and fine traces vanish with that. Crops are
cut at full resolution; where they lie follows from the pixels alone: a grid of windows covers the
image evenly, and those with the most local detail are taken.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from core.ids import sha256_bytes
from core.recipe import Views
from core.records import ImageRecord, View
from imaging.decode import open_image

MEDIA_TYPES: Final = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
WHOLE: Final = "whole"
THUMBNAIL: Final = "thumbnail"
CROP: Final = "crop"
PNG_LEVEL: Final = 3
"""of zlib: much faster than its default of 6, for files that are hardly larger"""


class Shot(NamedTuple):
    """One picture of an image, ready to be sent."""

    view: View
    data: bytes
    media_type: str


class Window(NamedTuple):
    """A part of an image, in pixels from its upper left corner."""

    left: int
    top: int
    width: int
    height: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right, bottom."""
        return self.left, self.top, self.left + self.width, self.top + self.height


def take_views(image: ImageRecord, data: bytes, views: Views | None) -> tuple[Shot, ...]:
    """The pictures of an image whose stored bytes are `data`; the first shows all of it.

    Without `views`, and for an image no longer than the thumbnail, that is the stored file itself,
    byte for byte. DataError when the bytes cannot be decoded.
    """
    if views is None or max(image.width, image.height) <= views.thumbnail:
        whole = Window(0, 0, image.width, image.height)
        size = (image.width, image.height)
        return (_shot(WHOLE, whole, size, data, MEDIA_TYPES[image.format]),)
    upright = open_image(data).rgb
    return (_thumbnail(upright, views), *_crops(upright, views))


def choose_windows(image: Image.Image, *, size: int, count: int) -> list[Window]:
    """The `count` windows with most local detail among those of a grid, in reading order.

    The grid has the fewest windows of `size` by `size` pixels that cover the image; neighbours
    overlap evenly where its sides are no multiples of `size`. Detail is the mean absolute
    difference of neighbouring grey levels; of equal windows the earlier is taken.
    """
    grey = np.asarray(image.convert("L"))
    windows = list(_grid(image.width, image.height, size))
    by_detail = sorted(windows, key=lambda window: -_detail(grey, window))
    return sorted(by_detail[:count], key=lambda window: (window.top, window.left))


def _thumbnail(image: Image.Image, views: Views) -> Shot:
    shrink = views.thumbnail / max(image.size)
    width, height = (max(1, round(side * shrink)) for side in image.size)
    small = image.resize((width, height), Image.Resampling.LANCZOS)
    return _encoded(THUMBNAIL, Window(0, 0, *image.size), small, views)


def _crops(image: Image.Image, views: Views) -> Iterator[Shot]:
    for window in choose_windows(image, size=views.crop_size, count=views.crops):
        yield _encoded(CROP, window, image.crop(window.box), views)


def _encoded(name: str, window: Window, image: Image.Image, views: Views) -> Shot:
    buffer = io.BytesIO()
    if views.jpeg_quality is None:
        image.save(buffer, "PNG", compress_level=PNG_LEVEL)
        return _shot(name, window, image.size, buffer.getvalue(), MEDIA_TYPES["PNG"])
    image.save(buffer, "JPEG", quality=views.jpeg_quality, subsampling="4:4:4")
    return _shot(name, window, image.size, buffer.getvalue(), MEDIA_TYPES["JPEG"])


def _shot(name: str, window: Window, sent: tuple[int, int], data: bytes, media_type: str) -> Shot:
    view = View(
        name=name,
        **window._asdict(),
        sent_width=sent[0],
        sent_height=sent[1],
        num_bytes=len(data),
        sha256=sha256_bytes(data),
    )
    return Shot(view=view, data=data, media_type=media_type)


def _grid(width: int, height: int, size: int) -> Iterator[Window]:
    for top in _starts(height, size):
        for left in _starts(width, size):
            yield Window(left, top, min(size, width), min(size, height))


def _starts(length: int, size: int) -> list[int]:
    """Where the fewest stretches of `size` that cover `length` begin, evenly spread."""
    count = math.ceil(length / size)
    return [round(i * (length - size) / (count - 1)) for i in range(count)] if count > 1 else [0]


def _detail(grey: np.ndarray, window: Window) -> float:
    left, top, right, bottom = window.box
    levels = grey[top:bottom, left:right].astype(np.int16)
    return sum(float(np.abs(np.diff(levels, axis=axis)).mean()) for axis in (0, 1))
