"""Masks survive Label Studio's brush format to the last pixel; damage is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation.brush import decode, encode, mask_of
from core.records import Mask
from tests.masks import Pixels, masks, pixels


@given(pixels())
def test_a_mask_comes_back_to_the_last_pixel(marked: Pixels) -> None:
    mask = mask_of(marked)
    if mask is None:
        assert not marked.any()
        return
    height, width = marked.shape
    assert (mask.width, mask.height) == (width, height)
    assert np.array_equal(decode(encode(mask), width, height), marked)


@given(masks())
def test_counts_are_those_of_coco(mask: Mask) -> None:
    assert sum(mask.counts) == mask.width * mask.height
    assert all(mask.counts[1:]) and len(mask.counts) > 1
    down = np.repeat(np.arange(len(mask.counts)) % 2 == 1, mask.counts)
    marked = down.reshape((mask.height, mask.width), order="F")
    assert mask_of(marked) == mask
    rows, columns = np.nonzero(marked)
    assert mask.bounding_box() == pytest.approx(
        (
            columns.min() / mask.width,
            rows.min() / mask.height,
            (columns.max() + 1) / mask.width,
            (rows.max() + 1) / mask.height,
        )
    )


def test_what_a_round_brush_covers_to_the_half_is_marked() -> None:
    # one red, green, blue, alpha each; the second pixel is half covered, the third less
    values = [(9, 9, 9, 0), (9, 9, 9, 128), (9, 9, 9, 127), (0, 0, 0, 255)]
    bits = f"{16:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    bits += "".join(f"000{3:03b}" + "".join(f"{value:08b}" for value in four) for four in values)
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode(rle, 2, 2).tolist() == [[False, True], [False, True]]


def test_a_long_run_is_written_in_parts() -> None:
    marked = np.zeros((700, 500), dtype=bool)
    marked[100:600] = True
    mask = mask_of(marked)
    assert mask is not None
    assert np.array_equal(decode(encode(mask), 500, 700), marked)


@given(masks(), st.data())
def test_damaged_runs_are_refused_or_make_another_mask_of_the_same_size(
    mask: Mask, data: st.DataObject
) -> None:
    rle = encode(mask)
    at = data.draw(st.integers(0, len(rle) - 1))
    rle[at] = data.draw(st.integers(0, 255))
    try:
        marked = decode(rle[: data.draw(st.integers(0, len(rle)))], mask.width, mask.height)
    except ValueError:
        return
    assert marked.shape == (mask.height, mask.width)


def test_a_mask_of_another_size_is_refused_before_memory_is_taken() -> None:
    mask = Mask(width=2, height=2, counts=(1, 3))
    with pytest.raises(ValueError, match="no mask of 2 x 3 pixels"):
        decode(encode(mask), 2, 3)
    with pytest.raises(ValueError, match="no mask"):
        decode([255] * 40, 2, 2)
