"""The folder of one evaluation: what was asked first, then predictions and answers as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import ConfigError
from core.records import Authenticity
from training.answers import ANSWERS
from training.benchmarks import ImageFacts, Refused
from training.calibrate import Calibration
from training.detection import ScoredImage
from training.report import write_atomically

if TYPE_CHECKING:
    from training.shared_prefill import Place

EVALUATION, PREDICTIONS = "evaluation.json", "predictions.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """All that decides the predictions of an evaluation."""

    benchmark: str
    """path of the collection"""
    layout: str
    because: str
    """why it is read so"""
    licence: str | None
    scorer: str
    """checkpoint folder, or files of scores or of answers"""
    digest: str
    """SHA-256 of the checkpoint's manifest, or of the file"""
    prompt: str | None
    reduce: str | None
    limit: int | None
    calibration: Calibration | None
    simulated_generators: tuple[str, ...] = ()
    """programs whose images the checkpoint learnt as fakes"""


@dataclass(frozen=True, slots=True)
class Predicted:
    """One image with its log-odds of fake; None: the file of scores has none for it."""

    facts: ImageFacts
    log_odds: float | None
    read_at: Place | None = None
    """where in an answer of the model; None: it comes from elsewhere"""

    def scored(self) -> ScoredImage | None:
        """For the figures; None without a label or without a score."""
        facts, label = self.facts, self.facts.label
        if label is None or self.log_odds is None:
            return None
        return ScoredImage(
            name=facts.name,
            label=Authenticity(label),
            generator=facts.generator,
            group=facts.group,
            log_odds=self.log_odds,
        )


@dataclass(frozen=True, slots=True)
class Done:
    """What the folder holds so far, in the order in which it was done."""

    predicted: tuple[Predicted, ...]
    refused: tuple[Refused, ...]

    @property
    def names(self) -> set[str]:
        return {each.facts.name for each in self.predicted} | {each.name for each in self.refused}


@dataclass(frozen=True, slots=True)
class EvaluationFolder:
    """The files of one evaluation."""

    path: Path

    def start(self, asked: Asked) -> None:
        """Create the folder, or go on in one of the same evaluation; ConfigError for another."""
        text = json.dumps(asdict(asked), indent=2, ensure_ascii=False) + "\n"
        stated = self.path / EVALUATION
        if stated.is_file():
            if stated.read_text(encoding="utf-8") != text:
                raise ConfigError(
                    f"{self.path} holds the evaluation of something else; name another folder"
                )
            for file in self.path.glob("*.jsonl"):
                self._drop_torn_line(file.name)
            return
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            raise ConfigError(f"{self.path} exists and is no evaluation; name another with --out")
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(stated, text)

    def asked(self) -> Asked:
        """What was asked; ConfigError when the folder holds no evaluation."""
        try:
            values = json.loads((self.path / EVALUATION).read_bytes())
        except (OSError, ValueError):
            raise ConfigError(f"{self.path} holds no evaluation: {EVALUATION} is missing") from None
        fitted = values.pop("calibration")
        simulated = tuple(values.pop("simulated_generators", ()))
        return Asked(
            **values,
            calibration=Calibration(**fitted) if fitted else None,
            simulated_generators=simulated,
        )

    def done(self) -> Done:
        """The predictions and refusals that are there."""
        predicted, refused = [], []
        for values in self.rows(PREDICTIONS):
            if "refused" in values:
                refused.append(Refused(values["name"], values["refused"]))
            else:
                log_odds, read_at = values.pop("log_odds"), values.pop("read_at", None)
                for name in ("log_likelihood_ratio", "p_fake"):
                    values.pop(name)
                predicted.append(Predicted(ImageFacts(**values), log_odds, read_at))
        return Done(tuple(predicted), tuple(refused))

    def append(self, lines: Sequence[Mapping[str, Any]], file: str = PREDICTIONS) -> None:
        """Add lines to one of the files; they are on the disk when this returns."""
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        with self._writing(), (self.path / file).open("a", encoding="utf-8") as opened:
            opened.write(text)

    def replies(self) -> dict[tuple[str, str], str]:
        """The answers that are there, by image and key of the question."""
        return {
            (row["image"], row["key"]): row[row["key"]]
            for row in self.rows(ANSWERS)
            if row[row["key"]] is not None
        }

    def rows(self, file: str) -> Iterator[dict[str, Any]]:
        """The lines of one of the files; none where it is not there."""
        path = self.path / file
        if path.is_file():
            with path.open(encoding="utf-8") as opened:
                yield from map(json.loads, opened)

    def _drop_torn_line(self, file: str) -> None:
        """A killed evaluation may have written half a line."""
        path = self.path / file
        if path.is_file() and not (data := path.read_bytes()).endswith(b"\n"):
            write_atomically(path, data[: data.rfind(b"\n") + 1].decode())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(
                f"{self.path}: cannot be written: {reason}; free some space or name another folder"
            ) from None


def line_of(predicted: Predicted, calibration: Calibration | None) -> dict[str, Any]:
    """A prediction as a line of `predictions.jsonl`; calibrated values where there is a fit."""
    ratio = probability = None
    if predicted.log_odds is not None and calibration is not None:
        ratio = calibration.ratio(predicted.log_odds)
        probability = calibration.probability(predicted.log_odds)
    return {
        **asdict(predicted.facts),
        "log_odds": predicted.log_odds,
        "log_likelihood_ratio": ratio,
        "p_fake": probability,
        "read_at": predicted.read_at,
    }
