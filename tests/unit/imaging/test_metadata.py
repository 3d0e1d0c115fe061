"""Cutting metadata: everything private goes, no pixel moves."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from core.errors import DataError
from imaging.decode import open_image
from imaging.formats import recognise_format
from imaging.metadata import Cut, cut_metadata
from tests.odd_files import (
    SECRET_CAMERA,
    SECRET_PROMPT,
    TAIL,
    OddFile,
    encode,
    exif,
    insert_chunks,
    insert_segment,
    jpeg,
    metadata_content,
    picture,
)

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
TALKATIVE = list(metadata_content())
PNG = encode(picture(2), "PNG")
KNOWN_PNG_CHUNKS = [b"tEXt", b"zTXt", b"iTXt", b"eXIf", b"tIME", b"pHYs", b"prIv", b"caBX"]


def cut(data: bytes) -> Cut:
    return cut_metadata(data, recognise_format(data))


def stored_pixels(data: bytes) -> np.ndarray:
    """As they are stored, not turned."""
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("file", TALKATIVE, ids=lambda file: file.name)
def test_no_pixel_changes(file: OddFile) -> None:
    assert np.array_equal(stored_pixels(cut(file.data).data), stored_pixels(file.data))


@pytest.mark.parametrize("file", TALKATIVE, ids=lambda file: file.name)
def test_nothing_that_was_said_is_left(file: OddFile) -> None:
    left = cut(file.data).data
    words = (SECRET_PROMPT, SECRET_CAMERA, "c2pa", "Photoshop", "xmpmeta", "Exif", "JFXX", "script")
    assert not [word for word in words if word.encode() in left]
    assert not {"exif", "xmp", "comment", "photoshop"} & Image.open(io.BytesIO(left)).info.keys()


@pytest.mark.parametrize("file", TALKATIVE, ids=lambda file: file.name)
def test_cutting_again_changes_nothing(file: OddFile) -> None:
    once = cut(file.data).data
    assert cut(once) == Cut(data=once, orientation=1, removed=(), notes=())


def test_kinds_are_named_and_their_text_is_not() -> None:
    by_name = {file.name: cut(file.data).removed for file in TALKATIVE}
    assert by_name["where.jpg"] == ("EXIF", "GPS position")
    assert set(by_name["talkative.jpg"]) == {"IPTC", "C2PA", "XMP", "comment"}
    kinds = {"generator parameters", "text", "EXIF", "GPS position", "resolution", "C2PA"}
    assert set(by_name["diffusion.png"]) == kinds
    assert set(by_name["where.webp"]) == {"EXIF", "GPS position", "XMP"}


@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_orientation_tag_alone_stays_in_a_jpeg(orientation: int) -> None:
    result = cut(jpeg(3, exif=exif(orientation=orientation, gps=True, text=SECRET_PROMPT)))
    assert result.orientation == orientation
    assert dict(Image.open(io.BytesIO(result.data)).getexif()) == {0x0112: orientation}
    assert cut(result.data) == Cut(data=result.data, orientation=orientation, removed=(), notes=())


def test_an_orientation_that_cannot_be_is_ignored() -> None:
    assert cut(jpeg(3, exif=exif(orientation=9))).orientation == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_readable_profile_stays(kind: str) -> None:
    result = cut(encode(picture(4), kind, icc_profile=PROFILE, exif=exif(text=SECRET_PROMPT)))
    assert Image.open(io.BytesIO(result.data)).info["icc_profile"] == PROFILE
    assert result.notes == ()


def test_a_profile_in_many_parts_stays_and_one_with_a_part_missing_goes() -> None:
    large = PROFILE + bytes(150_000)
    data = jpeg(4, icc_profile=large)
    assert Image.open(io.BytesIO(cut(data).data)).info["icc_profile"] == large
    start = data.index(b"ICC_PROFILE\0\x02") - 4
    length = int.from_bytes(data[start + 2 : start + 4])
    gap = cut(data[:start] + data[start + 2 + length :])
    assert gap.notes == ("ICC profile unreadable, left out",)
    assert b"ICC_PROFILE" not in gap.data


def test_a_profile_that_unpacks_to_megabytes_goes() -> None:
    import zlib

    bomb = zlib.compress(PROFILE + bytes(64 << 20), 9)
    result = cut(insert_chunks(PNG, (b"iCCP", b"icc\0\0" + bomb)))
    assert result.notes == ("ICC profile unreadable, left out",)
    assert len(result.data) == len(PNG)


def test_the_name_of_a_png_profile_goes() -> None:
    chunk = encode(picture(4), "PNG", icc_profile=PROFILE)
    named = chunk.replace(b"ICC Profile\0", SECRET_PROMPT[:11].encode() + b"\0")
    payload = named[41 : 41 + int.from_bytes(named[33:37])]
    renamed = insert_chunks(PNG, (b"iCCP", payload))
    assert SECRET_PROMPT[:11].encode() in renamed
    assert SECRET_PROMPT[:11].encode() not in cut(renamed).data


@pytest.mark.parametrize("mode", ["CMYK", "RGB"])
def test_the_marker_that_decides_the_colours_of_a_jpeg_stays(mode: str) -> None:
    options = {"keep_rgb": True} if mode == "RGB" else {}
    data = encode(picture(5).convert(mode), "JPEG", quality=95, **options)
    talkative = insert_segment(data, 0xFE, SECRET_PROMPT.encode())
    assert np.array_equal(stored_pixels(cut(talkative).data), stored_pixels(data))


@pytest.mark.parametrize("data", [jpeg(6), PNG, encode(picture(6), "WEBP")])
def test_a_tail_is_cut_off_with_a_note(data: bytes) -> None:
    result = cut(data + TAIL)
    assert result.data == cut(data).data
    assert result.notes == (f"{len(TAIL)} bytes after the image, cut off",)


def test_transparency_and_gamma_of_a_png_stay() -> None:
    palette = encode(picture(7).quantize(16), "PNG", transparency=3)
    marked = insert_chunks(palette, (b"gAMA", (45455).to_bytes(4)))
    left = Image.open(io.BytesIO(cut(marked).data))
    left.load()
    assert left.info["transparency"] == 3
    assert left.info["gamma"] == pytest.approx(0.45455)


def test_a_png_with_a_damaged_or_unknown_critical_chunk_is_refused() -> None:
    damaged = PNG[:60] + bytes([PNG[60] ^ 1]) + PNG[61:]
    with pytest.raises(DataError, match="checksum"):
        cut(damaged)
    with pytest.raises(DataError, match="critical"):
        cut(insert_chunks(PNG, (b"CgBI", b"apple")))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0xE0, 0xFE), st.binary(max_size=60)), max_size=6))
def test_no_segment_that_is_put_in_changes_a_pixel(extras: list[tuple[int, bytes]]) -> None:
    data = jpeg(8)
    for marker, payload in extras:
        if marker <= 0xEF or marker == 0xFE:
            data = insert_segment(data, marker, b"\x01" + payload)
    result = cut(data)
    assert np.array_equal(stored_pixels(result.data), stored_pixels(jpeg(8)))
    assert result.data == cut(jpeg(8)).data


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KNOWN_PNG_CHUNKS), st.binary(max_size=60)), max_size=6))
def test_no_chunk_that_is_put_in_changes_a_pixel(extras: list[tuple[bytes, bytes]]) -> None:
    result = cut(insert_chunks(PNG, *extras))
    assert result.data == PNG


@settings(deadline=None)
@given(st.data())
def test_damage_gives_a_picture_or_a_data_error(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from([file.data for file in TALKATIVE]))
    place = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.binary(max_size=8))
    try:
        found = open_image(whole[:place] + damage + whole[place + len(damage) :])
    except DataError as error:
        assert str(error)
        assert "\n" not in str(error)
    else:
        assert found.rgb.size == (found.width, found.height)
