"""python -m benchmarks.ingest [--files 1000 --files 10000] [--repeats 3] [--scale 1] [--format PNG]

Images per second, processor time and peak memory of taking images in, beside decoding the same
files with Pillow alone, beside the pHash of ImageHash on full images, and beside imagededup's.
Beside it stands what it takes to open the files alone, as ingest does: no ingest can be faster.
Ours decodes every file whole, cuts the metadata, keeps a copy, hashes, searches near-duplicates and
commits rows to SQLite, on all cores. Images per second of processor time are what one core does.

The files are drawn: 65 % JPEG, 25 % PNG, 10 % WebP of 128 to 1024 pixels a side, each another
picture. With `--scale` their sides are so many times as long: a hundred thousand small ones show
whether memory stays flat, where as many large ones would fill the disk.

imagededup runs in an environment of its own below `--cache`, made on the first call; what cannot be
installed or does not start is listed with the reason. The repeats are interleaved, and no seconds
count that a program needs to start.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import Pool
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.contest import (
    CACHE,
    Contender,
    Standing,
    chosen,
    compete,
    environment,
    interleaved,
    make_ready,
    ratio,
)
from benchmarks.main_job import MIB
from core.command_line import one_line_errors
from core.errors import ConfigError

KINDS: tuple[tuple[str, dict[str, Any], tuple[tuple[int, int], ...]], ...] = (
    ("JPEG", {"quality": 92}, ((128, 128), (500, 375), (512, 512), (640, 480), (800, 600))),
    ("JPEG", {"quality": 80}, ((500, 333), (512, 512), (640, 427), (640, 480), (1024, 768))),
    ("JPEG", {"quality": 88, "progressive": True}, ((640, 480), (512, 512))),
    ("PNG", {"compress_level": 3}, ((256, 256), (512, 512), (1024, 1024))),
    ("WEBP", {"quality": 85}, ((512, 512), (640, 480))),
)
GRAIN_SIDE = 2048
LONGEST_RUN_S = 4 * 3600.0
SHARES = (0.30, 0.25, 0.10, 0.25, 0.10)

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


OURS = Contender(name="ingest, all stored", script="with_ingest.py")
CONTENDERS = (
    OURS,
    Contender(name="ingest, opening only", script="with_decoding.py"),
    Contender(name="Pillow, decode only", script="with_pillow.py"),
    Contender(name="ImageHash pHash", script="with_imagehash.py"),
    Contender(
        name="imagededup PHash",
        script="with_imagededup.py",
        packages=("imagededup==0.3.3.post2", "torch==2.9.1", "torchvision==0.24.1"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one contender."""

    seconds: float
    cpu_seconds: float
    """of all its processes"""
    images: int
    peak_bytes: int


@app.command()
@one_line_errors()
def main(
    files: Annotated[
        list[int] | None, typer.Option(min=1, help="Drawn files; repeatable: 1000 and 10000.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each, interleaved.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(c.name for c in CONTENDERS)}.")
    ] = None,
    scale: Annotated[
        float, typer.Option(min=0.1, max=1, help="Sides of the pictures, in those of photographs.")
    ] = 1.0,
    format: Annotated[
        str | None, typer.Option(help="Only files of this format: JPEG, PNG or WEBP.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder of the environments.")] = CACHE,
) -> None:
    """Run all contenders on each number of files and print medians."""
    cores = len(os.sched_getaffinity(0))
    print(f"medians of {repeats} interleaved runs; pictures at scale {scale:g}; {cores} cores")
    for number in files or (1000, 10_000):
        standings = [make_ready(contender, cache) for contender in chosen(CONTENDERS, only)]
        with tempfile.TemporaryDirectory() as name:
            folder = draw_files(Path(name) / "files", number, scale=scale, format=format)
            for standing in interleaved(standings, repeats):
                run(standing, folder)
        print("\n".join(table(standings, number)), flush=True)


def draw_files(folder: Path, number: int, *, scale: float, format: str | None) -> Path:
    """So many different pictures, half of them under `real/` and half under `fake/drawn/`."""
    kinds = [place for place, (kind, _, _) in enumerate(KINDS) if format in (None, kind)]
    if not kinds:
        raise ConfigError(f"{format}: no such format; choose JPEG, PNG or WEBP")
    for name in ("real", "fake/drawn"):
        (folder / name).mkdir(parents=True)
    with Pool(len(os.sched_getaffinity(0))) as pool:
        draw = partial(draw_file, folder, scale, kinds)
        for _ in pool.imap_unordered(draw, range(number), chunksize=50):
            pass
    return folder


def draw_file(folder: Path, scale: float, kinds: Sequence[int], number: int) -> None:
    """One picture: soft colours and grain, which compress about as well as a photograph."""
    rng = np.random.default_rng(number)
    shares = np.array([SHARES[place] for place in kinds])
    kind, options, sizes = KINDS[kinds[rng.choice(len(kinds), p=shares / shares.sum())]]
    width, height = (round(scale * side) for side in sizes[rng.integers(len(sizes))])
    coarse = Image.fromarray(rng.integers(0, 224, (17, 17, 3), dtype=np.uint8))
    colours = np.asarray(coarse.resize((width, height), Image.Resampling.BILINEAR))
    left, top = rng.integers(0, GRAIN_SIDE - 1024, 2)
    pixels = colours + grain()[top : top + height, left : left + width]
    place = folder / ("real" if number % 2 else "fake/drawn") / f"{number:07}.{kind.lower()}"
    Image.fromarray(pixels).save(place, kind, **options)


@cache
def grain() -> NDArray[np.uint8]:
    """Noise that pictures are sprinkled with, 0 to 31 grey levels."""
    noise = np.random.default_rng(1).standard_normal((GRAIN_SIDE, GRAIN_SIDE, 1))
    return (16 + 3 * noise).clip(0, 31).astype(np.uint8)


def run(standing: Standing[Run], folder: Path) -> None:
    """One more run of a contender, with a home folder of its own."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as home:
        figures = compete(standing, folder, environment(Path(home)), longest_s=LONGEST_RUN_S)
    if figures:
        standing.runs.append(Run(**figures))


def table(standings: Sequence[Standing[Run]], number: int) -> Iterator[str]:
    """One line per contender; ratios are medians over the rounds."""
    yield f"\n{number:,} files"
    yield f"{'':22}{'images/s':>10}{'images/CPU s':>14}{'ours is':>9}{'MiB':>7}{'images':>9}"
    per_core = {
        s.contender.name: [run.images / run.cpu_seconds for run in s.runs] for s in standings
    }
    ours = per_core.get(OURS.name, [])
    for standing in standings:
        runs = standing.runs
        if not runs:
            yield f"{standing.contender.name:22}  {standing.failure}"
            continue
        speed = statistics.median(run.images / run.seconds for run in runs)
        own = per_core[standing.contender.name]
        peak = statistics.median(run.peak_bytes for run in runs) / MIB
        yield (
            f"{standing.contender.name:22}{speed:10.0f}{statistics.median(own):14.0f}"
            f"{ratio(ours, own):>9}{peak:7.0f}{runs[-1].images:9}"
        )


if __name__ == "__main__":
    app()
