"""python -m benchmarks.drafting [--images 500] [--latency 0.2] [--in-flight 32 --in-flight 64]

Drafts per second of one process beside a bare asyncio loop of the openai client, Bespoke Curator
and distilabel: the same images, the same request, the same simulated teacher with a fixed latency,
so many requests in flight at once. Ours stores every attempt, reply and draft in SQLite meanwhile.

Each contender runs in an environment of its own below `--cache`, made on the first call with the
pinned versions below; what cannot be installed or does not start is listed with the reason. The
repeats are interleaved. Seconds count from the first request that is prepared to the last draft,
without imports; the teacher is a process of its own, and counts what it was sent.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from PIL import Image

from benchmarks.contest import (
    CACHE,
    ROOT,
    Contender,
    Standing,
    chosen,
    compete,
    environment,
    interleaved,
    make_ready,
    ratio,
)
from benchmarks.local_teacher import MODEL, Asked, asked, local_teacher
from benchmarks.main_job import MIB
from core.command_line import one_line_errors
from core.recipe import DEFAULT_RECIPE, Recipe, load_recipe
from core.settings import load_settings
from db.engine import open_database
from db.images import labelled_images
from generation.prompt import render
from imaging.store import ImageStore

IN_FLIGHT = (32, 64)
VERDICT = "fake"
LONGEST_RUN_S = 600.0
app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


OURS = Contender(name="FakeScope, all stored", script="with_fakescope.py")
BARE = Contender(name="bare loop of openai", script="with_openai.py", packages=("openai==3.52.0",))
CONTENDERS = (
    OURS,
    BARE,
    Contender(
        name="Bespoke Curator",
        script="with_curator.py",
        packages=("bespokelabs-curator==0.1.31",),
    ),
    Contender(
        name="distilabel",
        script="with_distilabel.py",
        packages=("distilabel[openai]==1.5.3", "requests"),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Track:
    """What all contenders start from."""

    folder: Path
    home: Path
    """a home folder of ours with the images taken in and nothing drafted"""
    request: Mapping[str, Any]
    """`images` (paths of JPEG files) and the parts of the request that is sent for each"""
    reply: str
    """what the teacher answers"""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of one contender."""

    seconds: float
    cpu_seconds: float
    """of the contender's processes, the teacher's not among them"""
    drafts: int
    peak_bytes: int
    asked: Asked

    @property
    def drafts_per_second(self) -> float:
        return self.drafts / self.seconds

    @property
    def cpu_ms(self) -> float:
        """Per draft."""
        return 1000 * self.cpu_seconds / self.drafts


@app.command()
@one_line_errors()
def main(
    images: Annotated[int, typer.Option(min=1, help="Images to draft, 256 to 512 pixels.")] = 500,
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each reply.")] = 0.2,
    in_flight: Annotated[
        list[int] | None, typer.Option(min=1, help="Requests at once; repeatable: 32 and 64.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs of each, interleaved.")] = 3,
    only: Annotated[
        list[str] | None, typer.Option(help=f"Of {', '.join(c.name for c in CONTENDERS)}.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder of the environments.")] = CACHE,
) -> None:
    """Run all contenders and print medians."""
    with tempfile.TemporaryDirectory() as folder:
        track = lay_track(Path(folder), images)
        print(
            f"simulated teacher, {latency:g} s latency; {images} drawn JPEG files; medians of "
            f"{repeats} interleaved runs; {len(os.sched_getaffinity(0))} cores"
        )
        for number in in_flight or IN_FLIGHT:
            standings = [make_ready(contender, cache) for contender in chosen(CONTENDERS, only)]
            for standing in interleaved(standings, repeats):
                run(standing, track, number, latency)
            print("\n".join(table(standings, number, latency)), flush=True)


def lay_track(folder: Path, images: int) -> Track:
    """Draw the images, take them in, and render the request that everybody sends."""
    drawn, home = folder / "drawn", folder / "home"
    drawn.mkdir()
    for number in range(images):
        (drawn / f"{number:05}.jpg").write_bytes(draw(number))
    ingest = [sys.executable, "-m", "generation", "ingest", str(drawn), "--source", "drawn"]
    subprocess.run(
        [*ingest, "--label", VERDICT],
        check=True,
        cwd=ROOT,
        env=environment(home),
        stdout=subprocess.DEVNULL,
    )
    settings = load_settings(fakescope_home=home, database_url=None)
    database, store = open_database(settings), ImageStore(settings.image_store)
    with database.read() as session:
        records = list(labelled_images(session))
    database.dispose()
    recipe = load_recipe()
    request = render(
        records[0], store.read(records[0].path), recipe=recipe, arm=recipe.arms[0]
    ).request
    return Track(
        folder=folder,
        home=home,
        request={
            "images": [str(settings.image_store / record.path) for record in records],
            "instructions": request.instructions,
            "question": request.question,
            "schema": json.loads(request.reply_schema),
            "max_output_tokens": request.max_output_tokens,
        },
        reply=draft_of(recipe),
    )


def draw(number: int) -> bytes:
    """A JPEG of 256 to 512 pixels a side: soft colours under grain, as large as a photograph's."""
    random = np.random.default_rng(number)
    width, height = (int(side) for side in random.integers(256, 513, 2))
    soft = Image.fromarray(random.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    grainy = pixels + random.normal(0, 8, pixels.shape)
    file = BytesIO()
    Image.fromarray(grainy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def draft_of(recipe: Recipe) -> str:
    """The content of a reply that is a valid draft, of a usual length."""
    evidence = "The finest texture repeats at every second pixel wherever the surface is smooth. "
    findings = [
        {"category": name, "evidence": 2 * evidence, "points_to": VERDICT, "region": None}
        for name in recipe.taxonomy.ids[:4]
    ]
    conclusion = "Taken together, the traces support that this image was generated."
    return json.dumps(
        {
            "findings": findings,
            "conclusion": conclusion,
            "verdict": VERDICT,
            "confidence": "high",
        }
    )


def run(standing: Standing[Run], track: Track, in_flight: int, latency_s: float) -> None:
    """One more run of a contender, in a fresh copy of the home folder, with a fresh teacher."""
    with (
        local_teacher(track.reply, latency_s=latency_s) as base_url,
        tempfile.TemporaryDirectory(dir=track.folder) as name,
    ):
        folder = Path(name)
        home = shutil.copytree(track.home, folder / "home")
        job = {
            **track.request,
            "base_url": base_url,
            "model": MODEL,
            "in_flight": in_flight,
            "recipe": str(recipe_with(in_flight, folder)),
        }
        (folder / "job.json").write_text(json.dumps(job))
        environ = {**environment(home), "OPENAI_BASE_URL": base_url, "OPENAI_MODEL": MODEL}
        figures = compete(standing, folder / "job.json", environ, longest_s=LONGEST_RUN_S)
        if figures:
            standing.runs.append(Run(**figures, asked=asked(base_url)))


def recipe_with(in_flight: int, folder: Path) -> Path:
    """The default recipe with so many calls in flight."""
    recipe = shutil.copytree(DEFAULT_RECIPE, folder / "recipe")
    path = recipe / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["drafting"]["calls_in_flight"] = in_flight
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return recipe


def table(standings: Sequence[Standing[Run]], in_flight: int, latency_s: float) -> Iterator[str]:
    """One line per contender; ratios are medians over the rounds."""
    bound = f"{in_flight / latency_s:.0f}" if latency_s else "no"
    yield f"\n{in_flight} in flight (the latency allows {bound} drafts/s)"
    yield (
        f"{'':22}{'drafts/s':>9}{'of bare':>8}{'ours is':>9}{'CPU ms':>8}{'MiB':>7}"
        f"{'drafts':>8}{'sent':>7}{'MB':>7}"
    )
    speeds = {s.contender.name: [run.drafts_per_second for run in s.runs] for s in standings}
    bare, ours = speeds.get(BARE.name, []), speeds.get(OURS.name, [])
    for standing in standings:
        name, own = standing.contender.name, speeds[standing.contender.name]
        if standing.failure:
            yield f"{name:22}{standing.failure}"
            continue
        last = standing.runs[-1]
        yield (
            f"{name:22}{statistics.median(own):9.1f}{ratio(own, bare):>8}{ratio(ours, own):>9}"
            f"{statistics.median(run.cpu_ms for run in standing.runs):8.1f}"
            f"{statistics.median(run.peak_bytes for run in standing.runs) / MIB:7.0f}"
            f"{last.drafts:8}{last.asked.requests:7}{last.asked.body_bytes / 1e6:7.1f}"
        )


if __name__ == "__main__":
    app()
