"""python -m benchmarks.layouts [--home data] [--fraction 1.0] [--seeds 3] [--first 1] [--epochs 1]

Do tree batches and plain batches learn the same? The small model of `make train` learns each
instruction of the demo once, in the one and in the other layout, from several seeds; then the val
split is scored. Both layouts of a seed start from the same weights and visit the same images with
the same instructions in the same order, so they are compared in pairs. Prints one line for each
run, and the mean difference with its 95 % interval (Student's t over the seeds). `--first` lets
several commands share the seeds. With `--fraction` the training images are cut down, and with them
the instructions; the val split stays whole. The demo must have been built in HOME (`make
build-instruct`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from scipy.stats import t as student

from core.command_line import one_line_errors
from core.recipe import DEFAULT_RECIPE
from core.records import Split
from training.config import Augmentation, TrainingConfig, load_config
from training.data import Rows, open_shards
from training.fit import predict_val
from training.inputs import Inputs, read_inputs, with_steps
from training.loop import Training, read_steps
from training.losses import token_losses
from training.model import Assembly
from training.run import prepare_model, prepare_torch
from training.test_split import val_nll

CONFIG = DEFAULT_RECIPE / "training" / "tiny.yaml"
LAYOUTS = ("tree", "plain")
LAST = 20
"""steps whose mean loss is told"""
VAL_STEPS = 8
"""in which answers of the val split are read: 768 with 12 images of 8 instructions"""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What one run came to."""

    layout: str
    seed: int
    images: int
    """of the train split, that it learnt from"""
    rows: int
    """instructions learnt"""
    steps: int
    tokens: int
    loss: float
    """mean of the last steps, as it is trained"""
    answer_nll: float
    """mean over answer tokens of the val split, in nats"""
    verdict_nll: float
    """mean over images of the val split, of the token soft score"""
    seconds: float
    """of training alone"""


@app.command()
@one_line_errors()
def main(
    home: Annotated[Path, typer.Option(help="Where the demo was built.")] = Path("data"),
    fraction: Annotated[
        float, typer.Option(help="Share of the training images, drawn by the seed.")
    ] = 1.0,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds.")] = 3,
    first: Annotated[int, typer.Option(min=1, help="The first of them.")] = 1,
    epochs: Annotated[float, typer.Option(help="How often each instruction is learnt.")] = 1,
    branches: Annotated[int, typer.Option(min=1, help="Instructions about an image.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 12,
) -> None:
    """Train both layouts from each seed and print how the val split is scored."""
    found = []
    for seed in range(first, first + seeds):
        for layout in LAYOUTS:
            settings = (
                f"seed={seed}",
                f"data.layout={layout}",
                f"data.images_share={fraction}",
                f"data.branches={branches}",
                f"data.batch_images={images}",
                "optimiser.steps=0",
                f"optimiser.epochs={epochs}",
                "optimiser.warmup_steps=0",
                "optimiser.warmup_share=0.1",
            )
            config = load_config(CONFIG, settings)
            learnt = learn(config, home / "fakeinstruct", home / "images")
            found.append(learnt)
            print(describe(learnt), flush=True)
    if fraction < 1:
        print(f"reduced: {fraction:.0%} of the training images; the val split is whole")
    print(difference(found, "answer NLL", lambda run: run.answer_nll))
    print(difference(found, "verdict NLL", lambda run: run.verdict_nll))


def learn(config: TrainingConfig, shards: Path, images: Path) -> Learnt:
    """One run from nothing."""
    inputs = read_inputs(config, shards, images)
    config = with_steps(config, inputs.rows)
    prepare_torch(config)
    assembly, verdict = prepare_model(config, inputs)
    training = Training(assembly, inputs.rows, inputs.folder, config)
    started = time.perf_counter()
    steps = list(training.steps())
    seconds = time.perf_counter() - started
    answers = Rows.read(open_shards(shards), Split.VAL)
    return Learnt(
        layout=config.data.layout,
        seed=config.seed,
        images=len(inputs.rows.images()),
        rows=sum(step.rows for step in steps),
        steps=len(steps),
        tokens=sum(step.tokens for step in steps),
        loss=statistics.mean(step.loss for step in steps[-LAST:]),
        answer_nll=score_answers(config, inputs, assembly, answers),
        verdict_nll=val_nll(predict_val(config, inputs, assembly, verdict)),
        seconds=seconds,
    )


def score_answers(config: TrainingConfig, inputs: Inputs, assembly: Assembly, rows: Rows) -> float:
    """Mean cross-entropy of the answer tokens of some rows, each with its own image."""
    data = {"augment": Augmentation(), "layout": "plain"}
    config = config.model_copy(
        update={
            "data": config.data.model_copy(update=data),
            "optimiser": config.optimiser.lasting(VAL_STEPS),
        }
    )
    assembly.model.eval()
    with torch.inference_mode():
        losses = [
            token_losses(assembly.model, batch).values
            for step in read_steps(rows, inputs.folder, assembly, config)
            for batch in step.batches
        ]
    return float(torch.cat(losses).mean())


def describe(learnt: Learnt) -> str:
    """One line about a run."""
    return (
        f"seed {learnt.seed} {learnt.layout:5}  {learnt.images:,} images  "
        f"{learnt.rows:,} instructions  {learnt.steps:,} steps  {learnt.tokens:,} tokens  "
        f"loss {learnt.loss:.4f}  val answer NLL {learnt.answer_nll:.4f}  "
        f"val verdict NLL {learnt.verdict_nll:.4f}  {learnt.seconds:.0f} s"
    )


def difference(found: Sequence[Learnt], name: str, figure: Callable[[Learnt], float]) -> str:
    """Trees less plain, seed by seed, beside what another seed changes."""
    by_layout = {
        layout: {run.seed: figure(run) for run in found if run.layout == layout}
        for layout in LAYOUTS
    }
    trees, plain = by_layout.values()
    apart = [trees[seed] - plain[seed] for seed in trees]
    told = f"val {name}, trees less plain: {statistics.mean(apart):+.1e}"
    if len(apart) < 2:
        return f"{told} (one seed)"
    half = student.ppf(0.975, len(apart) - 1) * statistics.stdev(apart) / len(apart) ** 0.5
    spread = max(statistics.stdev(own.values()) for own in by_layout.values())
    return (
        f"{told} +- {half:.1e} over {len(apart)} seeds, largest {max(apart, key=abs):+.1e}; "
        f"standard deviation between seeds {spread:.4f}"
    )


if __name__ == "__main__":
    app()
