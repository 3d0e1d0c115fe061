"""Ours: the loop of `python -m training.run` on a shard set; the first step is not timed."""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks.training_job import configure, summarise
from core.records import Split
from training.config import Checkpoint
from training.data import ImageFolder, Rows, open_shards
from training.loop import Training
from training.model import load_checkpoint
from training.run import prepare_torch


def main(job: dict[str, Any]) -> None:
    config = configure(job)
    rows = Rows.read(open_shards(Path(job["shards"])), Split.TRAIN)
    prepare_torch(config)
    assembly = load_checkpoint(Checkpoint(kind="checkpoint", name=job["checkpoint"]))
    steps = list(Training(assembly, rows, ImageFolder(Path(job["images"])), config).steps())
    timed = steps[1:]
    figures = summarise(
        seconds=sum(step.step_seconds for step in timed),
        rows=sum(step.rows for step in timed),
        tokens=[step.tokens for step in steps],
        answer_tokens=[step.answer_tokens for step in steps],
        losses=[step.loss for step in steps],
    )
    used = [step.mfu for step in timed if step.mfu is not None]
    figures["mfu"] = sum(used) / len(used) if used else None
    print(json.dumps(figures))


torch.set_float32_matmul_precision("high")
main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
