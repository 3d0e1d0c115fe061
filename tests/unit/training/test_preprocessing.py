from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from instruct_builder.shards import sha256_of
from tests.unit.training.families import FAMILIES, build_family
from training.checkpoint import save_checkpoint
from training.config import Checkpoint
from training.model import Assembly, load_checkpoint
from training.preprocessing import describe_preprocessing

Change = Callable[[dict[str, Any]], None]


def load(folder: Path) -> Assembly:
    return load_checkpoint(Checkpoint(kind="checkpoint", name=str(folder)))


def rewrite(path: Path, change: Change) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return save_checkpoint(build_family("llava"), tmp_path, step=1, facts={})


@pytest.mark.parametrize("family", FAMILIES)
def test_a_checkpoint_says_how_its_images_are_prepared(family: str, tmp_path: Path) -> None:
    folder = save_checkpoint(build_family(family), tmp_path, step=1, facts={})
    recorded = json.loads((folder / "checkpoint.json").read_text())["preprocessing"]
    assert recorded["backend"] == "pil"
    assert recorded["settings"]["resample"] in {"BICUBIC", "BILINEAR"}
    assert {"size", "image_mean", "image_std"} <= set(recorded["settings"])
    assert recorded["libraries"]["pillow"]
    assert recorded == describe_preprocessing(build_family(family))
    load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.update(backend="torchvision"), "prepared with backend torchvision.*is pil"),
        (
            lambda p: p["settings"].update(size={"shortest_edge": 336}),
            r"prepared with size .*336.*here it is .*56",
        ),
        (lambda p: p["settings"].update(resample="LANCZOS"), "with resample LANCZOS.*is BICUBIC"),
        (
            lambda p: p.update(probe="0", libraries={"pillow": "9.0"}),
            "prepare images differently .*it was pillow 9.0.; install",
        ),
    ],
)
def test_another_preparation_of_images_is_refused(
    saved: Path, change: Change, message: str
) -> None:
    rewrite(saved / "checkpoint.json", lambda manifest: change(manifest["preprocessing"]))
    with pytest.raises(ConfigError, match=message) as caught:
        load(saved)
    assert "\n" not in str(caught.value)


def test_a_processor_that_was_replaced_is_refused(saved: Path) -> None:
    name = "preprocessor_config.json"
    rewrite(saved / name, lambda settings: settings.update(crop_size={"height": 28, "width": 28}))
    digest = sha256_of(saved / name)
    rewrite(saved / "checkpoint.json", lambda manifest: manifest["files"].update({name: digest}))
    with pytest.raises(ConfigError, match=r"prepared with crop_size .*56.*here it is .*28"):
        load(saved)


def test_other_versions_that_give_the_same_numbers_are_taken(saved: Path) -> None:
    rewrite(
        saved / "checkpoint.json",
        lambda manifest: manifest["preprocessing"].update(libraries={"pillow": "9.0"}),
    )
    recorded = json.loads((saved / "checkpoint.json").read_text())["preprocessing"]
    here = describe_preprocessing(load(saved))
    assert here["probe"] == recorded["probe"]
    assert here["libraries"] != recorded["libraries"]
