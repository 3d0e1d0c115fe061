"""Perceptual hashes: pictures that look alike have hashes that differ in few bits."""

from __future__ import annotations

from typing import Final

import imagehash
import numpy as np
from PIL import Image

FLAT: Final = "0" * 16
"""stands for a picture with too little contrast to be told from others; no real hash is zero, as
half of its bits lie above the median"""
REDUCED_SIDE: Final = 128
HASHED_SIDE: Final = 32
"""pixels that ImageHash looks at, squared; it leaves a picture of this size as it is"""
LEAST_CONTRAST: Final = 2.0
"""standard deviation in grey levels, of the picture reduced to 32 x 32"""


def perceptual_hash(rgb: Image.Image) -> str:
    """The 64-bit pHash of ImageHash as 16 hexadecimal digits, or `FLAT`.

    Large pictures are reduced by a whole factor first, which is much faster and moves few bits.
    """
    factor = min(rgb.size) // REDUCED_SIDE
    grey = (rgb.reduce(factor) if factor > 1 else rgb).convert("L")
    small = grey.resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.LANCZOS)
    is_flat = np.asarray(small).std() < LEAST_CONTRAST
    return FLAT if is_flat else str(imagehash.phash(small))
