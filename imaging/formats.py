"""What a file is, told from its bytes; its name decides nothing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Final

from core.errors import DataError

SUFFIXES: Mapping[str, str] = MappingProxyType(
    {
        ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG",
        ".webp": "WEBP", ".gif": "GIF", ".bmp": "BMP", ".dib": "BMP", ".tif": "TIFF",
        ".tiff": "TIFF",
    }
)  # fmt: skip
"""lower-case file name suffixes and the format that they promise"""

SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
)
CONVERT: Final = "not supported: save it as PNG or JPEG"
OTHERS: Final = (
    (b"\xff\x0a", f"JPEG XL, {CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"JPEG XL, {CONVERT}"),
    (b"\0\0\0\x0cjP  ", f"JPEG 2000, {CONVERT}"),
    (b"\xff\x4f\xff\x51", f"JPEG 2000, {CONVERT}"),
    (b"8BPS", f"Photoshop file, {CONVERT}"),
    (b"II+\0", f"BigTIFF, {CONVERT}"),
    (b"MM\0+", f"BigTIFF, {CONVERT}"),
    (b"%PDF", "PDF, not an image"),
    (b"PK\x03\x04", "ZIP archive, not an image"),
    (b"\x1f\x8b", "gzip archive, not an image"),
)
BRANDS: Mapping[bytes, str] = MappingProxyType(
    {
        **dict.fromkeys(
            (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
            "HEIC, not supported or broken: save it as PNG or JPEG",
        ),
        **dict.fromkeys((b"avif", b"avis"), f"AVIF, {CONVERT}"),
    }
)
"""major brands of ISO base media files"""
TEXT_BYTES: Final = 4096
MARKUP: Final = (
    (re.compile(rb"<svg[\s>]", re.IGNORECASE), "SVG, a drawing and not a photo format"),
    (re.compile(rb"<(!doctype\s+html|html|script|body)\b", re.IGNORECASE), "HTML, not an image"),
)


def recognise_format(data: bytes) -> str:
    """`JPEG`, `PNG`, `WEBP`, `GIF`, `BMP` or `TIFF`; DataError that says what else it is."""
    for signature, name in SIGNATURES:
        if data.startswith(signature):
            return name
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and data[6:10] == b"\0\0\0\0":
        return "BMP"
    raise DataError(_name_stranger(data))


def _name_stranger(data: bytes) -> str:
    if not data:
        return "empty file"
    if data[4:8] == b"ftyp":
        return BRANDS.get(data[8:12], "video or other media file, not a still image")
    for signature, reason in OTHERS:
        if data.startswith(signature):
            return reason
    return _name_text(data[:TEXT_BYTES])


def _name_text(start: bytes) -> str:
    for pattern, reason in MARKUP:
        if pattern.search(start):
            return reason
    if b"\0" not in start and start.decode("utf-8", "ignore").encode() == start:
        return "text, not an image"
    return f"no image format that is known here; it begins with {start[:8].hex(' ')}"


def name_mismatch(name: str, format: str) -> str | None:
    """A note when a file name promises another format than the bytes have, or none at all."""
    suffix = PurePosixPath(name).suffix
    if SUFFIXES.get(suffix.lower()) == format:
        return None
    return f"named {suffix}, is {format}" if suffix else f"no file name suffix, is {format}"
