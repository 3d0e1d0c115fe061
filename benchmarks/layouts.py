"""python -m benchmarks.layouts [--home data] [--seeds 3] [--epochs 1]

Do tree batches and plain batches learn the same? The small model of `make train` learns each
instruction of the demo once, in the one and in the other layout, from several seeds; then the val
split is scored. Prints one line for each run and the mean difference. The demo must have been built
in HOME (`make build-instruct`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from core.command_line import one_line_errors
from core.recipe import DEFAULT_RECIPE
from training.config import TrainingConfig, load_config
from training.fit import predict_val
from training.inputs import Inputs, read_inputs
from training.loop import Training
from training.run import prepare_model, prepare_torch
from training.test_split import val_nll

CONFIG = DEFAULT_RECIPE / "training" / "tiny.yaml"
LAYOUTS = ("tree", "plain")
LAST = 20
"""steps whose mean loss is told"""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What one run came to."""

    layout: str
    seed: int
    loss: float
    """mean of the last steps"""
    nll: float
    tokens: int
    seconds: float


@app.command()
@one_line_errors()
def main(
    home: Annotated[Path, typer.Option(help="Where the demo was built.")] = Path("data"),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds.")] = 3,
    epochs: Annotated[float, typer.Option(help="How often each instruction is learnt.")] = 1,
    branches: Annotated[int, typer.Option(min=1, help="Instructions about an image.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Images of a step.")] = 12,
) -> None:
    """Train both layouts from each seed and print how the val split is scored."""
    found = []
    for seed in range(1, seeds + 1):
        for layout in LAYOUTS:
            settings = (
                f"seed={seed}",
                f"data.layout={layout}",
                f"data.branches={branches}",
                f"data.batch_images={images}",
            )
            learnt = learn(load_config(CONFIG, settings), home, epochs)
            found.append(learnt)
            print(
                f"seed {seed} {layout:5}  loss {learnt.loss:.4f}  val NLL {learnt.nll:.4f}  "
                f"{learnt.tokens:,} tokens  {learnt.seconds:.0f} s",
                flush=True,
            )
    print(difference(found))


def learn(config: TrainingConfig, home: Path, epochs: float) -> Learnt:
    """One run from nothing."""
    inputs = read_inputs(config, home / "fakeinstruct", home / "images")
    config = config.model_copy(update={"optimiser": config.optimiser.model_copy(
        update={"steps": count_steps(config, inputs, epochs)}
    )})  # fmt: skip
    prepare_torch(config)
    assembly, verdict = prepare_model(config, inputs)
    training = Training(assembly, inputs.rows, inputs.folder, config)
    started = time.perf_counter()
    steps = list(training.steps())
    seconds = time.perf_counter() - started
    predictions = predict_val(config, inputs, assembly, verdict)
    return Learnt(
        layout=config.data.layout,
        seed=config.seed,
        loss=statistics.mean(step.loss for step in steps[-LAST:]),
        nll=val_nll(predictions),
        tokens=sum(step.tokens for step in steps),
        seconds=seconds,
    )


def count_steps(config: TrainingConfig, inputs: Inputs, epochs: float) -> int:
    """Steps in which as many instructions are learnt as there are."""
    in_a_step = config.data.batch_images * config.data.branches
    return round(epochs * len(inputs.rows) / in_a_step)


def difference(found: Sequence[Learnt]) -> str:
    """Trees less plain, seed by seed, beside what another seed changes."""
    by_layout = {
        layout: [each.nll for each in found if each.layout == layout] for layout in LAYOUTS
    }
    apart = [one - other for one, other in zip(*by_layout.values(), strict=True)]
    spread = max(statistics.pstdev(values) for values in by_layout.values())
    return (
        f"val NLL, trees less plain: mean {statistics.mean(apart):+.4f}, "
        f"largest {max(apart, key=abs):+.4f}; standard deviation over seeds {spread:.4f}"
    )


if __name__ == "__main__":
    app()
