"""Safe decoding: every odd file ends as it should, and pictures come out as they are shown."""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import GifImagePlugin, Image, ImageFile, ImageOps, PngImagePlugin

from core.errors import DataError
from imaging.decode import Decoded, Limits, open_image
from imaging.formats import recognise_format
from tests.odd_files import (
    Fate,
    OddFile,
    broken_content,
    encode,
    exif,
    jpeg,
    metadata_content,
    picture,
    png_of,
    size_attacks,
    unusual_content,
)

CONTENT = [*broken_content(), *size_attacks(), *unusual_content(), *metadata_content()]
LIMITS = Limits()


def reload(data: bytes) -> np.ndarray:
    """What any reader that knows the orientation tag shows."""
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


def difference(decoded: Decoded, image: Image.Image) -> int:
    return int(np.abs(np.asarray(decoded.rgb).astype(int) - np.asarray(image)).max())


@pytest.mark.parametrize(
    "file", [f for f in CONTENT if f.fate is Fate.REFUSED], ids=lambda f: f.name
)
def test_what_is_no_whole_picture_is_refused_with_a_line(file: OddFile) -> None:
    with pytest.raises(DataError) as refusal:
        open_image(file.data, name=file.name)
    assert file.reason in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "file", [f for f in CONTENT if f.fate is not Fate.REFUSED], ids=lambda f: f.name
)
def test_odd_pictures_open_without_a_warning_and_with_a_note(file: OddFile) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = open_image(file.data, name=file.name)
    assert file.reason in "; ".join(found.notes)
    assert (found.kept is None) == (file.fate is Fate.CHANGED)
    assert found.rgb.mode == "RGB"
    assert found.rgb.size == (found.width, found.height)


@pytest.mark.parametrize(
    "file", [f for f in CONTENT if f.fate is not Fate.REFUSED], ids=lambda f: f.name
)
def test_what_is_stored_shows_the_same_pixels_to_every_reader(file: OddFile) -> None:
    found = open_image(file.data)
    stored, kind = found.encode()
    assert recognise_format(stored) == kind
    assert np.array_equal(reload(stored), np.asarray(found.rgb))
    again = open_image(stored)
    assert np.array_equal(np.asarray(again.rgb), np.asarray(found.rgb))
    assert again.kept == stored


def test_pillow_settings_are_left_alone() -> None:
    def pillow_settings() -> tuple[object, ...]:
        return (
            ImageFile.LOAD_TRUNCATED_IMAGES,
            Image.MAX_IMAGE_PIXELS,
            PngImagePlugin.MAX_TEXT_CHUNK,
            GifImagePlugin.LOADING_STRATEGY,
        )

    before = pillow_settings()
    for file in CONTENT:
        try:
            open_image(file.data)
        except DataError:
            assert file.fate is Fate.REFUSED
    assert pillow_settings() == before


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    deep = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    found = open_image(encode(Image.fromarray(deep), "PNG"))
    assert (found.mode, found.bits) == ("I;16", 16)
    assert np.array_equal(np.asarray(found.rgb)[..., 0], np.rint(deep / 257).astype(np.uint8))


def test_a_transparent_level_of_deep_grey_becomes_white() -> None:
    import zlib

    rows = zlib.compress((b"\0" + (1000).to_bytes(2) * 40) * 40)
    data = png_of(width=40, height=40, bits=16, colour=0, rows=rows)
    clear = (
        data[:33] + bytes.fromhex("0000000274524e5303e8") + zlib.crc32(b"tRNS\x03\xe8").to_bytes(4)
    )
    assert np.asarray(open_image(data).rgb).max() < 10
    assert np.asarray(open_image(clear + data[33:]).rgb).min() == 255


def test_hidden_colours_under_alpha_do_not_appear() -> None:
    image = picture(1).convert("RGBA")
    image.putalpha(Image.new("L", image.size, 0))
    found = open_image(encode(image, "PNG"))
    assert np.asarray(found.rgb).min() == 255
    assert found.mode == "RGBA"


def test_half_alpha_is_blended_with_white() -> None:
    found = open_image(encode(Image.new("RGBA", (40, 40), (0, 100, 200, 128)), "PNG"))
    assert difference(found, Image.new("RGB", (40, 40), (127, 177, 227))) <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_come_out_upright(kind: str, orientation: int) -> None:
    data = encode(picture(2), kind, exif=exif(orientation=orientation))
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    found = open_image(data)
    assert (found.width, found.height) == expected.size
    assert difference(found, expected) == 0
    assert expected.size == ((96, 72) if orientation < 5 else (72, 96))


def test_the_true_format_size_mode_and_depth_are_told() -> None:
    found = open_image(encode(picture(3, 80, 50).convert("L"), "PNG"), name="photo.jpeg")
    assert (found.format, found.width, found.height, found.mode, found.bits) == (
        "PNG", 80, 50, "L", 8,
    )  # fmt: skip
    assert found.notes == ("named .jpeg, is PNG",)


def test_a_right_name_gives_no_note() -> None:
    assert open_image(jpeg(4), name="dir.png/PHOTO.JPEG").notes == ()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (replace(LIMITS, max_bytes=999), "too large: .* bytes, the most is 999"),
        (replace(LIMITS, max_pixels=96 * 72 - 1), "too large: 96 x 72"),
        (replace(LIMITS, min_side=73), "too small: 96 x 72"),
        (replace(LIMITS, max_aspect=1.3), "too narrow: 96 x 72"),
        (replace(LIMITS, max_scans=0), "too many JPEG scans: 1"),
        (replace(LIMITS, seconds=-1), "too slow"),
    ],
)
def test_limits_are_kept(limits: Limits, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        open_image(jpeg(5), limits)


def test_limits_that_are_just_met_are_enough() -> None:
    limits = Limits(max_pixels=96 * 72, min_side=72, max_aspect=96 / 72, max_scans=1)
    assert open_image(jpeg(5), limits).width == 96


def test_a_path_is_opened_and_named_in_the_refusal(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg(6))
    (tmp_path / "bad\n.jpg").write_bytes(b"")
    assert open_image(tmp_path / "good.jpg").width == 96
    with pytest.raises(DataError, match=r"bad\\u000a\.jpg: empty file$"):
        open_image(tmp_path / "bad\n.jpg")


def test_a_link_or_a_pipe_is_not_opened(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(jpeg(6))
    (tmp_path / "link.jpg").symlink_to("good.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, reason in (("link.jpg", "a link"), ("pipe.jpg", "a named pipe"), ("no", "no such")):
        with pytest.raises(DataError, match=reason):
            open_image(tmp_path / name)


@settings(deadline=None)
@given(st.data())
def test_any_damage_gives_a_picture_or_a_data_error(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([f.data for f in CONTENT if 0 < len(f.data) < 100_000]))
    cut = data.draw(st.integers(0, len(whole)))
    damage = data.draw(st.binary(max_size=6))
    gap = data.draw(st.integers(0, 6))
    try:
        found = open_image(whole[:cut] + damage + whole[cut + gap :])
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert found.rgb.size == (found.width, found.height)


def fate_of(data: bytes, *, least_side: int | None) -> tuple[object, ...]:
    """All that is said of a file but its pixels."""
    try:
        found = open_image(data, least_side=least_side)
    except DataError as error:
        return (str(error),)
    assert found.rgb.mode == "RGB"
    return found.width, found.height, found.mode, found.bits, found.notes, found.kept


@pytest.mark.parametrize("file", CONTENT, ids=lambda file: file.name)
def test_a_smaller_picture_is_enough_to_tell_what_becomes_of_a_file(file: OddFile) -> None:
    assert fate_of(file.data, least_side=32) == fate_of(file.data, least_side=None)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from([{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_rows": 1}]),
    st.integers(0, 30_000),
    st.binary(max_size=6),
    st.integers(0, 300),
)
def test_damage_is_seen_in_a_smaller_picture_as_in_the_whole_one(
    options: dict[str, Any], cut: int, damage: bytes, gap: int
) -> None:
    whole = encode(picture(1, 320, 240), "JPEG", **options)
    data = whole[:cut] + damage + whole[cut + gap :]
    assert fate_of(data, least_side=32) == fate_of(data, least_side=None)


@pytest.mark.parametrize(("orientation", "size"), [(1, (200, 150)), (6, (150, 200))])
def test_a_smaller_picture_stands_upright_and_says_its_full_size(
    orientation: int, size: tuple[int, int]
) -> None:
    data = encode(picture(1, 1600, 1200), "JPEG", exif=exif(orientation=orientation))
    found = open_image(data, least_side=128)
    assert (found.width, found.height) == (size[0] * 8, size[1] * 8)
    assert found.rgb.size == size


def test_pixels_that_are_stored_anew_are_never_the_smaller_ones() -> None:
    cmyk = encode(picture(1, 640, 480).convert("CMYK"), "JPEG")
    found = open_image(cmyk, least_side=128)
    assert (found.kept, found.rgb.size) == (None, (640, 480))
