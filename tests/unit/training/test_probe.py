from __future__ import annotations

import numpy as np
import pytest

from tests.unit.training.families import build_family
from tests.unit.training.toys import draw_picture
from training.probe import tower_features


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_features_of_an_image_do_not_depend_on_the_others(family: str) -> None:
    assembly = build_family(family)
    assembly.model.eval()
    images = [draw_picture(None, seed).resize((56 + 28 * (seed % 3), 84)) for seed in range(4)]
    together = tower_features(images, assembly)
    alone = np.concatenate([tower_features([image], assembly) for image in images])
    assert together.shape == alone.shape == (4, 32)
    assert np.allclose(together, alone, atol=1e-4)
    assert not np.allclose(together[0], together[1], atol=1e-4)
