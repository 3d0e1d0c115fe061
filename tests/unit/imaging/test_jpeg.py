"""What a JPEG says about itself."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.errors import DataError
from imaging.jpeg import EOI, SOI, estimate_quality, read_frame, read_segments, subsampling
from tests.odd_files import encode, jpeg, picture

SAMPLE = jpeg(1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_quality_of_libjpeg_tables_is_exact(mode: str) -> None:
    image = picture(1).convert(mode)
    found = [estimate_quality(encode(image, "JPEG", quality=quality)) for quality in range(1, 101)]
    assert found == list(range(1, 101))


def test_other_tables_get_the_nearest_quality() -> None:
    file = Image.open(io.BytesIO(encode(picture(1), "JPEG", quality=80)))
    tables = {number: list(table) for number, table in file.quantization.items()}
    tables[0][5] += 2
    tables[1][9] -= 1
    assert estimate_quality(encode(picture(1), "JPEG", qtables=tables)) == 80


def test_sixteen_bit_tables_are_read() -> None:
    table = bytes([0x10]) + np.full(64, 300, ">u2").tobytes()
    start, rest = SAMPLE[:2], SAMPLE[SAMPLE.index(b"\xff\xc0") :]
    deep = start + b"\xff\xdb" + (len(table) + 2).to_bytes(2) + table + rest
    assert estimate_quality(deep) == 1


def test_a_file_without_tables_has_no_quality() -> None:
    assert estimate_quality(b"\xff\xd8\xff\xd9") is None


@pytest.mark.parametrize("name", ["4:4:4", "4:2:2", "4:2:0"])
def test_subsampling_is_named(name: str) -> None:
    assert subsampling(encode(picture(1), "JPEG", subsampling=name)) == name


@pytest.mark.parametrize(
    ("factors", "name"), [(0x12, "4:4:0"), (0x41, "4:1:1"), (0x44, "4x4 1x1 1x1")]
)
def test_rare_subsampling_is_named_too(factors: int, name: str) -> None:
    luma = SAMPLE.index(b"\xff\xc0") + 11
    assert subsampling(SAMPLE[:luma] + bytes([factors]) + SAMPLE[luma + 1 :]) == name


def test_grey_and_cmyk_have_subsampling_too() -> None:
    assert subsampling(encode(picture(1).convert("L"), "JPEG")) == "grey"
    assert subsampling(encode(picture(1).convert("CMYK"), "JPEG")) == "1x1 1x1 1x1 1x1"


def test_the_frame_header_holds_the_size() -> None:
    frame = read_frame(encode(picture(1, 123, 45), "JPEG", progressive=True))
    assert (frame.width, frame.height) == (123, 45)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_segments_cover_the_whole_file_once(options: dict[str, int]) -> None:
    data = jpeg(1, **options)
    segments = list(read_segments(data))
    assert b"".join(data[s.start : s.end] for s in segments) == data
    assert (segments[0].marker, segments[-1].marker) == (SOI, EOI)


def test_a_segment_that_runs_past_the_end_is_refused() -> None:
    with pytest.raises(DataError, match="cut short"):
        list(read_segments(SAMPLE[:200]))


def test_a_file_without_a_frame_is_refused() -> None:
    with pytest.raises(DataError, match="no frame header"):
        read_frame(b"\xff\xd8\xff\xd9")


@settings(deadline=None)
@given(st.integers(2, len(SAMPLE) - 1), st.binary(min_size=1, max_size=4))
def test_damage_gives_a_result_or_a_data_error(place: int, damage: bytes) -> None:
    data = SAMPLE[:place] + damage + SAMPLE[place + len(damage) :]
    try:
        quality = estimate_quality(data)
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert quality is None or 1 <= quality <= 100
