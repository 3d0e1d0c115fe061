"""Decode image files that nobody has checked: bounded, complete, and upright.

The size is read from the header and judged before anything is decoded. Metadata is cut first
(imaging.metadata), so that the decoder never sees a text chunk, an EXIF block or a tail. The whole
picture is then decoded: a file that is cut short is refused, never filled up with grey.

Time is bounded by bytes, by pixels, by the number of JPEG scans (a scan may be tiny and still cost
a pass over all pixels), and by a clock that is looked at whenever the decoder asks for more bytes.
One call into a codec cannot be interrupted; imaging.crew ends the process around it for that.
Pillow's global settings are neither relied upon nor changed.
"""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from core.errors import DataError
from imaging import jpeg
from imaging.chunks import read_png_depth, read_png_size, read_webp_size
from imaging.files import read_file, shown_name
from imaging.formats import name_mismatch, recognise_format
from imaging.metadata import CUTTERS, UPRIGHT, Cut, cut_metadata

MEBI: Final = 2**20
BITS_PER_SAMPLE: Final = 258
DECODER_ERRORS: Final = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError,
    OverflowError, ZeroDivisionError, MemoryError, RuntimeError, AssertionError, Warning,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""what Pillow has been seen to raise, or may raise, on files made to break it"""

OPENERS: Mapping[str, Callable[[io.BytesIO], ImageFile]] = MappingProxyType(
    {
        "JPEG": JpegImageFile, "PNG": PngImageFile, "WEBP": WebPImageFile, "GIF": GifImageFile,
        "BMP": BmpImageFile, "TIFF": TiffImageFile,
    }
)  # fmt: skip
"""Pillow's readers, called directly: no other format is ever tried, no global limit asked"""

TURNS: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
"""what makes a picture upright, by EXIF orientation"""
SIDEWAYS: Final = frozenset((5, 6, 7, 8))
"""orientations under which width and height change places"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What is too large, too small or too slow to be taken in."""

    max_bytes: int = 100 * MEBI
    max_pixels: int = 64 * MEBI
    """8192 x 8192; about 256 MB while it is decoded"""
    min_side: int = 32
    max_aspect: float = 16.0
    """longer side over shorter side"""
    max_scans: int = 64
    """of a progressive JPEG; encoders write about ten"""
    seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Decoded:
    """One picture, decoded completely."""

    format: str
    """what the bytes are: JPEG, PNG, WEBP, GIF, BMP or TIFF"""
    width: int
    """in pixels, as shown (upright)"""
    height: int
    mode: str
    """Pillow's name of the pixel layout in the file: L, RGB, RGBA, P, CMYK, I;16, ..."""
    bits: int
    """per channel in the file"""
    notes: tuple[str, ...]
    """what was odd, converted or cut out; one phrase each"""
    rgb: Image.Image
    """upright, mode RGB, 8 bits; the file's own numbers, no colour profile applied. Of a JPEG that
    was opened with `least_side` maybe a smaller, grey version"""
    kept: bytes | None
    """the file's bytes without metadata, where every reader shows just these pixels from them"""

    def encode(self) -> tuple[bytes, str]:
        """Bytes for the image store and their format: the kept bytes, or the pixels as PNG."""
        if self.kept is not None:
            return self.kept, self.format
        buffer = io.BytesIO()
        self.rgb.save(buffer, "PNG")
        return buffer.getvalue(), "PNG"


@dataclass(slots=True)
class _Notes:
    """Notes taken on the way, and whether the pixels differ from what the bytes alone show."""

    lines: list[str] = field(default_factory=list)
    is_redrawn: bool = False

    def redraw(self, line: str) -> None:
        self.is_redrawn = True
        self.lines.append(line)


class _ClockedBytes(io.BytesIO):
    """Bytes that a decoder may read until its time is over."""

    def __init__(self, data: bytes, seconds: float) -> None:
        super().__init__(data)
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    def read(self, size: int | None = -1, /) -> bytes:
        if time.monotonic() > self.end:
            raise DataError(f"too slow: not decoded within {self.seconds:g} s")
        return super().read(size)


def open_image(
    source: bytes | str | Path,
    limits: Limits | None = None,
    *,
    name: str = "",
    least_side: int | None = None,
) -> Decoded:
    """Decode a file or its bytes; DataError with a reason of one line when that cannot be done.

    `name` is the file name where `source` is bytes; it decides nothing, a false suffix is noted.
    A path's last part must be no link (imaging.files.read_file). `least_side`: a picture in grey
    with a shorter side of at least so many pixels is enough where the bytes are kept anyway; the
    decoder of a JPEG then reads all of the file, but leaves out most of what makes pixels of it.
    """
    bounds = limits or Limits()
    if isinstance(source, bytes):
        return _open_bytes(source, bounds, name, least_side)
    try:
        data = read_file(source, max_bytes=bounds.max_bytes)
        return _open_bytes(data, bounds, str(source), least_side)
    except DataError as error:
        raise DataError(f"{shown_name(str(source))}: {error}") from None


def _open_bytes(data: bytes, limits: Limits, name: str, least_side: int | None) -> Decoded:
    if len(data) > limits.max_bytes:
        raise DataError(f"too large: {len(data)} bytes, the most is {limits.max_bytes}")
    kind = recognise_format(data)
    _check_header(data, kind, limits)
    notes = _Notes()
    if name and (mismatch := name_mismatch(name, kind)):
        notes.lines.append(mismatch)
    cut = cut_metadata(data, kind) if kind in CUTTERS else None
    with _explained():
        image = _open(cut.data if cut else data, kind, limits, notes)
        mode, size = image.mode, image.size
        if least_side is not None and isinstance(image, JpegImageFile) and mode in ("L", "RGB"):
            image.draft("L", (least_side, least_side))
        image.load()
        bits = _depth(image, data, kind)
        upright = _turn(_to_rgb(image, bits, notes), cut.orientation if cut else UPRIGHT)
    if cut and cut.orientation in SIDEWAYS:
        size = size[::-1]
    if cut:
        _note_cut(cut, kind, notes)
    return Decoded(
        format=kind,
        width=size[0],
        height=size[1],
        mode=mode,
        bits=bits,
        notes=tuple(notes.lines),
        rgb=upright,
        kept=cut.data if cut and not notes.is_redrawn else None,
    )


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever Pillow raises on a broken file, as a DataError."""
    try:
        yield
    except DECODER_ERRORS as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"broken or cut short: {reason}") from None


def _check_header(data: bytes, kind: str, limits: Limits) -> None:
    """Judge size and scans from the header of those formats whose decoders allocate on opening."""
    if kind == "JPEG":
        frame = jpeg.read_frame(data)
        check_size(frame.width, frame.height, limits)
        _check_scans(data, limits)
    elif kind == "PNG":
        check_size(*read_png_size(data), limits)
    elif kind == "WEBP":
        check_size(*read_webp_size(data), limits)


def _check_scans(data: bytes, limits: Limits) -> None:
    scans = sum(segment.marker == jpeg.SOS for segment in jpeg.read_segments(data))
    if scans > limits.max_scans:
        raise DataError(f"too many JPEG scans: {scans}, the most is {limits.max_scans}")


def check_size(width: int, height: int, limits: Limits) -> None:
    """DataError when a picture of this size is not to be taken in."""
    size = f"{width} x {height} pixels"
    if width * height > limits.max_pixels:
        raise DataError(f"too large: {size}, the most is {limits.max_pixels} in all")
    if min(width, height) < limits.min_side:
        raise DataError(f"too small: {size}, the shorter side must have {limits.min_side}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise DataError(f"too narrow: {size}, at most {limits.max_aspect:g} to 1 is taken")


def _open(data: bytes, kind: str, limits: Limits, notes: _Notes) -> ImageFile:
    """The first frame, its size judged and its pixels not decoded yet."""
    image = OPENERS[kind](_ClockedBytes(data, limits.seconds))
    frames = getattr(image, "n_frames", 1)
    check_size(*image.size, limits)
    if frames > 1:
        notes.redraw(f"first of {frames} frames")
    if kind not in CUTTERS:
        notes.redraw(f"{kind} redrawn as PNG")
    return image


def _depth(image: ImageFile, data: bytes, kind: str) -> int:
    """Bits per channel in the file."""
    if kind == "PNG":
        return read_png_depth(data)
    if kind == "TIFF":
        return int(max(image.tag_v2.get(BITS_PER_SAMPLE, (1,))))  # type: ignore[attr-defined]
    return 8


def _to_rgb(image: Image.Image, bits: int, notes: _Notes) -> Image.Image:
    if bits > 8:
        notes.redraw(f"{bits}-bit scaled to 8")
    if image.mode.startswith("I;16"):
        return _scale_grey(image)
    if image.mode in ("I", "F"):
        raise DataError(f"{bits}-bit samples, not supported: save it with 8 or 16 bits")
    if image.has_transparency_data:
        return _lay_over_white(image, notes)
    if image.mode not in ("1", "L", "P", "RGB"):
        notes.redraw(f"{image.mode} converted to RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_grey(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits by scaling; Pillow's own conversion would clip."""
    grey = np.asarray(image).astype(np.uint32)
    scaled = ((grey + 128) // 257).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        scaled[grey == transparent] = 255
    return Image.fromarray(scaled).convert("RGB")


def _lay_over_white(image: Image.Image, notes: _Notes) -> Image.Image:
    rgba = image if image.mode == "RGBA" else image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    notes.redraw("alpha over white")
    white = Image.new("RGB", rgba.size, "white")
    white.paste(rgba, mask=alpha)
    return white


def _turn(image: Image.Image, orientation: int) -> Image.Image:
    turn = TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)


def _note_cut(cut: Cut, kind: str, notes: _Notes) -> None:
    if cut.orientation != UPRIGHT:
        notes.lines.append("turned upright")
        notes.is_redrawn |= kind != "JPEG"
    notes.lines.extend(cut.notes)
    if cut.removed:
        notes.lines.append(f"cut out: {', '.join(cut.removed)}")
