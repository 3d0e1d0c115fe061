"""Images of the store on a page: small, or with the regions of findings drawn. By hash alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw, ImageFont

from core.errors import DataError
from core.records import Authenticity, ImageRecord, Mask, TraceFinding
from dashboard import charts, show
from dashboard.place import Place
from imaging.decode import open_image

SMALL: Final = 240
"""pixels of the longer side"""
LARGE: Final = 900
PICTURES_HELD: Final = 3_000
COLUMNS: Final = 6
VEIL: Final = 110
"""of 255: how far the colour of a region covers the picture"""
WORDS: Final = {Authenticity.REAL: "real", Authenticity.FAKE: "fake", None: "no label"}
BADGES: Final = {"real": "blue", "fake": "orange"} | dict.fromkeys(
    ("no label", "no verdict", "not read"), "gray"
)


def grid(number: int, *, columns: int = COLUMNS) -> list[Any]:
    """So many places in rows, or a few more."""
    return [column for _ in range(0, number, columns) for column in st.columns(columns)]


def thumbnail(place: Place, image: ImageRecord) -> None:
    """A small picture from the image store with its label, or why there is none."""
    small(place, image)
    badge(WORDS[image.label])


def small(place: Place, image: ImageRecord) -> None:
    """The same without its label, where another badge says something of the image."""
    _show(place, image, SMALL)


def badge(label: str | None) -> None:
    """Real or fake, in the colours that stand for them everywhere; nothing else is a badge."""
    word = label if label in BADGES else WORDS[None]
    st.badge(word, color=BADGES[word])


def marked(place: Place, image: ImageRecord, findings: Sequence[TraceFinding]) -> None:
    """The picture with the regions of these findings, numbered, in the colours of real and fake."""
    _show(place, image, LARGE, tuple(findings))


def of_hash(place: Place, path: str, image_id: str) -> None:
    """A small picture of which only its place in the store is known."""
    _place(_draw(str(place.settings.image_store), path, SMALL, (), place), image_id)


def _show(
    place: Place, image: ImageRecord, size: int, findings: tuple[TraceFinding, ...] = ()
) -> None:
    picture = _draw(str(place.settings.image_store), image.path, size, findings, place)
    _place(picture, f"{image.image_id}, {WORDS[image.label]}")


def _place(picture: bytes | str, name: str) -> None:
    if isinstance(picture, bytes):
        st.image(picture, width="stretch", alt=f"image {show.cell(name)}")
    else:
        show.text(picture)


@st.cache_data(max_entries=PICTURES_HELD, show_spinner=False)
def _draw(
    store: str, path: str, size: int, findings: tuple[TraceFinding, ...], _place: Place
) -> bytes | str:
    """JPEG bytes; a text says why there are none. A file of the store never changes."""
    try:
        picture = open_image(_place.store.read(path)).rgb
    except DataError as error:
        return str(error)
    picture = _sized(picture, size, grows=bool(findings))
    for number, finding in enumerate(findings, start=1):
        if finding.region is not None:
            picture = _mark(picture, finding, number)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _sized(picture: Image.Image, size: int, *, grows: bool) -> Image.Image:
    """The picture with so long a side; a smaller one only `grows` where marks would hide it."""
    scale = size / max(picture.size)
    if scale > 1 and not grows:
        return picture
    width, height = (max(1, round(side * scale)) for side in picture.size)
    return picture.resize((width, height))


def _mark(picture: Image.Image, finding: TraceFinding, number: int) -> Image.Image:
    region = finding.region
    assert region is not None
    colour = charts.FAKE if finding.points_to is Authenticity.FAKE else charts.REAL
    veil = Image.new("L", picture.size, 0)
    if isinstance(region, Mask):
        veil.paste(VEIL, mask=_pixels(region).resize(picture.size))
    canvas = Image.composite(Image.new("RGB", picture.size, colour), picture, veil)
    pen = ImageDraw.Draw(canvas)
    if not isinstance(region, Mask):
        corners = [(x * picture.width, y * picture.height) for x, y in region.points]
        pen.line([*corners, corners[0]], fill=colour, width=3, joint="curve")
    left, top, _, _ = region.bounding_box()
    x, y = left * picture.width, top * picture.height
    pen.rectangle((x, y, x + 22, y + 20), fill=colour)
    pen.text((x + 11, y + 10), str(number), fill="white", anchor="mm", font=_FONT)
    return canvas


_FONT = ImageFont.load_default(size=15)


def _pixels(mask: Mask) -> Image.Image:
    marks = np.repeat(np.arange(len(mask.counts)) % 2, mask.counts).astype(np.uint8) * 255
    return Image.fromarray(marks.reshape(mask.width, mask.height).T.copy(), "L")
