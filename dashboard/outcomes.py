"""What evaluations and predictions have left on the disk: folders, and files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from core.errors import ConfigError
from dashboard.json_lines import Columns, count_unreadable, query

EVALUATION, REPORT, PREDICTIONS = "evaluation.json", "report.json", "predictions.jsonl"
MOST_BYTES = 64 * 2**20
"""of a report that is read whole"""
MOST_FIRST_LINE = 2**20
SCORED: Columns = (
    ("name", "VARCHAR"),
    ("sha256", "VARCHAR"),
    ("label", "VARCHAR"),
    ("generator", "VARCHAR"),
    ("log_odds", "DOUBLE"),
)
ANSWERED: Columns = (
    ("name", "VARCHAR"),
    ("sha256", "VARCHAR"),
    ("verdict", "VARCHAR"),
    ("p_fake", "DOUBLE"),
    ("log_likelihood_ratio", "DOUBLE"),
    ("said", "JSON"),
    ("reason", "VARCHAR"),
)
WITH_OUTCOMES = """WITH answers AS (SELECT *, CASE WHEN reason IS NOT NULL THEN 'not read'
    WHEN verdict IN ('real', 'fake') THEN verdict ELSE 'no verdict' END AS outcome FROM lines
    WHERE name IS NOT NULL)"""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One folder of `training.evaluate`."""

    name: str
    folder: Path

    def report(self) -> dict[str, Any]:
        """`report.json`; empty while there is none. ConfigError when it cannot be read."""
        return read_object(self.folder / REPORT)

    def unreadable(self) -> int:
        """Lines of predictions that hold none; the last one may still be written."""
        return count_unreadable(self.folder / PREDICTIONS, SCORED)

    def errors(self, threshold: float, *, most: int) -> pd.DataFrame:
        """The images on the wrong side of a threshold on log-odds, the farthest first."""
        return query(
            self.folder / PREDICTIONS,
            SCORED,
            """SELECT * FROM lines WHERE (log_odds >= $1) != (label = 'fake')
            ORDER BY abs(log_odds - $1) DESC, name LIMIT $2""",
            threshold,
            most,
        )


@dataclass(frozen=True, slots=True)
class Predictions:
    """One file of `training.predict`."""

    name: str
    path: Path

    def outcomes(self) -> dict[str, int]:
        """Images by verdict; `no verdict` and `not read` among them."""
        found = self._ask("SELECT outcome, count(*) AS n FROM answers GROUP BY 1 ORDER BY 2 DESC")
        return dict(zip(*(found[name].tolist() for name in found), strict=True))

    def unreadable(self) -> int:
        """Lines that hold no prediction; the last one may still be written."""
        return count_unreadable(self.path, ANSWERED)

    def scores(self, *, bins: int = 20) -> pd.DataFrame:
        """Images by verdict and probability of fake."""
        return self._ask(
            """SELECT outcome, (least(floor(p_fake * $1), $1 - 1) + 0.5) / $1 AS p_fake,
            count(*) AS images FROM answers WHERE p_fake IS NOT NULL GROUP BY ALL ORDER BY ALL""",
            bins,
        )

    def page(self, outcome: str | None, *, limit: int, offset: int) -> pd.DataFrame:
        """Images of one outcome, or of all; the most probable fakes first."""
        return self._ask(
            """SELECT name, sha256, outcome, p_fake, log_likelihood_ratio, said, reason
            FROM answers WHERE $1 IS NULL OR outcome = $1
            ORDER BY p_fake DESC NULLS LAST, name LIMIT $2 OFFSET $3""",
            outcome,
            limit,
            offset,
        )

    def _ask(self, statement: str, *arguments: Any) -> pd.DataFrame:
        return query(self.path, ANSWERED, f"{WITH_OUTCOMES} {statement}", *arguments)


def evaluations(home: Path) -> dict[str, Evaluation]:
    """Those below `evaluations/` by name, the newest first."""
    found = [path for path in _inside(home / "evaluations") if (path / EVALUATION).is_file()]
    return {path.name: Evaluation(path.name, path) for path in _newest_first(found)}


def predictions(home: Path) -> dict[str, Predictions]:
    """The files of predictions in the home folder, or in `predictions/` there, the newest first."""
    files = [
        path
        for folder in (home, home / "predictions")
        for path in _inside(folder)
        if path.suffix == ".jsonl" and path.is_file() and _is_of_predictions(path)
    ]
    found = {path: str(path.relative_to(home)) for path in _newest_first(files)}
    return {name: Predictions(name, path) for path, name in found.items()}


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no such file. ConfigError for anything else."""
    if not path.is_file():
        return {}
    if path.stat().st_size > MOST_BYTES:
        raise ConfigError(f"{path} is larger than {MOST_BYTES >> 20} MiB: it is no report")
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except ValueError as error:
        raise ConfigError(f"{path} is no report: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} is no report: it holds no object")
    return found


def _inside(folder: Path) -> Iterator[Path]:
    yield from folder.iterdir() if folder.is_dir() else ()


def _newest_first(paths: list[Path]) -> list[Path]:
    return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)


def _is_of_predictions(path: Path) -> bool:
    with path.open("rb") as file:
        line = file.readline(MOST_FIRST_LINE)
    try:
        found = json.loads(line)
    except ValueError:
        return False
    return isinstance(found, dict) and (
        found.keys() >= {"name", "verdict", "p_fake"} or found.keys() == {"name", "reason"}
    )
