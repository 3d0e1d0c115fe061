"""python -m benchmarks.build_instruct [--rows 200000] [--chains 5000] [--repeats 3]

Rows per second, peak memory and bytes per row of making instructions from chains, beside HF
`datasets` (`from_generator`, and `map` in batches), datatrove, a JSON dump as LLaVA reads it, and
nothing but the Arrow encode of our finished rows, which is the limit.

Ours is the real build of a real database of drawn chains: planned, balanced, worded, written and
published; what it takes to read the chains and to check the rows is said in a line of its own.
Peers fill patterns row by row from the same chains, in memory already, and check nothing. datatrove
runs in an environment of its own below `--cache`, made on the first call; what cannot be installed
or does not start is listed with the reason. The repeats are interleaved. Memory is the sum over all
processes, shared pages counted in each, with what a program needs to start; seconds are without it.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.contest import (
    CACHE,
    SCRIPTS,
    Contender,
    Standing,
    chosen,
    environment,
    interleaved,
    make_ready,
    watch,
)
from benchmarks.drawn_chains import draw_pairs, store_drawn_chains
from benchmarks.main_job import MIB
from core.command_line import one_line_errors
from core.errors import PermanentError
from core.recipe import DEFAULT_RECIPE, load_recipe
from core.settings import load_settings
from db.engine import open_database
from imaging.crew import usable_cores

OURS = Contender(name="FakeScope, one core", script="with_instruct_builder.py")
OURS_ON_ALL = Contender(name="FakeScope, all cores", script="with_instruct_builder.py")
CONTENDERS = (
    OURS_ON_ALL,
    OURS,
    Contender(name="datasets from_generator", script="with_datasets_generator.py"),
    Contender(name="datasets map", script="with_datasets_map.py"),
    Contender(
        name="datatrove",
        script="with_datatrove.py",
        packages=("datatrove==0.10.1", "pyarrow==26.0.1"),
    ),
    Contender(name="LLaVA-style JSON dump", script="with_json_dump.py"),
    Contender(name="Arrow encode alone", script="with_arrow_encode.py"),
)

LONGEST_S = 3_600.0

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one contender."""

    seconds: float
    cpu_seconds: float
    """of all its processes"""
    rows: int
    parts: Mapping[str, float] = field(default_factory=dict)
    """seconds of each part of a build; of ours alone"""
    peak_bytes: int
    written_bytes: int


@app.command()
@one_line_errors()
def main(
    rows: Annotated[int, typer.Option(min=1, help="Rows of each contender.")] = 200_000,
    chains: Annotated[int, typer.Option(min=100, help="Drawn chains.")] = 5_000,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each, interleaved.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(c.name for c in CONTENDERS)}.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder of the environments.")] = CACHE,
) -> None:
    """Run all contenders on the same chains and print medians."""
    standings = [make_ready(contender, cache) for contender in chosen(CONTENDERS, only)]
    with tempfile.TemporaryDirectory(prefix="fakescope-bench-") as name:
        folder = Path(name)
        draw_chains(folder, chains)
        finish(folder, rows)
        for standing in interleaved(standings, repeats):
            run(standing, folder, rows)
    print(f"{rows:,} rows from {chains:,} drawn chains; medians of {repeats} interleaved runs; "
          f"{usable_cores()} cores")  # fmt: skip
    print("\n".join(table(standings)), flush=True)


def draw_chains(folder: Path, number: int) -> None:
    """Chains in a database, and the same ones as lines of JSON."""
    recipe = load_recipe(DEFAULT_RECIPE)
    database = open_database(load_settings(fakescope_home=folder / "home"))
    store_drawn_chains(database, recipe, number)
    database.dispose()
    with (folder / "chains.jsonl").open("w", encoding="utf-8") as lines:
        for chain, image in draw_pairs(number, recipe.taxonomy.ids):
            findings = chain.reasoning.supporting()
            values = {
                "chain_id": chain.chain_id,
                "image_id": image.image_id,
                "image_path": image.path,
                "image_sha256": image.sha256,
                "label": image.label,
                "generator": image.generator,
                "source": image.source,
                "split": "train",
                "review_level": chain.review_level,
                "conclusion": chain.reasoning.conclusion,
                "findings": [(recipe.taxonomy[f.category].name, f.evidence) for f in findings],
            }
            lines.write(json.dumps(values) + "\n")


def finish(folder: Path, rows: int) -> None:
    """The set whose rows are encoded again."""
    standing = make_ready(OURS_ON_ALL, CACHE)
    run(standing, folder, rows, keep=folder / "finished")
    if standing.failure:
        raise PermanentError(standing.failure)


def run(standing: Standing[Run], folder: Path, rows: int, *, keep: Path | None = None) -> None:
    """One more run of a contender, with an empty folder to write to."""
    if standing.python is None:
        return
    script = SCRIPTS / standing.contender.script
    cores = usable_cores() if standing.contender is OURS_ON_ALL else 1
    with tempfile.TemporaryDirectory(dir=folder) as name:
        out = Path(name) / "out"
        out.mkdir()
        command = [str(standing.python), str(script), str(folder), str(rows), str(out), str(cores)]
        said, peak = watch(command, environment(Path(name)), longest_s=LONGEST_S)
        try:
            figures = json.loads(said)
        except ValueError:
            standing.python, standing.failure = None, f"did not run: {said}"
            return
        standing.runs.append(Run(**figures, peak_bytes=peak, written_bytes=size_of(out)))
        if keep is not None:
            shutil.move(out, keep)


def size_of(out: Path) -> int:
    """Bytes of the rows that were written."""
    files = [*out.rglob("*.parquet"), *out.rglob("*.json")]
    return sum(path.stat().st_size for path in files if path.stem[:1].isalnum())


def table(standings: Sequence[Standing[Run]]) -> Iterator[str]:
    """One line per contender; rows of a second of processor time are what one core does."""
    yield f"{'':26}{'rows/s':>10}{'rows/CPU s':>12}{'MiB':>7}{'bytes/row':>11}"
    for standing in standings:
        runs = standing.runs
        if not runs:
            yield f"{standing.contender.name:26}  {standing.failure}"
            continue
        speed = statistics.median(run.rows / run.seconds for run in runs)
        per_core = statistics.median(run.rows / run.cpu_seconds for run in runs)
        peak = statistics.median(run.peak_bytes for run in runs) / MIB
        written = statistics.median(run.written_bytes / run.rows for run in runs)
        figures = f"{speed:10,.0f}{per_core:12,.0f}{peak:7.0f}{written:11.0f}"
        yield f"{standing.contender.name:26}{figures}"
    for standing in standings:
        if standing.runs and standing.runs[0].parts:
            parts = {
                part: statistics.median(run.parts[part] for run in standing.runs)
                for part in standing.runs[0].parts
            }
            told = ", ".join(f"{part} {seconds:.1f} s" for part, seconds in parts.items())
            yield f"{standing.contender.name}: {told}"


if __name__ == "__main__":
    app()
