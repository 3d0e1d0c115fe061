"""python -m benchmarks.fakeclue_ablation [--home data] [--seeds 3] [--steps 500]

FakeVLM's ablation at tiny size, on the demo of recipes/fakeclue: does a model find fakes better
that learns to explain its verdict than one that learns the verdict alone, or than a linear probe on
the frozen tower? Each contender sees the same images and starts from the same weights, from several
seeds. Prints one line for each run, then two tables: the mean over the seeds with 95 % intervals
clustered by photograph. The demo must have been built in HOME (`make build-instruct
RECIPE=recipes/fakeclue`).

A verdict is the word of the two that is likelier after the answer prefix of the training file: no
reply is written, so none is parsed and none lacks a verdict. The tower of this size is untrained,
but for patches that whiten.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from sklearn.metrics import accuracy_score, f1_score

from core.command_line import one_line_errors
from core.recipe import RECIPES
from training.baselines import logistic_scores
from training.batches import BATCH, in_batches
from training.config import TrainingConfig, load_config
from training.data import LabelledImage
from training.inputs import Inputs, read_inputs
from training.loop import Training
from training.metrics import Scored, Scores, auroc, bootstrap
from training.model import Assembly
from training.probe import tower_features
from training.run import prepare_model, prepare_torch
from training.score import score_images

CONFIG = RECIPES / "fakeclue" / "training" / "tiny.yaml"
PROBE: Final = "linear probe on the frozen tower"
LEARNT: Final = {
    "verdict alone": ("data.leave_out=[explanation]",),
    "verdict with explanation": (),
}
"""changes of the training file, by contender"""
RESAMPLES, SEED = 2000, 1


def accuracy(scored: Scored) -> float:
    """Share of right verdicts."""
    return float(accuracy_score(scored.labels, scored.scores > 0))


def f1_of_fakes(scored: Scored) -> float:
    """F1 with fakes as the positive class."""
    return float(f1_score(scored.labels, scored.scores > 0, zero_division=0.0))


def f1_of_photographs(scored: Scored) -> float:
    """F1 with photographs as the positive class: the one that FakeVLM's table has."""
    return float(f1_score(~scored.labels, scored.scores <= 0, zero_division=0.0))


FIGURES: Final[Mapping[str, Callable[[Scored], float]]] = {
    "accuracy": accuracy,
    "F1 of fakes": f1_of_fakes,
    "F1 of photographs": f1_of_photographs,
    "AUROC": auroc,
}
Table = Mapping[str, Sequence[Scored]]
"""one set of scores a seed, by contender"""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
@one_line_errors()
def main(
    home: Annotated[Path, typer.Option(help="Where the demo was built.")] = Path("data"),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a run.")] = 500,
) -> None:
    """Train each contender from each seed and print how the test split is told apart."""
    seen: dict[str, list[Scored]] = defaultdict(list)
    held_out: dict[str, list[Scored]] = defaultdict(list)
    for seed in range(1, seeds + 1):
        for name, scores, inputs, seconds in compete(home, seed, steps):
            scored = inputs.test.scored(scores)
            seen[name].append(scored.where(inputs.test.among(inputs.test.seen)))
            held_out[name].append(scored.where(inputs.test.among(inputs.test.held_out)))
            print(
                f"seed {seed} {name:34} AUROC seen {auroc(seen[name][-1]):.3f}, "
                f"held out {auroc(held_out[name][-1]):.3f}  {seconds:.0f} s",
                flush=True,
            )
    print("\n".join([*render("seen generators", seen), *render("held-out generator", held_out)]))


def compete(home: Path, seed: int, steps: int) -> Iterator[tuple[str, Scores, Inputs, float]]:
    """Log-odds on the test split of each contender, the seconds that it took beside them."""
    for name in LEARNT:
        config = load_contender(name, seed=seed, steps=steps)
        inputs = read_inputs(config, home / "fakeinstruct", home / "images")
        prepare_torch(config)
        started = time.perf_counter()
        scores = learn(config, inputs)
        yield name, scores, inputs, time.perf_counter() - started
    started = time.perf_counter()
    scores = probe(config, inputs)
    yield PROBE, scores, inputs, time.perf_counter() - started


def load_contender(name: str, *, seed: int, steps: int) -> TrainingConfig:
    """The settings of one that is trained."""
    changes = (f"seed={seed}", f"optimiser.steps={steps}", *LEARNT[name])
    return load_config(CONFIG, changes)


def learn(config: TrainingConfig, inputs: Inputs) -> Scores:
    """Train from nothing, and score the test split."""
    assembly, verdict = prepare_model(config, inputs)
    for _ in Training(assembly, inputs.rows, inputs.folder, config).steps():
        pass
    assembly.model.eval()
    batches = in_batches(inputs.test.images, BATCH)
    return np.array(
        [
            score
            for batch in batches
            for score in score_images([inputs.folder.read(i.ref) for i in batch], verdict, assembly)
        ],
        dtype=float,
    )


def probe(config: TrainingConfig, inputs: Inputs) -> Scores:
    """A logistic regression on what the tower gives before it is trained."""
    assembly, _ = prepare_model(config, inputs)
    trained = {ref.image_id for ref in inputs.rows.images()}
    train = [image for image in inputs.images if image.ref.image_id in trained]
    labels = np.array([image.is_fake for image in train], bool)
    tested = features(inputs.test.images, inputs, assembly)
    return logistic_scores(features(train, inputs, assembly), labels, tested)


def features(
    images: Sequence[LabelledImage], inputs: Inputs, assembly: Assembly
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """What the tower sees, (images, width)."""
    parts = [
        tower_features([inputs.folder.read(image.ref) for image in batch], assembly)
        for batch in in_batches(images, BATCH)
    ]
    return np.concatenate(parts)


def render(title: str, table: Table, *, resamples: int = RESAMPLES) -> Iterator[str]:
    """One table, ready for a page of Markdown."""
    yield ""
    yield f"| {title} | {' | '.join(FIGURES)} |"
    yield f"|---|{'---|' * len(FIGURES)}"
    for name, samples in table.items():
        cells = (
            str(bootstrap(samples, figure, resamples=resamples, seed=SEED))
            for figure in FIGURES.values()
        )
        yield f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    app()
