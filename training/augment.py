"""Random changes of training images, for both classes alike: less can be learnt by heart."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from imaging.perturb import KINDS
from training.config import Augmentation

FLIPS = (None, *Image.Transpose)
"""the eight ways of laying a square on a table"""
LEAST_SIGMA = 0.2
"""pixels; below it a blur changes nothing"""


def augment(image: Image.Image, settings: Augmentation, rng: np.random.Generator) -> Image.Image:
    """An image as the settings may change it; the same state of `rng` gives the same image.

    Nothing of the image but its pixels is looked at, so that no change can give a label away.

    Blur follows S.-Y. Wang et al., "CNN-generated images are surprisingly easy to spot... for now",
    CVPR 2020: detectors that saw blurred images transfer better to unseen generators.
    """
    if settings.flips:
        flip = FLIPS[rng.integers(len(FLIPS))]
        image = image if flip is None else image.transpose(flip)
    if rng.random() < settings.blur_share:
        sigma = rng.uniform(LEAST_SIGMA, settings.blur_sigma)
        image = image.filter(ImageFilter.GaussianBlur(sigma))
    for name, change in settings.changes.items():
        if rng.random() < change.share:
            image = KINDS[name].apply(image, rng.uniform(change.least, change.most), rng)
    return image
