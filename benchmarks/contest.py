"""Contenders side by side: each in an environment of its own, their runs interleaved."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from benchmarks.main_job import DEPLOYMENT, SAMPLE_SECONDS, resident_bytes

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "benchmarks" / "contenders"
CACHE = Path("data/benchmarks")
"""default folder of the environments"""
LONGEST_INSTALL_S = 900.0
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

Run = TypeVar("Run")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to do the work, and what it needs."""

    name: str
    script: str
    packages: tuple[str, ...] = ()
    """pinned; none: the environment of the project itself"""


@dataclass
class Standing(Generic[Run]):
    """The runs of a contender in one setting, or why there are none."""

    contender: Contender
    python: Path | None = None
    """its interpreter; None once it has failed"""
    runs: list[Run] = field(default_factory=list)
    failure: str | None = None


def chosen(contenders: Sequence[Contender], only: Sequence[str] | None) -> list[Contender]:
    """The contenders of these names, or all."""
    return [contender for contender in contenders if only is None or contender.name in only]


def make_ready(contender: Contender, cache: Path) -> Standing[Any]:
    """Make the contender's environment where it is missing; what fails is its standing."""
    if not contender.packages:
        return Standing(contender, python=Path(sys.executable))
    folder = cache.resolve() / contender.script.removesuffix(".py")
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


def interleaved(standings: Sequence[Standing[Run]], repeats: int) -> Iterator[Standing[Run]]:
    """Whose run is next: every round begins with another contender."""
    for repeat in range(repeats):
        for place in range(len(standings)):
            yield standings[(place + repeat) % len(standings)]


def compete(
    standing: Standing[Any], argument: Path, environ: Mapping[str, str], *, longest_s: float
) -> dict[str, Any]:
    """One run of the contender's script: what it says, and `peak_bytes`; empty once it failed."""
    if standing.python is None:
        return {}
    command = [str(standing.python), str(SCRIPTS / standing.contender.script), str(argument)]
    said, peak = watch(command, environ, longest_s=longest_s)
    try:
        return {**json.loads(said), "peak_bytes": peak}
    except (ValueError, TypeError):
        standing.python, standing.failure = None, f"did not run: {said}"
        return {}


def environment(home: Path) -> dict[str, str]:
    """Ours without settings and secrets of this machine, telemetry off."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in DEPLOYMENT and not name.endswith(SECRETS)
    }
    return {**kept, **OFFLINE, "FAKESCOPE_HOME": str(home), "HOME": str(home)}


def watch(command: list[str], environ: Mapping[str, str], *, longest_s: float) -> tuple[str, int]:
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
        peak, deadline = 0, time.monotonic() + longest_s
        while running.poll() is None and time.monotonic() < deadline:
            peak = max(peak, resident_bytes(running.pid))
            time.sleep(SAMPLE_SECONDS)
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
            running.wait()
            return f"no end within {longest_s:g} s", peak
        told = complaints if running.returncode else out
        told.seek(0)
        return last_line(told.read()), peak


def last_line(text: str) -> str:
    """What a command said last."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no word"


def ratio(these: Sequence[float], those: Sequence[float]) -> str:
    """The median of the ratios round by round."""
    pairs = list(zip(these, those, strict=False))
    return f"{statistics.median(a / b for a, b in pairs):.2f}" if pairs else "-"
