from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from core.errors import ConfigError
from imaging.perturb import KINDS, read_perturbation

STRENGTHS = {"jpeg": 50, "webp": 50, "resize": 0.5, "blur": 1, "noise": 8, "crop": 0.5}


def draw() -> Image.Image:
    rng = np.random.default_rng(4)
    return Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", KINDS)
def test_every_change_changes_and_does_so_again_in_the_same_way(kind: str) -> None:
    perturbation = read_perturbation(f"{kind} {STRENGTHS[kind]}")
    first, again = (perturbation.apply(draw(), seed="a") for _ in range(2))
    assert first.mode == "RGB"
    assert first.tobytes() == again.tobytes()
    assert first.size != draw().size or first.tobytes() != draw().tobytes()


def test_a_chain_goes_from_left_to_right() -> None:
    chain = read_perturbation("resize 0.5 | jpeg 70")
    assert chain.name == "resize 0.5 | jpeg 70"
    assert chain.apply(draw(), seed="a").size == (30, 20)


def test_what_is_random_depends_on_the_image() -> None:
    crop = read_perturbation("crop 0.5")
    assert crop.apply(draw(), seed="a").tobytes() != crop.apply(draw(), seed="b").tobytes()


@pytest.mark.parametrize("text", ["", "jpeg", "jpeg 0", "jpeg high", "melt 3", "jpeg 70 |"])
def test_what_is_no_change_is_refused_with_what_there_is(text: str) -> None:
    with pytest.raises(ConfigError, match=r"there are: jpeg \(quality\)"):
        read_perturbation(text)
