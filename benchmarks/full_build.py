"""python -m benchmarks.full_build [--rows 2000000] [--chains 50000]

The real build at its full size, once: chains drawn into a database, all checks with the thresholds
of the recipe, then `verify`, and all rows read through by `datasets.load_dataset` as a stream. Any
of them that fails ends it with exit code 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from benchmarks.build_instruct import draw_chains
from benchmarks.contest import ROOT
from benchmarks.main_job import (
    DEPLOYMENT,
    MIB,
    SAMPLE_SECONDS,
    proportional_bytes,
    resident_bytes,
)
from core.command_line import one_line_errors
from core.errors import PermanentError
from imaging.crew import usable_cores
from instruct_builder.shards import ShardSet

BUILDING = ("planning", "making", "publishing")

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
@one_line_errors()
def main(
    rows: Annotated[int, typer.Option(min=1, help="Rows to build.")] = 2_000_000,
    chains: Annotated[int, typer.Option(min=100, help="Drawn chains.")] = 50_000,
    folder: Annotated[
        Path | None, typer.Option(help="Where to work, and what to leave; default: removed.")
    ] = None,
) -> None:
    """Build, verify and read, and print what each took."""
    with tempfile.TemporaryDirectory(prefix="fakescope-bench-") as name:
        place = folder or Path(name)
        place.mkdir(parents=True, exist_ok=True)
        draw_chains(place, chains)
        report(build_and_read(place, rows), chains)


def build_and_read(place: Path, rows: int) -> dict[str, Any]:
    """The figures of the build, and of reading it back."""
    out = place / "set"
    command = ["instruct_builder", "build", "--min-review", "draft", "--json"]
    built, seconds, peak = run(place, *command, "--rows", str(rows), "--out", str(out))
    _, verifying, _ = run(place, "instruct_builder", "verify", str(out))
    started = time.perf_counter()
    read = read_through(out)
    if read != rows:
        raise PermanentError(f"{out}: datasets read {read:,} rows, {rows:,} were asked for")
    manifest = ShardSet.open(out).manifest
    return {
        **json.loads(built),
        "whole": seconds,
        "peak_bytes": peak.resident,
        "peak_with_shared_pages_once": peak.proportional,
        "verifying": verifying,
        "streaming": time.perf_counter() - started,
        "written_bytes": sum(file.bytes for file in manifest.files if file.split is not None),
        "checks": {name: check.figures for name, check in manifest.checks.items()},
    }


class Peak(NamedTuple):
    """Most memory of a command's processes, in bytes."""

    resident: int
    """shared pages counted in each"""
    proportional: int
    """shared pages counted once"""


def run(place: Path, module: str, *arguments: str) -> tuple[str, float, Peak]:
    """What a command of ours said, its seconds, and the peak of its memory."""
    kept = {name: value for name, value in os.environ.items() if name not in DEPLOYMENT}
    started, peak = time.perf_counter(), Peak(0, 0)
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as complaints:
        running = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT,
            env={**kept, "FAKESCOPE_HOME": str(place / "home")},
            stdout=said,
            stderr=complaints,
        )
        while running.poll() is None:
            peak = Peak(
                max(peak.resident, resident_bytes(running.pid)),
                max(peak.proportional, proportional_bytes(running.pid)),
            )
            time.sleep(SAMPLE_SECONDS)
        for file in (said, complaints):
            file.seek(0)
        if running.returncode:
            raise PermanentError(f"{module} {arguments[0]}: {complaints.read().strip()}")
        return said.read(), time.perf_counter() - started, peak


def read_through(out: Path) -> int:
    """How many rows `datasets` reads from the folder as a stream, all splits together."""
    import datasets

    loaded: Any = datasets.load_dataset(str(out), streaming=True)
    return sum(1 for split in loaded.values() for _ in split)


def report(figures: dict[str, Any], chains: int) -> None:
    """Print what was measured."""
    rows, spent = figures["rows"], figures["seconds"]
    building = sum(spent[part] for part in BUILDING)
    print(f"{rows:,} rows from {chains:,} drawn chains on {usable_cores()} cores")
    for part, seconds in spent.items():
        print(f"{part:12}{seconds:8.1f} s")
    print(
        f"{'building':12}{building:8.1f} s   ({', '.join(BUILDING)}: {rows / building:,.0f} rows/s)"
    )
    print(
        f"{'all of it':12}{figures['whole']:8.1f} s   peak {figures['peak_bytes'] / MIB:.0f} MiB, "
        f"{figures['peak_with_shared_pages_once'] / MIB:.0f} with shared pages counted once"
    )
    print(f"{'verify':12}{figures['verifying']:8.1f} s")
    print(f"{'datasets':12}{figures['streaming']:8.1f} s   {rows:,} rows read through by datasets")
    print(f"{figures['written_bytes'] / rows:.0f} bytes per row on disk")
    for name in ("unique", "polarity", "names", "near_duplicates", "variety", "text_only"):
        print(f"{name}: {json.dumps(figures['checks'][name])}")


if __name__ == "__main__":
    app()
