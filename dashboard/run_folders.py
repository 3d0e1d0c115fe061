"""Run folders of training as they lie on disk, those of runs that still go on too."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import ConfigError
from dashboard.json_lines import Columns, count_unreadable, query
from dashboard.outcomes import MOST_BYTES, read_object

METRICS, REPORT, PREDICTIONS = "metrics.jsonl", "report.json", "predictions.jsonl"

COLUMNS: Columns = (
    ("image_id", "VARCHAR"),
    ("label", "VARCHAR"),
    ("generator", "VARCHAR"),
    ("p_fake", "DOUBLE"),
    ("log_likelihood_ratio", "DOUBLE"),
)
CALIBRATED = """WITH calibrated AS (SELECT image_id, label, generator,
    coalesce(1 / (1 + exp(-log_likelihood_ratio)), p_fake) AS p_fake FROM lines
    WHERE image_id IS NOT NULL)"""
"""the probability where fakes are as many as photographs; the raw one where none is calibrated"""


@dataclass(frozen=True, slots=True)
class Run:
    """One folder."""

    name: str
    folder: Path

    @property
    def is_finished(self) -> bool:
        return (self.folder / REPORT).is_file()

    def report(self) -> dict[str, Any]:
        """`report.json`; empty while there is none. ConfigError when it cannot be read."""
        return read_object(self.folder / REPORT)

    def metrics(self) -> list[dict[str, Any]]:
        """The lines of `metrics.jsonl`; one that is still being written is left out."""
        path = self.folder / METRICS
        lines = _whole(path).splitlines() if path.is_file() else []
        return [record for record in map(_record, lines) if record is not None]

    def errors(self, *, most: int) -> pd.DataFrame:
        """The images of the test split that the run is most surely wrong about, at even odds."""
        return self._predictions(
            """SELECT image_id, label, generator, p_fake FROM calibrated
            WHERE (p_fake >= 0.5) != (label = 'fake') ORDER BY abs(p_fake - 0.5) DESC LIMIT ?""",
            most,
        )

    def unreadable(self) -> int:
        """Lines of predictions that hold none; the last one may still be written."""
        return count_unreadable(self.folder / PREDICTIONS, COLUMNS)

    def reliability(self, *, bins: int = 10) -> pd.DataFrame:
        """Images by predicted probability: mean of it, share of fakes, number."""
        return self._predictions(
            """SELECT avg(p_fake) AS predicted, avg((label = 'fake')::int) AS fakes, count(*) AS n
            FROM calibrated GROUP BY least(floor(p_fake * $1), $1 - 1) ORDER BY 1""",
            bins,
        )

    def scores(self, *, bins: int = 20) -> pd.DataFrame:
        """Images by label and predicted probability."""
        return self._predictions(
            """SELECT label, (least(floor(p_fake * $1), $1 - 1) + 0.5) / $1 AS p_fake,
            count(*) AS images FROM calibrated GROUP BY ALL ORDER BY ALL""",
            bins,
        )

    def _predictions(self, statement: str, argument: int) -> pd.DataFrame:
        return query(self.folder / PREDICTIONS, COLUMNS, f"{CALIBRATED} {statement}", argument)


def runs(home: Path) -> dict[str, Run]:
    """The runs below `runs/` by name, the newest first."""
    folder = home / "runs"
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    known = [path for path in found if (path / METRICS).is_file() or (path / REPORT).is_file()]
    known.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.name: Run(path.name, path) for path in known}


def _whole(path: Path) -> str:
    if path.stat().st_size > MOST_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_BYTES >> 20} MiB: it is no file of a run")
    return path.read_text(encoding="utf-8", errors="replace")


def _record(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
