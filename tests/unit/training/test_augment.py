from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.unit.training.toys import STRIPES, draw_picture
from training.augment import augment
from training.config import Augmentation

PICTURE = draw_picture(STRIPES, 1)


def changed(settings: Augmentation, seed: int) -> NDArray[np.uint8]:
    return np.asarray(augment(PICTURE, settings, np.random.default_rng(seed)))


def test_without_settings_nothing_changes() -> None:
    assert np.array_equal(changed(Augmentation(), 1), np.asarray(PICTURE))


def test_flips_only_move_pixels_and_reach_all_eight_places() -> None:
    results = {changed(Augmentation(flips=True), seed).tobytes() for seed in range(80)}
    assert len(results) == len(Image.Transpose) + 1
    values = np.sort(np.asarray(PICTURE).ravel())
    assert all(np.array_equal(np.sort(np.frombuffer(r, np.uint8)), values) for r in results)


def test_blur_takes_fine_structure_from_the_asked_share() -> None:
    settings = Augmentation(blur_share=0.5, blur_sigma=1.0)
    steps = [
        float(np.abs(np.diff(changed(settings, s).astype(float), axis=1)).mean())
        for s in range(200)
    ]
    plain = float(np.abs(np.diff(np.asarray(PICTURE).astype(float), axis=1)).mean())
    kept = sum(step == plain for step in steps)
    assert 70 < kept < 130
    assert max(steps) == plain


def test_a_seed_decides_the_change() -> None:
    settings = Augmentation(flips=True, blur_share=1.0)
    assert np.array_equal(changed(settings, 3), changed(settings, 3))
