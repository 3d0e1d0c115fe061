"""TRL's SFTTrainer on the same rows in the same order; the first step is not timed.

Each row is a prompt, a completion and the path of its image, as TRL documents them.
"""

import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Features, Image, List, Value
from transformers import LlavaProcessor, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.training_job import SEED, configure, summarise
from core.records import Split
from training.config import Checkpoint, TrainingConfig
from training.data import Rows, open_shards, plan_visits
from training.efficiency import Work, peak_operations
from training.model import Assembly, load_checkpoint

TURNS = List({"role": Value("string"), "content": Value("string")})


class Watched(SFTTrainer):  # type: ignore[misc]
    """Counts what it learns from."""

    def compute_loss(self, model: Any, inputs: Any, *others: Any, **options: Any) -> Any:
        self.batches.append((inputs["attention_mask"].sum(), (inputs["labels"] != -100).sum()))
        return super().compute_loss(model, inputs, *others, **options)


class Clock(TrainerCallback):  # type: ignore[misc]
    """When each step had ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())


def take_rows(rows: Rows, config: TrainingConfig, root: Path) -> Dataset:
    """The rows of the steps, in their order."""
    data = config.data
    visits = plan_visits(rows, data.mix, branches=data.branches, seed=SEED)
    planned = islice(visits, data.batch_images * config.optimiser.steps)
    taken = [row for visit in planned for row in rows.take(visit.places)]
    columns = {
        "images": [[str(root / row.image.path)] for row in taken],
        "prompt": [row.messages[:-1] for row in taken],
        "completion": [row.messages[-1:] for row in taken],
    }
    features = Features({"images": List(Image()), "prompt": TURNS, "completion": TURNS})
    return Dataset.from_dict(columns, features=features)


def make_trainer(
    job: dict[str, Any], config: TrainingConfig, assembly: Assembly, data: Dataset
) -> Watched:
    """Its defaults but for what is the same for all: precision, batch, rate, no checkpointing."""
    on_cuda = config.device == "cuda"
    in_a_step = len(data) // config.optimiser.steps
    settings = SFTConfig(
        output_dir=job["out"],
        max_steps=config.optimiser.steps,
        per_device_train_batch_size=job["rows_at_once"],
        gradient_accumulation_steps=in_a_step // job["rows_at_once"],
        learning_rate=config.optimiser.learning_rate,
        lr_scheduler_type="constant",
        max_grad_norm=config.optimiser.clip_norm,
        optim="adamw_torch",
        bf16=on_cuda,
        use_cpu=not on_cuda,
        gradient_checkpointing=False,
        train_sampling_strategy="sequential",
        max_length=None,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=SEED,
    )
    processor = LlavaProcessor(
        image_processor=assembly.image_processor,
        tokenizer=assembly.tokenizer,
        chat_template=assembly.chat_template,
        **assembly.architecture.processor(assembly.model.config),
    )
    return Watched(
        model=assembly.model, args=settings, train_dataset=data, processing_class=processor
    )


def utilisation(assembly: Assembly, tokens: int, rows: int, seconds: float) -> float | None:
    device = assembly.model.device
    peak = peak_operations(device, None)
    image_tokens = rows * int(assembly.model.config.image_seq_length)
    work = Work.of(assembly.model, assembly.architecture)
    return None if peak is None else work.operations(tokens, image_tokens) / seconds / peak


def main(job: dict[str, Any]) -> None:
    config = configure(job)
    torch.set_num_threads(job["threads"])
    rows = Rows.read(open_shards(Path(job["shards"])), Split.TRAIN)
    assembly = load_checkpoint(Checkpoint(kind="checkpoint", name=job["checkpoint"]))
    assembly.model.model.vision_tower.requires_grad_(requires_grad=False)
    data = take_rows(rows, config, Path(job["images"]))
    trainer, clock = make_trainer(job, config, assembly, data), Clock()
    trainer.batches = []
    trainer.add_callback(clock)
    trainer.train()
    steps = config.optimiser.steps
    in_a_step = len(trainer.batches) // steps
    counts = [
        [int(sum(batch[kind] for batch in trainer.batches[first : first + in_a_step]))
         for first in range(0, len(trainer.batches), in_a_step)]
        for kind in (0, 1)
    ]  # fmt: skip
    learnt, seconds = len(data) // steps * (steps - 1), clock.ends[-1] - clock.ends[0]
    figures = summarise(
        seconds=seconds,
        rows=learnt,
        tokens=counts[0],
        answer_tokens=counts[1],
        losses=[line["loss"] for line in trainer.state.log_history if "loss" in line],
    )
    figures["mfu"] = utilisation(assembly, sum(counts[0][1:]), learnt, seconds)
    print(json.dumps(figures))


torch.set_float32_matmul_precision("high")
main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
