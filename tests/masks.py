"""Masks of any shape, for laws that must hold for all of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from annotation.brush import mask_of
from core.records import Mask

Pixels = npt.NDArray[np.bool_]


@st.composite
def pixels(draw: st.DrawFn, *, width: int | None = None, height: int | None = None) -> Pixels:
    """Marked pixels, (height, width): noise, blobs, nothing or all."""
    width = width or draw(st.integers(1, 24))
    height = height or draw(st.integers(1, 24))
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0, 0.05, 0.5, 0.95, 1]))
    grain = draw(st.integers(1, 8)) * -(-max(width, height) // 24)
    coarse = np.random.default_rng(seed).random((-(-height // grain), -(-width // grain))) < share
    return coarse.repeat(grain, axis=0).repeat(grain, axis=1)[:height, :width]


@st.composite
def masks(draw: st.DrawFn, *, width: int | None = None, height: int | None = None) -> Mask:
    """Masks with at least one marked pixel."""
    marked = draw(pixels(width=width, height=height)).copy()
    marked[-1, -1] |= not marked.any()
    mask = mask_of(marked)
    assert mask is not None
    return mask
