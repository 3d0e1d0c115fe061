"""python -m benchmarks.main_job [--runs 3]

Seconds and peak memory of the main job on the demo, from an empty home folder, and of the second
run that finds nothing to do. Memory is the sum over all its processes, sampled ten times a second.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from core.command_line import one_line_errors
from core.errors import PermanentError

SAMPLE_SECONDS = 0.1
MIB = 2**20
DEPLOYMENT = ("DATABASE_URL", "CELERY_BROKER_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY")

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
@one_line_errors()
def main(runs: Annotated[int, typer.Option(min=1, help="Runs from nothing.")] = 3) -> None:
    """Run the main job and print medians."""
    firsts, seconds = [], []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as home:
            firsts.append(measure(Path(home)))
            seconds.append(measure(Path(home)))
    print(f"median of {runs}, {len(os.sched_getaffinity(0))} cores")
    for name, figures in (("from nothing", firsts), ("nothing to do", seconds)):
        wall = statistics.median(figure[0] for figure in figures)
        peak = statistics.median(figure[1] for figure in figures)
        print(f"{name:14} {wall:6.1f} s  {peak / MIB:6.0f} MiB")


def measure(home: Path) -> tuple[float, int]:
    """Seconds and peak bytes of one main job in `home`."""
    environment = {name: value for name, value in os.environ.items() if name not in DEPLOYMENT}
    started, peak = time.perf_counter(), 0
    running = subprocess.Popen(
        [sys.executable, "-m", "main_job"],
        env={**environment, "FAKESCOPE_HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while running.poll() is None:
        peak = max(peak, resident_bytes(running.pid))
        time.sleep(SAMPLE_SECONDS)
    if running.returncode:
        raise PermanentError(f"python -m main_job ended with exit code {running.returncode}")
    return time.perf_counter() - started, peak


def resident_bytes(root: int) -> int:
    """Resident memory of a process and all below it; shared pages count in each (proc(5))."""
    return sum(family_pages(root).values()) * os.sysconf("SC_PAGE_SIZE")


def proportional_bytes(root: int) -> int:
    """The same with shared pages divided among those that hold them: what the machine gives."""
    return sum(map(_proportional_kib, family_pages(root))) * 1024


def _proportional_kib(process: int) -> int:
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0  # it has ended
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def family_pages(root: int) -> dict[int, int]:
    """Resident pages of a process and of each below it."""
    parents, pages = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            after_name = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(folder.name)], pages[int(folder.name)] = int(after_name[1]), int(after_name[21])
    family = {root}
    while grown := {child for child, parent in parents.items() if parent in family} - family:
        family |= grown
    return {process: pages.get(process, 0) for process in family}


if __name__ == "__main__":
    app()
