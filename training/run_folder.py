"""The folder of one run: what it was made from first, `report.json` last."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from core.errors import ConfigError
from instruct_builder.shards import MANIFEST
from training.report import REPORT_JSON, write_atomically
from training.test_split import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG, ENVIRONMENT = "config.yaml", "environment.txt"
METRICS, PREDICTIONS = "metrics.jsonl", "predictions.jsonl"
CHECKPOINTS, STATES = "checkpoints", "resume"

Progress = Literal["new", "begun", "finished"]


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def states(self) -> Path:
        """What an interrupted run goes on from; gone when it is finished."""
        return self.path / STATES

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.checkpoints / f"step-{step:06d}"

    def progress(self, config: str, manifest: bytes) -> Progress:
        """How far this very run is; a ConfigError when the folder holds another.

        `config` is the resolved configuration, `manifest` the bytes of the shard set's manifest.
        """
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return "new"
        if not (self.path / CONFIG).is_file():
            raise ConfigError(f"{self.path} exists and is no run folder; name another with --out")
        if self._read(CONFIG) != config.encode() or self._read(MANIFEST) != manifest:
            raise ConfigError(
                f"{self.path} holds a run with other settings or shards; name another folder"
            )
        return "finished" if (self.path / REPORT_JSON).is_file() else "begun"

    def start(self, config: str, manifest: bytes) -> None:
        """Create the folder with what the run is made from."""
        with self._writing():
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            (self.path / MANIFEST).write_bytes(manifest)
            (self.path / ENVIRONMENT).write_text(describe_environment(), encoding="utf-8")
            (self.path / CONFIG).write_text(config, encoding="utf-8")

    def cut_metrics(self, *, after: int) -> list[dict[str, Any]]:
        """Take the lines of later steps, and torn ones, out of `metrics.jsonl`; the others."""
        kept = [record for record in self._metrics() if record["step"] <= after]
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in kept)
        write_atomically(self.path / METRICS, "".join(lines))
        return kept

    def _metrics(self) -> Iterator[dict[str, Any]]:
        for line in self._read(METRICS).splitlines():
            try:
                yield json.loads(line)
            except ValueError:
                return  # torn by a crash, and the last

    def drop_states(self) -> None:
        """A finished run has nothing to go on with."""
        shutil.rmtree(self.states, ignore_errors=True)

    def read_report(self) -> dict[str, Any]:
        """`report.json` of a finished run."""
        return dict(json.loads(self._read(REPORT_JSON)))

    def write_predictions(self, predictions: Iterable[Prediction]) -> None:
        """`predictions.jsonl`: one image per line."""
        lines = (json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in predictions)
        write_atomically(self.path / PREDICTIONS, "".join(lines))

    @contextmanager
    def logging(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Yield a function that appends one record to `metrics.jsonl`."""
        with self._writing(), (self.path / METRICS).open("a", encoding="utf-8") as file:

            def log(record: dict[str, Any]) -> None:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                file.flush()

            yield log

    def _read(self, name: str) -> bytes:
        path = self.path / name
        return path.read_bytes() if path.is_file() else b""

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"{self.path}: cannot be written: {reason}; free some space or name another folder"
            ) from None


def describe_environment() -> str:
    """Machine and installed packages, one per line."""
    packages: Sequence[str] = sorted(
        {f"{found.name}=={found.version}" for found in distributions()}, key=str.lower
    )
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors"
    return "\n".join([f"Python {platform.python_version()}", machine, *packages]) + "\n"
