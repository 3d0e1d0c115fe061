"""Whatever gives images a score: a checkpoint, or the scores that another detector has written."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from core.errors import ConfigError
from core.ids import sha256_bytes
from core.records import Authenticity
from training.benchmarks import Benchmark, Examined, Refused
from training.progress import counting

if TYPE_CHECKING:
    from training.calibrate import Calibration
    from training.checkpoint import Checkpointed
    from training.shared_prefill import Place


class Scorer(Protocol):
    """Whatever gives an image a score."""

    name: str
    digest: str
    prompt: str | None
    reduce: str | None
    calibration: Calibration | None
    simulated_generators: tuple[str, ...]
    """programs whose images it is known to have learnt as fakes"""

    def score(self, images: Sequence[Examined]) -> list[Score]:
        """One for each image."""


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer says of one image."""

    log_odds: float | None
    """of fake; None: it has no score"""
    read_at: Place | None = None
    """where in an answer of the model it was read; None: it comes from elsewhere"""


class CheckpointScorer:
    """The token soft score of a checkpoint, after the answer prefix that its run has forced."""

    def __init__(self, folder: Path, opened: Checkpointed) -> None:
        self.name, self.digest = str(folder), opened.digest
        self.prompt: str | None = opened.verdict.text
        self.reduce: str | None = opened.verdict.reduce
        self.calibration = opened.calibration
        self.simulated_generators = opened.simulated_generators
        self._opened = opened

    def score(self, images: Sequence[Examined]) -> list[Score]:
        """All images in one batch."""
        from training.score import score_images

        pictures = [picture for _, picture in images]
        scores = score_images(pictures, self._opened.verdict, self._opened.assembly)
        return [Score(log_odds, "prefix") for log_odds in scores]


class ReplyScorer(CheckpointScorer):
    """The same where a free reply first says a verdict; no run has calibrated such a score."""

    def __init__(self, folder: Path, opened: Checkpointed) -> None:
        from training.shared_prefill import question_text

        super().__init__(folder, opened)
        self.prompt = question_text(opened.verdict.text, opened.assembly)
        self.reduce = f"{opened.verdict.reduce}, where a reply first says a verdict"
        self.calibration = None

    def score(self, images: Sequence[Examined]) -> list[Score]:
        """One image at a time, as each reply is another."""
        from training.shared_prefill import score_reply

        verdict, assembly = self._opened.verdict, self._opened.assembly
        return [Score(*score_reply(verdict, picture, assembly)) for _, picture in images]

    def calibrate(self, validation: Benchmark) -> None:
        """Fit a calibration of its own; none without images of both classes."""
        import numpy as np

        from training.calibrate import calibrate

        labels, log_odds = [], []
        with counting("calibrating", sum(1 for _ in validation.files())) as advance:
            for examined in validation.read():
                advance(1, "")
                if isinstance(examined, Refused) or examined[0].label is None:
                    continue
                (score,) = self.score([examined])
                labels.append(examined[0].label is Authenticity.FAKE)
                log_odds.append(score.log_odds)
        if len(set(labels)) > 1:
            self.calibration = calibrate(np.array(labels), np.array(log_odds, dtype=float))


class FileScorer:
    """Scores that another detector has written, by file name."""

    prompt: str | None = None
    reduce: str | None = None
    calibration: Calibration | None = None
    simulated_generators: tuple[str, ...] = ()

    def __init__(self, path: Path, log_odds: dict[str, float], digest: str) -> None:
        self.name, self.digest = str(path), digest
        self._log_odds = log_odds

    def score(self, images: Sequence[Examined]) -> list[Score]:
        """Without log-odds for images that the file does not name."""
        return [Score(self._log_odds.get(facts.name)) for facts, _ in images]


def read_scores(path: Path) -> FileScorer:
    """Read a CSV of scores; ConfigError with the line that cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    rows = csv.DictReader(data.decode("utf-8-sig", errors="replace").splitlines())
    fields = set(rows.fieldnames or ())
    if "name" not in fields or not fields & {"p_fake", "log_odds"}:
        raise ConfigError(f"{path}: needs the columns name and p_fake, or name and log_odds")
    log_odds = {row["name"]: _log_odds(row, f"{path}, line {rows.line_num}") for row in rows}
    return FileScorer(path, log_odds, sha256_bytes(data))


def _log_odds(row: dict[str, str], where: str) -> float:
    from training.score import log_odds_of

    try:
        if row.get("log_odds"):
            value = float(row["log_odds"])
        else:
            p_fake = float(row["p_fake"])
            if not 0 <= p_fake <= 1:
                raise ValueError
            value = log_odds_of(p_fake)
        if not math.isfinite(value):
            raise ValueError
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{where}: not a probability between 0 and 1, nor log-odds") from None
    return value
