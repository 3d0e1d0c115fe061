"""python -m benchmarks.demo_learning [--splits 3] [--work DIR]

How well the small model of `make train` learns the demo: the whole path, once per split of the
photographs, and once more with the training labels shuffled. Prints one table, the mean over the
splits with 95 % intervals clustered by photograph, and writes it to DIR/demo_learning.json.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import typer
import yaml

from core.command_line import one_line_errors
from core.errors import PermanentError
from core.ids import seed_of
from core.recipe import DEFAULT_RECIPE
from core.records import ImageRecord, Split
from instruct_builder.shards import BuildFacts, ShardSet, write_shards
from training.metrics import Interval, Scored, bootstrap

CONFIG = DEFAULT_RECIPE / "training" / "tiny.yaml"
MODEL, SHUFFLED = "model", "model, labels shuffled"
DEPLOYMENT = ("DATABASE_URL", "CELERY_BROKER_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY")
"""left out of the environment: the demo stands alone"""
RESAMPLES, SEED = 2000, 1
ROWS_PER_SHARD = 50_000

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True)
class Trained:
    """One split, trained on true and on shuffled labels."""

    predictions: list[dict[str, Any]]
    shuffled: list[dict[str, Any]]
    held_out: frozenset[str]
    seconds: float
    """of the run on true labels, from start to report"""


@app.command()
@one_line_errors()
def main(
    splits: Annotated[int, typer.Option(min=1, help="Ways to split the photographs.")] = 3,
    work: Annotated[Path, typer.Option(help="Folder for everything.")] = Path("data/demo_learning"),
) -> None:
    """Train on the demo for several splits of its photographs and print one table."""
    runs = [learn(work / f"split-{seed}", split_seed=seed) for seed in range(1, splits + 1)]
    table = tabulate(runs)
    print(render(table, runs))
    (work / "demo_learning.json").write_text(json.dumps(as_json(table, runs), indent=2) + "\n")


def learn(folder: Path, *, split_seed: int) -> Trained:
    """Build the demo's shards with a split of their own, train on them, and on shuffled labels."""
    home, shards = folder / "home", folder / "shards"
    recipe = copy_recipe(folder / "recipe", split_seed=split_seed)
    call("main_job", "--min-review", "draft", "--recipe", recipe, "--out", shards, home=home)
    shuffle_labels(shards, folder / "shuffled-shards")
    started = time.perf_counter()
    train(shards, folder / "run", home=home)
    seconds = time.perf_counter() - started
    train(folder / "shuffled-shards", folder / "shuffled-run", home=home)
    report = json.loads((folder / "run" / "report.json").read_text())
    return Trained(
        predictions=read_predictions(folder / "run"),
        shuffled=read_predictions(folder / "shuffled-run"),
        held_out=frozenset(g["generator"] for g in report["generators"] if g["is_held_out"]),
        seconds=seconds,
    )


def copy_recipe(folder: Path, *, split_seed: int) -> Path:
    """The default recipe with another split seed."""
    shutil.copytree(DEFAULT_RECIPE, folder, dirs_exist_ok=True)
    settings = yaml.safe_load((folder / "recipe.yaml").read_text())
    settings["split"]["seed"] = split_seed
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    return folder


def train(shards: Path, out: Path, *, home: Path) -> None:
    """One `make train`; a folder that holds a finished run of the same settings is kept."""
    call(
        "training.run", CONFIG, "--shards", shards, "--images", home / "images", "--out", out,
        home=home,
    )  # fmt: skip


def call(module: str, *arguments: Path | str, home: Path) -> None:
    """Run a command of the project by itself, its report going to standard error."""
    environment = {name: value for name, value in os.environ.items() if name not in DEPLOYMENT}
    ended = subprocess.run(
        [sys.executable, "-m", module, *map(str, arguments)],
        env={**environment, "FAKESCOPE_HOME": str(home)},
        stdout=sys.stderr,
        check=False,
    )
    if ended.returncode:
        raise PermanentError(f"python -m {module} ended with exit code {ended.returncode}")


def shuffle_labels(shards: Path, out: Path) -> None:
    """The same shard set with the pixels of the training images dealt out anew."""
    opened = ShardSet.open(shards)
    images = opened.images().to_pylist()
    train_images = [image for image in images if image["split"] == Split.TRAIN]
    order = np.random.default_rng(seed_of("shuffle", SEED)).permutation(len(train_images))
    pixels = {
        image["image_id"]: (train_images[other]["path"], train_images[other]["sha256"])
        for image, other in zip(train_images, order, strict=True)
    }
    facts = {name: getattr(opened.manifest, name) for name in BuildFacts.model_fields}
    facts["statement"] = f"labels shuffled for a control run; {facts['statement']}"
    write_shards(
        out,
        (_redeal_rows(table, pixels) for table in opened.rows()),
        (_redeal_image(image, pixels) for image in images),
        BuildFacts(**facts),
        rows_per_shard=ROWS_PER_SHARD,
    )


def _redeal_rows(table: pa.Table, pixels: Mapping[str, tuple[str, str]]) -> pa.Table:
    columns = (table[name].to_pylist() for name in ("image_id", "image_path", "image_sha256"))
    dealt = [pixels.get(name, (path, digest)) for name, path, digest in zip(*columns, strict=True)]
    for place, name in enumerate(("image_path", "image_sha256")):
        values = pa.array([pair[place] for pair in dealt], pa.string())
        table = table.set_column(table.schema.get_field_index(name), name, values)
    return table


def _redeal_image(
    image: Mapping[str, Any], pixels: Mapping[str, tuple[str, str]]
) -> tuple[ImageRecord, Split]:
    path, digest = pixels.get(image["image_id"], (image["path"], image["sha256"]))
    values = {name: value for name, value in image.items() if name != "split"}
    return ImageRecord(**{**values, "path": path, "sha256": digest}), Split(image["split"])


def read_predictions(run: Path) -> list[dict[str, Any]]:
    """`predictions.jsonl` of a run."""
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


def tabulate(runs: Sequence[Trained]) -> dict[str, dict[str, Interval]]:
    """Mean AUROC over the splits by way to score, for seen and for held-out generators."""
    table: dict[str, dict[str, Interval]] = {}
    for name in (MODEL, SHUFFLED, *runs[0].predictions[0]["others"]):
        table[name] = {
            column: bootstrap(list(samples), resamples=RESAMPLES, seed=SEED)
            for column, samples in (
                ("seen", (score(run, name, held_out=False) for run in runs)),
                ("held_out", (score(run, name, held_out=True) for run in runs)),
            )
        }
    return table


def score(run: Trained, name: str, *, held_out: bool) -> Scored:
    """Scores of the photographs and of the fakes of seen, or of held-out, generators."""
    rows = run.shuffled if name == SHUFFLED else run.predictions
    kept = [
        row
        for row in rows
        if row["label"] == "real" or (row["generator"] in run.held_out) is held_out
    ]
    return Scored.of(
        [row["label"] == "fake" for row in kept],
        [row["log_odds"] if name in (MODEL, SHUFFLED) else row["others"][name] for row in kept],
        [row["group"] for row in kept],
    )


def render(table: Mapping[str, Mapping[str, Interval]], runs: Sequence[Trained]) -> str:
    """The table as text."""
    return "\n".join(_lines(table, runs))


def _lines(table: Mapping[str, Mapping[str, Interval]], runs: Sequence[Trained]) -> Iterator[str]:
    yield f"AUROC on unseen photographs, mean of {len(runs)} splits by photograph, 95 % intervals"
    yield f"{'':52}{'seen generators':24}held-out generator"
    for name, columns in table.items():
        yield f"{name:52}{columns['seen']!s:24}{columns['held_out']}"
    by_split = (bootstrap([score(run, MODEL, held_out=False)], resamples=RESAMPLES, seed=SEED)
                for run in runs)  # fmt: skip
    yield f"model by split, seen generators: {'; '.join(map(str, by_split))}"
    yield f"seconds of a run: {', '.join(f'{run.seconds:.0f}' for run in runs)}"
    best = max((name for name in table if name != MODEL), key=lambda n: table[n]["seen"].value)
    if table[best]["seen"].value > table[MODEL]["seen"].value:
        yield f"The model loses to: {best}."


def as_json(table: Mapping[str, Mapping[str, Interval]], runs: Sequence[Trained]) -> dict[str, Any]:
    """The table and the seconds, for machines."""
    return {
        "table": {
            name: {column: vars_of(interval) for column, interval in columns.items()}
            for name, columns in table.items()
        },
        "seconds": [round(run.seconds, 1) for run in runs],
    }


def vars_of(interval: Interval) -> dict[str, float]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}


if __name__ == "__main__":
    app()
