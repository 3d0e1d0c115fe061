"""A linear probe on what the vision tower sees, and its fusion with the model: baselines.

The probe is fitted on the training split that the model saw, the fusion on its validation split;
neither sees the benchmark. A detector that does not beat the probe of its own tower has learnt
little else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from core.errors import ConfigError
from core.ids import unit_interval
from core.records import Split
from training.baselines import Features, logistic_scores
from training.batches import BATCH, in_batches
from training.benchmarks import Benchmark, Refused
from training.data import ImageFolder, LabelledImage, open_shards, read_images
from training.evaluation import EvaluationFolder
from training.model import Assembly
from training.progress import counting
from training.score import score_images

if TYPE_CHECKING:
    from PIL import Image

    from training.checkpoint import Checkpointed

BASELINES: Final = "baselines.jsonl"
PROBE, FUSION = "linear probe on the vision tower", "fusion of model and probe"
MOST: Final = 2000
"""images of a split that are looked at, drawn by hash"""


def score_probe(
    opened: Checkpointed,
    benchmark: Benchmark,
    folder: EvaluationFolder,
    *,
    shards: Path,
    images: Path,
) -> None:
    """Log-odds of probe and fusion for every image that has a score; done once for a folder."""
    predicted = {each.facts.name: each for each in folder.done().predicted}
    if {row["name"] for row in folder.rows(BASELINES)} >= predicted.keys():
        return
    train, val = _splits(shards)
    store, assembly = ImageFolder(images), opened.assembly
    with counting("fitting the probe", len(train) + 2 * len(val) + len(predicted)) as advance:

        def features(pictures: Iterator[Image.Image]) -> Features:
            parts = []
            for batch in in_batches(pictures, BATCH):
                parts.append(tower_features(batch, assembly))
                advance(len(batch), "")
            return np.concatenate(parts)

        seen = features(store.read(image.ref) for image in train)
        checked = features(store.read(image.ref) for image in val)
        names, tested = _features_of(benchmark, predicted.keys(), features)
        model = np.array(
            list(
                chain.from_iterable(
                    score_images([store.read(i.ref) for i in batch], opened.verdict, assembly)
                    for batch in in_batches(val, BATCH)
                )
            )
        )
        advance(len(val), "")
    probe = logistic_scores(seen, _labels(train), np.concatenate([checked, tested]))
    own = np.array([predicted[name].log_odds for name in names], float)
    fusion = logistic_scores(
        np.column_stack([probe[: len(val)], model]),
        _labels(val),
        np.column_stack([probe[len(val) :], own]),
    )
    folder.append(
        [
            {"name": name, PROBE: float(one), FUSION: float(other)}
            for name, one, other in zip(names, probe[len(val) :], fusion, strict=True)
        ],
        BASELINES,
    )


def _features_of(
    benchmark: Benchmark,
    wanted: Set[str],
    features: Callable[[Iterator[Image.Image]], Features],
) -> tuple[list[str], Features]:
    names: list[str] = []

    def pictures() -> Iterator[Image.Image]:
        others = {found.name for found in benchmark.files()} - wanted
        for each in benchmark.read(without=others):
            if not isinstance(each, Refused):
                names.append(each[0].name)
                yield each[1]

    return names, features(pictures())


def _splits(shards: Path) -> tuple[list[LabelledImage], list[LabelledImage]]:
    labelled = read_images(open_shards(shards))
    parts = []
    for split in (Split.TRAIN, Split.VAL):
        own = [image for image in labelled if image.split is split]
        own.sort(key=lambda image: unit_interval("probe", image.ref.image_id))
        if len({image.is_fake for image in own[:MOST]}) < 2:
            raise ConfigError(f"{shards}: its {split} split has not both labels to fit a probe on")
        parts.append(own[:MOST])
    return parts[0], parts[1]


def _labels(images: Sequence[LabelledImage]) -> Any:
    return np.array([image.is_fake for image in images], bool)


def tower_features(images: Sequence[Image.Image], assembly: Assembly) -> Features:
    """Mean over the patches of what the vision tower gives, (images, width)."""
    import torch

    pixels = assembly.process_images(images)
    inputs = {name: value.to(assembly.model.device) for name, value in pixels.items()}
    with torch.no_grad():
        seen = assembly.model.model.get_image_features(**inputs, return_dict=True)
    states = seen.last_hidden_state.float()
    if states.ndim == 2:  # Qwen lays the patches of all images one after the other
        sizes = pixels["image_grid_thw"].prod(-1).tolist()
        return np.array([part.mean(dim=0).cpu().numpy() for part in states.split(sizes)], float)
    return np.asarray(states.mean(dim=1).cpu().numpy(), float)
