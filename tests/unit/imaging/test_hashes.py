"""Perceptual hashes."""

from __future__ import annotations

import re
from typing import Any

import imagehash
import numpy as np
import pytest
from PIL import Image

from imaging.decode import open_image
from imaging.hashes import FLAT, REDUCED_SIDE, perceptual_hash
from tests.odd_files import encode, picture


def bits_apart(first: str, second: str) -> int:
    return (int(first, 16) ^ int(second, 16)).bit_count()


def test_small_pictures_have_the_hash_of_imagehash() -> None:
    for seed in range(5):
        image = picture(seed, 130, 128)
        assert perceptual_hash(image) == str(imagehash.phash(image))


def test_large_pictures_have_nearly_the_hash_of_imagehash() -> None:
    distances = []
    for seed in range(5):
        image = picture(seed, 900, 700)
        distances.append(bits_apart(perceptual_hash(image), str(imagehash.phash(image))))
    assert max(distances) <= 2


@pytest.mark.parametrize("quality", [40, 75, 95])
def test_the_hash_outlives_compression_and_scaling(quality: int) -> None:
    image = picture(1, 640, 480)
    small = encode(image.resize((320, 240)), "JPEG", quality=quality)
    assert bits_apart(perceptual_hash(image), perceptual_hash(open_image(small).rgb)) <= 4


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
@pytest.mark.parametrize("size", [(640, 480), (1024, 1024), (1500, 1001)])
def test_a_jpeg_opened_small_has_nearly_the_hash_of_all_its_pixels(
    size: tuple[int, int], options: dict[str, Any]
) -> None:
    for seed in range(3):
        data = encode(picture(seed, *size), "JPEG", quality=90, **options)
        small, full = open_image(data, least_side=REDUCED_SIDE).rgb, open_image(data).rgb
        assert min(small.size) < min(full.size)
        assert bits_apart(perceptual_hash(small), perceptual_hash(full)) <= 2


def test_different_pictures_are_far_apart() -> None:
    hashes = [perceptual_hash(picture(seed)) for seed in range(30)]
    pairs = [bits_apart(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(pairs) > 8


@pytest.mark.parametrize("colour", ["black", "white", "teal", "#808080"])
def test_flat_pictures_have_no_hash(colour: str) -> None:
    flat = Image.new("RGB", (64, 48), colour)
    noise = np.random.default_rng(1).integers(-3, 4, (48, 64, 3)) + np.asarray(flat)
    nearly = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
    assert perceptual_hash(flat) == perceptual_hash(nearly) == FLAT


def test_a_hash_is_sixteen_hexadecimal_digits_and_never_the_flat_one() -> None:
    for seed in range(10):
        text = perceptual_hash(picture(seed, 32, 40))
        assert re.fullmatch("[0-9a-f]{16}", text)
        assert text != FLAT
