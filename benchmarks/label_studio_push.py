"""python -m benchmarks.label_studio_push [--drafts 2000] [--repeats 3]

Tasks per second of a push into our own Label Studio (SQLite, its development server): drafts of
the demo by the rehearsal teacher, each run into a server that has nothing yet. Pictures are linked
into the folder from which that server shows them; one more run uploads them, as to a server of a
team, and its pictures are counted apart. Seconds count from the first request to the last.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import httpx2
import typer

from annotation.desk import Desk
from annotation.push import push
from annotation.server import OWN, own_server, shelf_of
from annotation.studio import Studio
from benchmarks.main_job import DEPLOYMENT
from core.command_line import one_line_errors
from core.errors import ConfigError, PermanentError
from core.recipe import DEFAULT_RECIPE, load_recipe
from core.settings import load_settings
from core.sources import DEMO
from db.engine import open_database
from imaging.store import ImageStore

IMPORT, PICTURES, OTHER, OURS = "tasks made by the server", "pictures", "other requests", "our side"

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True, kw_only=True)
class Run:
    """One push of all drafts."""

    tasks: int
    seconds: float
    spent: Mapping[str, float]
    """seconds by what they were spent on"""

    @property
    def tasks_per_second(self) -> float:
        return self.tasks / self.seconds

    @property
    def without_pictures(self) -> float:
        """Tasks per second when the pictures were there already."""
        return self.tasks / (self.seconds - self.spent[PICTURES])


class TimedStudio(Studio):
    """A connection that knows how long it waited for the server, and for what."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        super().__init__(*args, **options)

    def _try(self, method: str, path: str, **request: Any) -> httpx2.Response:
        began = time.perf_counter()
        try:
            return super()._try(method, path, **request)
        finally:
            kind = OTHER
            if path.endswith("/import") or "file-uploads" in path:
                kind = IMPORT if request.get("json") else PICTURES
            self.spent[kind] += time.perf_counter() - began


@app.command()
@one_line_errors()
def main(
    drafts: Annotated[int, typer.Option(min=1, help="Drafts to push, of the demo.")] = 2000,
    repeats: Annotated[int, typer.Option(min=1, help="Pushes with linked pictures.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Draft the demo, then push it again and again."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "drafted"
        draft_demo(home)
        linked = [take_run(home, Path(folder) / str(number), drafts) for number in range(repeats)]
        uploaded = take_run(home, Path(folder) / "uploaded", drafts, uploads=True)
    figures = figures_of(linked, uploaded)
    print(json.dumps(figures) if as_json else "\n".join(lines_of(figures)))


def draft_demo(home: Path) -> None:
    """Take the demo in and let the rehearsal teacher draft it, as `make build-instruct` does."""
    environment = {name: value for name, value in os.environ.items() if name not in DEPLOYMENT}
    done = subprocess.run(
        [sys.executable, "-m", "main_job"],
        env=environment | {"FAKESCOPE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ConfigError(f"drafting the demo failed: {done.stderr.strip()[-300:]}")


def take_run(drafted: Path, home: Path, drafts: int, *, uploads: bool = False) -> Run:
    """Push from a copy of a home folder into a server of its own."""
    shutil.copytree(drafted, home, copy_function=os.link, ignore=_database)
    for path in drafted.glob("fakescope.db*"):
        shutil.copy2(path, home)
    with own_server(home) as access:
        settings = load_settings(fakescope_home=home, database_url=None)
        database = open_database(settings)
        with TimedStudio(access.url, access.api_key, server=OWN) as studio:
            desk = Desk(
                database=database,
                recipe=load_recipe(DEFAULT_RECIPE),
                store=ImageStore(settings.image_store),
                studio=studio,
                shelf=None if uploads else shelf_of(home),
            )
            run = _timed_push(desk, studio, drafts)
        database.dispose()
    if run.tasks != drafts:
        raise PermanentError(f"{run.tasks} of {drafts} drafts became tasks")
    return run


def _database(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("fakescope.db")]


def _timed_push(desk: Desk, studio: TimedStudio, drafts: int) -> Run:
    studio.spent.clear()
    began = time.perf_counter()
    summary = push(desk, source=DEMO, limit=drafts, report=lambda _done, _total: None)
    seconds = time.perf_counter() - began
    spent = {name: studio.spent[name] for name in (IMPORT, PICTURES, OTHER)}
    return Run(
        tasks=summary.made, seconds=seconds, spent={**spent, OURS: seconds - sum(spent.values())}
    )


def figures_of(linked: list[Run], uploaded: Run) -> dict[str, Any]:
    """Of the runs with linked pictures the median, and where its time went."""
    ordered = sorted(linked, key=lambda run: run.tasks_per_second)
    middle = ordered[len(ordered) // 2]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "tasks": middle.tasks,
        "tasks_per_second": [round(run.tasks_per_second, 1) for run in ordered],
        "median_tasks_per_second": round(statistics.median(r.tasks_per_second for r in linked), 1),
        "seconds_of_median_run": {name: round(s, 2) for name, s in middle.spent.items()},
        "uploading": {
            "tasks_per_second": round(uploaded.tasks_per_second, 1),
            "without_pictures": round(uploaded.without_pictures, 1),
            "seconds": {name: round(s, 2) for name, s in uploaded.spent.items()},
        },
    }


def lines_of(figures: Mapping[str, Any]) -> list[str]:
    """The figures as a person reads them."""
    uploading = figures["uploading"]
    return [
        f"{figures['tasks']:,} drafts, {figures['cores']} cores",
        f"pictures linked    {figures['median_tasks_per_second']:.0f} tasks/s, median of "
        f"{figures['tasks_per_second']}",
        f"  seconds          {_seconds(figures['seconds_of_median_run'])}",
        f"pictures uploaded  {uploading['tasks_per_second']:.0f} tasks/s, "
        f"{uploading['without_pictures']:.0f} tasks/s without the time of the uploads",
        f"  seconds          {_seconds(uploading['seconds'])}",
    ]


def _seconds(spent: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in spent.items())


if __name__ == "__main__":
    app()
