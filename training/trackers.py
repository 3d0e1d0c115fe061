"""Experiment trackers that a run reports to when asked: TensorBoard, Weights & Biases, trackio.

`metrics.jsonl` is complete without them. A tracker that fails is left out for the rest of the run.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from core.errors import ConfigError

PROJECT = "fakescope"
"""unless WANDB_PROJECT or TRACKIO_PROJECT names another"""
IDENTITY = "tracked.txt"
"""in a run folder: the name under which Weights & Biases knows the run"""

Write = Callable[[int, Mapping[str, float]], None]
"""takes a step and its figures"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracked:
    """What a tracker is told of a run at its start."""

    folder: Path
    done: int
    """steps; figures of later ones that a tracker holds already are of a run that was cut short"""
    settings: Mapping[str, Any]


@contextmanager
def open_tensorboard(run: Tracked) -> Iterator[Write]:
    """Event files in `tensorboard/` of the run folder."""
    from torch.utils.tensorboard import SummaryWriter

    folder = str(run.folder / "tensorboard")
    with SummaryWriter(folder, purge_step=run.done + 1) as writer:

        def write(step: int, figures: Mapping[str, float]) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, step)

        yield write


@contextmanager
def open_wandb(run: Tracked) -> Iterator[Write]:
    """A run of Weights & Biases; its files in `wandb/` of the run folder."""
    import wandb

    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=run.folder,
        id=identify(run.folder),
        name=run.folder.name,
        config=dict(run.settings),
        resume="allow",
        settings=wandb.Settings(console="off", silent=True),
    ) as tracked:

        def write(step: int, figures: Mapping[str, float]) -> None:
            tracked.log({"step": step, **figures}, step=step)

        yield write


@contextmanager
def open_trackio(run: Tracked) -> Iterator[Write]:
    """A run in trackio's own store on this machine."""
    import trackio

    tracked = trackio.init(
        project=os.environ.get("TRACKIO_PROJECT", PROJECT),
        name=run.folder.name,
        config=dict(run.settings),
        resume="allow",
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    try:
        yield lambda step, figures: tracked.log(dict(figures), step=step)
    finally:
        trackio.finish()


TRACKERS: Mapping[str, Callable[[Tracked], AbstractContextManager[Write]]] = {
    "tensorboard": open_tensorboard,
    "wandb": open_wandb,
    "trackio": open_trackio,
}
"""each named as its package"""


def check_trackers(names: Sequence[str]) -> None:
    """A ConfigError for a tracker that is not known or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"--track {name}: not known; there are {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise ConfigError(f"--track {name}: not installed; pip install {name}")


@contextmanager
def reporting(names: Sequence[str], run: Tracked) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yield a function that gives one record of `metrics.jsonl` to each of the named trackers.

    A ConfigError when one cannot be opened; one that fails later is left out, and said to be.
    """
    opened, writes = ExitStack(), {}
    for name in names:
        try:
            writes[name] = opened.enter_context(TRACKERS[name](run))
        except Exception as error:  # noqa: BLE001 - a library of others may raise anything
            opened.close()
            raise ConfigError(f"--track {name}: {describe(error)}") from None

    def report(record: dict[str, Any]) -> None:
        figures = flatten(record)
        for name, write in list(writes.items()):
            try:
                write(record["step"], figures)
            except Exception as error:  # noqa: BLE001 - no tracker may end a run
                del writes[name]
                sys.stderr.write(f"{name} is left out from here on: {describe(error)}\n")

    try:
        yield report
    finally:
        try:
            opened.close()
        except Exception as error:  # noqa: BLE001 - no tracker may end a run
            sys.stderr.write(f"a tracker did not close: {describe(error)}\n")


def flatten(record: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a record; those of a family, form or part as `losses/verdict`."""
    figures = {}
    for name, value in record.items():
        inner = value if isinstance(value, Mapping) else {None: value}
        for key, figure in inner.items():
            if isinstance(figure, int | float) and name != "step":
                figures[name if key is None else f"{name}/{key}"] = float(figure)
    return figures


def identify(folder: Path) -> str:
    """The name of a run that stays with it when it is gone on with."""
    path = folder / IDENTITY
    if not path.is_file():
        path.write_text(uuid.uuid4().hex, encoding="ascii")
    return path.read_text(encoding="ascii")


def describe(error: Exception) -> str:
    """The first line of what went wrong."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
