"""What a run reads, checked before anything is computed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from core.records import Split
from instruct_builder.shards import Manifest
from training.config import TrainingConfig
from training.data import (
    ImageFolder,
    LabelledImage,
    Rows,
    check_mix,
    count_visits,
    open_shards,
    read_images,
)

if TYPE_CHECKING:
    from training.test_split import TestSet


@dataclass(frozen=True, slots=True)
class Inputs:
    """Shards and images of a run."""

    manifest: Manifest
    images: Sequence[LabelledImage]
    rows: Rows
    """of the train split"""
    test: TestSet
    folder: ImageFolder

    def of(self, split: Split) -> list[LabelledImage]:
        """The labelled images of a split."""
        return [image for image in self.images if image.split is split]


def read_inputs(config: TrainingConfig, shards: Path, images: Path) -> Inputs:
    """Open shards and image folder; every problem that can be seen now is a ConfigError now."""
    from training.test_split import TestSet

    opened = open_shards(shards)
    known = read_images(opened)
    rows = Rows.read(opened, Split.TRAIN).select(config.data, seed=config.seed)
    check_mix(rows, config.data.shares)
    folder = ImageFolder(images)
    folder.check_presence(list({*rows.images(), *(image.ref for image in known)}))
    return Inputs(opened.manifest, known, rows, TestSet.of(known), folder)


def with_steps(config: TrainingConfig, rows: Rows) -> TrainingConfig:
    """The configuration with the length of its run as a number of steps."""
    data, optimiser = config.data, config.optimiser
    steps = optimiser.steps
    if optimiser.epochs is not None:
        visits = count_visits(rows, data.shares, branches=data.branches)
        steps = math.ceil(optimiser.epochs * visits / data.batch_images)
    return config.model_copy(update={"optimiser": optimiser.lasting(steps)})
