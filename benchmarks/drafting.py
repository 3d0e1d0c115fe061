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
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from PIL import Image

from benchmarks.local_teacher import MODEL, Asked, asked, local_teacher
from benchmarks.main_job import DEPLOYMENT, MIB, SAMPLE_SECONDS, resident_bytes
from core.command_line import one_line_errors
from core.recipe import DEFAULT_RECIPE, Recipe, load_recipe
from core.settings import load_settings
from db.engine import open_database
from db.images import labelled_images
from generation.prompt import render
from imaging.store import ImageStore

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path("data/benchmarks")
IN_FLIGHT = (32, 64)
VERDICT = "fake"
LONGEST_RUN_S = 600.0
OFFLINE = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TELEMETRY_ENABLED": "false",
    "CURATOR_VIEWER": "0",
    "CURATOR_DISABLE_CACHE": "1",
    "OPENAI_API_KEY": "none",
}
SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")
"""ends of names of variables that no contender gets"""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to draft, and what it needs."""

    name: str
    script: str
    packages: tuple[str, ...] = ()
    """pinned; none: the environment of the project itself"""


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


@dataclass
class Standing:
    """The runs of a contender in one setting, or why there are none."""

    contender: Contender
    python: Path | None = None
    """its interpreter; None once it has failed"""
    runs: list[Run] = field(default_factory=list)
    failure: str | None = None


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
    chosen = [c for c in CONTENDERS if only is None or c.name in only]
    with tempfile.TemporaryDirectory() as folder:
        track = lay_track(Path(folder), images)
        print(
            f"simulated teacher, {latency:g} s latency; {images} drawn JPEG files; medians of "
            f"{repeats} interleaved runs; {len(os.sched_getaffinity(0))} cores"
        )
        for number in in_flight or IN_FLIGHT:
            standings = [make_ready(contender, cache.resolve()) for contender in chosen]
            for repeat in range(repeats):
                for place in range(len(standings)):
                    run(standings[(place + repeat) % len(standings)], track, number, latency)
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
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *contender.packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if installed.returncode:
        return Standing(contender, failure=f"not installed: {last_line(installed.stderr)}")
    stamp.write_text(wanted)
    return Standing(contender, python=python)


def run(standing: Standing, track: Track, in_flight: int, latency_s: float) -> None:
    """One more run of a contender, in a fresh copy of the home folder, with a fresh teacher."""
    if standing.python is None:
        return
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
        script = ROOT / "benchmarks" / "contenders" / standing.contender.script
        said, peak = watch([str(standing.python), str(script), str(folder / "job.json")], environ)
        sent = asked(base_url)
    try:
        standing.runs.append(Run(**json.loads(said), peak_bytes=peak, asked=sent))
    except (ValueError, TypeError):
        standing.python, standing.failure = None, f"did not run: {said}"


def recipe_with(in_flight: int, folder: Path) -> Path:
    """The default recipe with so many calls in flight."""
    recipe = shutil.copytree(DEFAULT_RECIPE, folder / "recipe")
    path = recipe / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["drafting"]["calls_in_flight"] = in_flight
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return recipe


def environment(home: Path) -> dict[str, str]:
    """Ours without settings and secrets of this machine, telemetry off."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in DEPLOYMENT and not name.endswith(SECRETS)
    }
    return {**kept, **OFFLINE, "FAKESCOPE_HOME": str(home), "HOME": str(home)}


def watch(command: list[str], environ: Mapping[str, str]) -> tuple[str, int]:
    """What a command printed last, or else its last complaint; and its peak memory in bytes."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as complaints:
        running = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=complaints,
            start_new_session=True,
        )
        peak, deadline = 0, time.monotonic() + LONGEST_RUN_S
        while running.poll() is None and time.monotonic() < deadline:
            peak = max(peak, resident_bytes(running.pid))
            time.sleep(SAMPLE_SECONDS)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            return f"no end within {LONGEST_RUN_S:g} s", peak
        told = complaints if running.returncode else out
        told.seek(0)
        return last_line(told.read()), peak


def last_line(text: str) -> str:
    """What a command said last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no word"


def table(standings: Sequence[Standing], in_flight: int, latency_s: float) -> Iterator[str]:
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


def ratio(these: Sequence[float], those: Sequence[float]) -> str:
    """The median of the ratios round by round."""
    pairs = list(zip(these, those, strict=False))
    return f"{statistics.median(a / b for a, b in pairs):.2f}" if pairs else "-"


if __name__ == "__main__":
    app()
