from __future__ import annotations

from collections import Counter
from itertools import islice

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from PIL import Image

from imaging.perturb import KINDS
from tests.unit.training.toys import STRIPES, draw_picture, make_config
from training.augment import augment
from training.config import Augmentation
from training.data import Rows, plan_visits
from training.inputs import Inputs
from training.loop import read_steps, read_trees
from training.model import Assembly

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


CHANGES = {
    "crop": {"share": 0.5, "least": 0.7, "most": 1},
    "resize": {"share": 0.5, "least": 0.6, "most": 1.5},
    "blur": {"share": 0.5, "least": 0.3, "most": 1},
    "noise": {"share": 0.5, "least": 1, "most": 8},
    "jpeg": {"share": 0.5, "least": 50, "most": 95},
    "webp": {"share": 0.5, "least": 50, "most": 95},
}
CONFIG = make_config(
    optimiser__steps=3, data__augment={"flips": True, "blur_share": 0.5, "changes": CHANGES}
)


def test_each_change_comes_as_often_as_asked() -> None:
    assert CHANGES.keys() == KINDS.keys()
    for name, change in CHANGES.items():
        settings = Augmentation.model_validate({"changes": {name: change}})
        results = [augment(PICTURE, settings, np.random.default_rng(seed)) for seed in range(100)]
        kept = sum(
            result.size == PICTURE.size and np.array_equal(result, PICTURE) for result in results
        )
        assert 30 < kept < 70, name


def with_swapped_labels(rows: Rows) -> Rows:
    """The same images, each called what it is not."""
    other = {"real": "fake", "fake": "real", "yes": "no", "no": "yes"}
    table = rows.table
    targets = [other.get(target, target) for target in table["target"].to_pylist()]
    messages = [
        [
            {**turn, "content": turn["content"].replace("real", "?").replace("fake", "real")}
            for turn in talk
        ]
        for talk in table["messages"].to_pylist()
    ]
    for name, values in (("target", targets), ("messages", messages)):
        place = table.column_names.index(name)
        table = table.set_column(place, name, pa.array(values, table.schema.field(name).type))
    return Rows(table)


def test_no_change_depends_on_the_label(inputs: Inputs, plain_assembly: Assembly) -> None:
    pictures = []
    for rows in (inputs.rows, with_swapped_labels(inputs.rows)):
        visits = list(enumerate(islice(plan_visits(rows, {"verdict": 1}, branches=1, seed=1), 16)))
        trees, _ = read_trees(
            visits, rows, inputs.folder, plain_assembly, CONFIG, set_aside=Counter()
        )
        pictures.append([tree.image.tobytes() for tree in trees])
    assert pictures[0] == pictures[1]
    assert len(set(pictures[0])) == 16


def test_a_step_changes_its_images_alike_whatever_came_before(
    inputs: Inputs, plain_assembly: Assembly
) -> None:
    def last(first: int) -> NDArray[np.float32]:
        steps = read_steps(inputs.rows, inputs.folder, plain_assembly, CONFIG, first=first)
        *_, step = steps
        return np.asarray(step.batches[0].inputs["pixel_values"])

    assert np.array_equal(last(first=1), last(first=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sharpen": {"share": 1, "least": 1, "most": 1}}, "no change is called sharpen.*jpeg"),
        ({"jpeg": {"share": 1, "least": 0, "most": 90}}, "jpeg: strengths go from 1 to 100"),
        ({"blur": {"share": 1, "least": 2, "most": 1}}, "blur: strengths go from"),
    ],
)
def test_a_change_that_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Augmentation.model_validate({"changes": changes})
