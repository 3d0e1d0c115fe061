"""python -m benchmarks.ingest [--files 1000 --files 10000] [--repeats 3]

Images per second, processor time and peak memory of taking images in, beside decoding the same
files with Pillow alone, beside the pHash of ImageHash on full images, and beside imagededup's.
Ours decodes every file whole, cuts the metadata, keeps a copy, hashes, searches near-duplicates and
commits rows to SQLite, on all cores. Images per second of processor time are what one core does.

The files are drawn: 65 % JPEG, 25 % PNG, 10 % WebP of 128 to 1024 pixels a side, each another
picture. imagededup runs in an environment of its own below `--cache`, made on the first call; what
cannot be installed or does not start is listed with the reason. The repeats are interleaved, and no
seconds count that a program needs to start.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from multiprocessing import Pool
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from benchmarks.main_job import DEPLOYMENT, MIB, SAMPLE_SECONDS, resident_bytes
from core.command_line import one_line_errors

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path("data/benchmarks")
LONGEST_INSTALL_S = 900.0
KINDS: tuple[tuple[str, dict[str, Any], tuple[tuple[int, int], ...]], ...] = (
    ("JPEG", {"quality": 92}, ((128, 128), (500, 375), (512, 512), (640, 480), (800, 600))),
    ("JPEG", {"quality": 80}, ((500, 333), (512, 512), (640, 427), (640, 480), (1024, 768))),
    ("JPEG", {"quality": 88, "progressive": True}, ((640, 480), (512, 512))),
    ("PNG", {"compress_level": 3}, ((256, 256), (512, 512), (1024, 1024))),
    ("WEBP", {"quality": 85}, ((512, 512), (640, 480))),
)
GRAIN_SIDE = 2048
SHARES = (0.30, 0.25, 0.10, 0.25, 0.10)

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to go through a folder of images, and what it needs."""

    name: str
    script: str
    packages: tuple[str, ...] = ()
    """pinned; none: the environment of the project itself"""


OURS = Contender(name="ingest, all stored", script="with_ingest.py")
CONTENDERS = (
    OURS,
    Contender(name="Pillow, decode only", script="with_pillow.py"),
    Contender(name="ImageHash pHash", script="with_imagehash.py"),
    Contender(
        name="imagededup PHash",
        script="with_imagededup.py",
        packages=("imagededup==0.3.3.post2", "torch==2.13.0"),
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


@dataclass
class Standing:
    """The runs of a contender, or why there are none."""

    contender: Contender
    python: Path | None = None
    """its interpreter; None once it has failed"""
    runs: list[Run] = field(default_factory=list)
    failure: str | None = None


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
    cache: Annotated[Path, typer.Option(help="Folder of the environments.")] = CACHE,
) -> None:
    """Run all contenders on each number of files and print medians."""
    chosen = [c for c in CONTENDERS if only is None or c.name in only]
    print(f"medians of {repeats} interleaved runs; {len(os.sched_getaffinity(0))} cores")
    for number in files or (1000, 10_000):
        standings = [make_ready(contender, cache.resolve()) for contender in chosen]
        with tempfile.TemporaryDirectory() as name:
            folder = draw_files(Path(name) / "files", number)
            for repeat in range(repeats):
                for place in range(len(standings)):
                    run(standings[(place + repeat) % len(standings)], folder)
        print("\n".join(table(standings, number)), flush=True)


def draw_files(folder: Path, number: int) -> Path:
    """So many different pictures, half of them under `real/` and half under `fake/drawn/`."""
    for name in ("real", "fake/drawn"):
        (folder / name).mkdir(parents=True)
    with Pool(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.imap_unordered(partial(draw_file, folder), range(number), chunksize=50):
            pass
    return folder


def draw_file(folder: Path, number: int) -> None:
    """One picture: soft colours and grain, which compress about as well as a photograph."""
    rng = np.random.default_rng(number)
    kind, options, sizes = KINDS[rng.choice(len(KINDS), p=SHARES)]
    width, height = sizes[rng.integers(len(sizes))]
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


def make_ready(contender: Contender, cache: Path) -> Standing:
    """Make the contender's environment where it is missing; what fails is its standing."""
    if not contender.packages:
        return Standing(contender, python=Path(sys.executable))
    folder = cache / contender.script.removesuffix(".py")
    python, stamp = folder / "bin" / "python", folder / "installed.json"
    wanted = json.dumps(contender.packages)
    if stamp.is_file() and stamp.read_text() == wanted:
        return Standing(contender, python=python)
    venv.create(folder, clear=True, with_pip=True)
    command = [str(python), "-m", "pip", "install", "--quiet", *contender.packages]
    try:
        subprocess.run(command, capture_output=True, check=True, timeout=LONGEST_INSTALL_S)
    except subprocess.TimeoutExpired:
        return Standing(contender, failure=f"not installed within {LONGEST_INSTALL_S:g} s")
    except subprocess.CalledProcessError as error:
        return Standing(contender, failure=f"not installed: {last_line(error.stderr.decode())}")
    stamp.write_text(wanted)
    return Standing(contender, python=python)


def run(standing: Standing, folder: Path) -> None:
    """One more run of a contender, with a home folder of its own."""
    if standing.python is None:
        return
    script = ROOT / "benchmarks" / "contenders" / standing.contender.script
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile("w+") as said:
        kept = {name: value for name, value in os.environ.items() if name not in DEPLOYMENT}
        running = subprocess.Popen(
            [str(standing.python), str(script), str(folder)],
            env={**kept, "FAKESCOPE_HOME": home, "PYTHONPATH": str(ROOT)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        peak = 0
        while running.poll() is None:
            peak = max(peak, resident_bytes(running.pid))
            time.sleep(SAMPLE_SECONDS)
        said.seek(0)
        line = last_line(said.read())
    if running.returncode:
        standing.python, standing.failure = None, f"did not run: {line}"
    else:
        standing.runs.append(Run(**json.loads(line), peak_bytes=peak))


def last_line(text: str) -> str:
    """What a command said last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no word"


def table(standings: Sequence[Standing], number: int) -> Iterator[str]:
    """One line per contender; ratios are medians over the rounds."""
    yield f"\n{number:,} files"
    yield f"{'':22}{'images/s':>10}{'images/CPU s':>14}{'ours is':>9}{'MiB':>7}{'images':>9}"
    ours = next((s.runs for s in standings if s.contender is OURS), [])
    for standing in standings:
        runs = standing.runs
        if not runs:
            yield f"{standing.contender.name:22}  {standing.failure}"
            continue
        speed = statistics.median(run.images / run.seconds for run in runs)
        per_core = statistics.median(run.images / run.cpu_seconds for run in runs)
        peak = statistics.median(run.peak_bytes for run in runs) / MIB
        yield (
            f"{standing.contender.name:22}{speed:10.0f}{per_core:14.0f}{ratio(ours, runs):>9}"
            f"{peak:7.0f}{runs[-1].images:9}"
        )


def ratio(ours: Sequence[Run], runs: Sequence[Run]) -> str:
    """How many times the images per second of processor time of another one we take in."""
    pairs = list(zip(ours, runs, strict=False))
    if not pairs:
        return ""
    times = [(a.images / a.cpu_seconds) / (b.images / b.cpu_seconds) for a, b in pairs]
    return f"{statistics.median(times):.2f}x"


if __name__ == "__main__":
    app()
