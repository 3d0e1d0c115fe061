"""Training as a run does it: logged, validated, saved, and gone on with where it was cut short."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from core.errors import ConfigError
from core.records import Split
from imaging.simulate import GENERATORS
from training.adapters import gather_saved
from training.checkpoint import drop_checkpoints, open_checkpoint, save_checkpoint
from training.compiling import describe_compilation
from training.config import Saving, TrainingConfig
from training.features import FeatureCache, forget
from training.inputs import Inputs
from training.loop import ALONE, StepLog, Training, choose_device
from training.model import Assembly
from training.processes import Processes, interleave
from training.progress import counting
from training.resume import Saved, load_state, save_state
from training.run_folder import RunFolder
from training.score import Verdict, scoring_facts
from training.test_split import Prediction, predict, val_auroc, val_nll
from training.trackers import Tracked, reporting
from training.tree import describe_layout

TERMINATED = 128 + signal.SIGTERM
"""exit code, as a shell reports it"""


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A trained model, and how it came about."""

    assembly: Assembly
    step: int
    """after which it is; not the last one when an earlier one validated better"""
    facts: dict[str, Any]
    logs: Sequence[StepLog]


@dataclass(slots=True)
class Best:
    """Which validation was the best so far."""

    step: int = 0
    figure: float | None = None
    since: int = 0
    """validations that were not better"""

    def see(self, step: int, figures: Mapping[str, Any], saving: Saving) -> bool:
        """Whether the figures of a validation are better than all before."""
        if saving.best_by is None:
            return False
        figure = figures[saving.best_by]
        is_better = self.figure is None or (
            figure > self.figure if saving.best_by == "val_auroc" else figure < self.figure
        )
        if is_better:
            self.step, self.figure, self.since = step, figure, 0
        else:
            self.since += 1
        return is_better

    def is_over(self, saving: Saving) -> bool:
        """Whether patience has run out."""
        return saving.patience is not None and self.since >= saving.patience


@dataclass(slots=True, eq=False)
class Fit:
    """The parts of a run that training needs, and how far it is."""

    config: TrainingConfig
    inputs: Inputs
    assembly: Assembly
    verdict: Verdict
    folder: RunFolder
    processes: Processes
    best: Best = field(default_factory=Best)
    logs: list[StepLog] = field(default_factory=list)
    saved_at: float = field(default_factory=time.monotonic)

    @contextmanager
    def logging(self, trackers: Sequence[str], done: int) -> Iterator[Callable[..., None]]:
        """Yield a function that writes one record to `metrics.jsonl`, and then to the trackers."""
        run = Tracked(
            folder=self.folder.path, done=done, settings=self.config.model_dump(mode="json")
        )
        with self.folder.logging() as write, reporting(trackers, run) as report:

            def log(record: dict[str, Any]) -> None:
                write(record)
                report(record)

            yield log

    def validate(self, step: int, log: Callable[[dict[str, Any]], None]) -> bool:
        """Score the val split when it is time; whether the model is better than ever before."""
        every, images = self.config.scoring.validate_every, self.inputs.of(Split.VAL)
        if every is None or step % every or not images:
            return False
        predictions = predict_val(
            self.config, self.inputs, self.assembly, self.verdict, self.processes
        )
        figures = {"val_auroc": val_auroc(predictions), "val_nll": val_nll(predictions)}
        log({"step": step, **figures, "val_images": len(images)})
        return self.best.see(step, figures, self.config.saving)

    def save_checkpoint(self, step: int) -> None:
        facts = {
            "title": self.config.title,
            "scoring": scoring_facts(self.config.scoring, self.verdict),
            "simulated_generators": sorted(
                set(GENERATORS) & {image.generator for image in self.inputs.of(Split.TRAIN)}
            ),
        }
        several = self.processes.count > 1
        weights = gather_saved(self.assembly) if several else None
        if self.processes.is_first:
            save_checkpoint(
                self.assembly, self.folder.checkpoints, step=step, facts=facts, weights=weights
            )

    def save_state(self, training: Training) -> None:
        """Write what `--resume` goes on from; then checkpoints may go that it does not need."""
        saved = training.save()
        self.saved_at = time.monotonic()
        if not self.processes.is_first:
            return
        state = {**saved.state, "best": asdict(self.best)}
        save_state(self.folder.states, Saved(saved.weights, state), step=training.done)
        if self.config.saving.keep_last is not None:
            drop_checkpoints(
                self.folder.checkpoints, keep=self.config.saving.keep_last, best=self.best.step
            )

    def is_state_due(self, step: int) -> bool:
        saving = self.config.saving
        if saving.state_steps is not None and step % saving.state_steps == 0:
            return True
        waited = time.monotonic() - self.saved_at
        return saving.state_seconds is not None and waited >= saving.state_seconds

    def resume(self, training: Training) -> None:
        """Go on from the newest state, or from the start; log lines of lost steps are taken out."""
        saved = load_state(self.folder.states)
        if saved is not None:
            training.restore(saved)
            self.best = Best(**saved.state["best"])
        if not self.processes.is_first:
            return
        records = self.folder.cut_metrics(after=training.done)
        self.logs += [StepLog(**record) for record in records if "loss" in record]
        typer.echo(f"going on after step {training.done}", err=True)


def train_model(  # noqa: PLR0913 - the parts of a run
    config: TrainingConfig,
    inputs: Inputs,
    assembly: Assembly,
    verdict: Verdict,
    folder: RunFolder,
    *,
    resume: bool,
    processes: Processes,
    trackers: Sequence[str] = (),
) -> Fitted | None:
    """Train, log every step, score the val split now and then, save checkpoints and states.

    SIGTERM and Ctrl-C let the step in hand come to its end and save a state: then SystemExit with
    code 143, or KeyboardInterrupt. Of several processes the first one alone writes, and gets a
    result: the model of a checkpoint.
    """
    check_validation(config, inputs)
    steps, is_first = config.optimiser.steps, processes.is_first
    if processes.count > 1 and steps == 0:
        raise ConfigError("optimiser.steps: 0, nothing to train; start one process")
    if is_first:
        typer.echo(describe_layout(assembly.model, config.data), err=True)
        if config.compile:
            typer.echo(describe_compilation(assembly.model), err=True)
    training = Training(assembly, inputs.rows, inputs.folder, config, processes)
    if training.features is not None:
        plan_features(training.features, inputs, config, processes)
    fit = Fit(config, inputs, assembly, verdict, folder, processes)
    if resume:
        fit.resume(training)
    with (
        stop_signals() as received,
        fit.logging(trackers, training.done) if is_first else nullcontext(_say_nothing) as log,
        counting("training", steps) if is_first else nullcontext(_say_nothing) as advance,
    ):
        advance(training.done, "")
        is_over = fit.best.is_over(config.saving)
        for step in training.steps() if not is_over else ():
            fit.logs.append(step)
            log(asdict(step))
            is_better = fit.validate(step.step, log)
            is_over = fit.best.is_over(config.saving) or step.step == steps
            every = config.optimiser.checkpoint_every
            ended_by = processes.agree(received[0] if received else None)
            state_is_due = processes.agree(fit.is_state_due(step.step))
            if is_over or is_better or (every is not None and step.step % every == 0):
                fit.save_checkpoint(step.step)
                fit.save_state(training)
            elif ended_by is not None or state_is_due:
                fit.save_state(training)
            advance(1, f"loss {step.loss:.3f}")
            if is_over:
                break
            if ended_by is not None:
                _end_by(ended_by, step.step, processes)
    assembly.model.eval()
    return _choose(fit, training) if is_first else None


def plan_features(
    features: FeatureCache, inputs: Inputs, config: TrainingConfig, processes: Processes = ALONE
) -> None:
    """Say what the features will weigh before any is kept; those of withdrawn images go."""
    if processes.is_first:
        _forget_withdrawn(config, inputs)
    plan = features.plan(inputs.rows.images())
    if processes.is_first:
        typer.echo(plan, err=True)


def _forget_withdrawn(config: TrainingConfig, inputs: Inputs) -> None:
    if config.features is not None and config.features.folder is not None:
        gone = forget(Path(config.features.folder), inputs.manifest.tombstones)
        if gone:
            typer.echo(f"features of withdrawn images: {gone} deleted", err=True)


def _say_nothing(*_: Any) -> None:
    """In the place of what the first process writes."""


def check_validation(config: TrainingConfig, inputs: Inputs) -> None:
    """A ConfigError when the best checkpoint cannot be told for want of images."""
    labels = {image.is_fake for image in inputs.of(Split.VAL)}
    if config.saving.best_by is not None and len(labels) < 2:
        raise ConfigError(
            "saving.best_by: the val split has not both photographs and fakes; write "
            "saving.best_by=null"
        )


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Yield a list that SIGTERM and Ctrl-C are put in; a second Ctrl-C ends at once."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if received and number == signal.SIGINT:
            raise KeyboardInterrupt
        received.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGINT)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_by(number: int, step: int, processes: Processes) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if processes.is_first:
        sys.stderr.write(f"ended by SIGTERM after step {step}; go on with --resume\n")
    raise SystemExit(TERMINATED)


def _choose(fit: Fit, training: Training) -> Fitted:
    """The model to calibrate and score: the best one where the settings say so, else the last."""
    step, assembly = training.done, fit.assembly
    if fit.best.step not in (0, step) or fit.processes.count > 1:
        step = fit.best.step or step
        assembly = open_checkpoint(fit.folder.checkpoint(step)).assembly
        assembly.model.to(choose_device(fit.config))
    return Fitted(assembly, step, _facts(fit, training, step), fit.logs)


def _facts(fit: Fit, training: Training, scored: int) -> dict[str, Any]:
    logs = fit.logs
    return {
        "steps": training.done,
        "scored_step": scored,
        "seconds": round(logs[-1].seconds, 1) if logs else 0.0,
        "visits": sum(step.images for step in logs),
        "rows": sum(step.rows for step in logs),
        "tokens": sum(step.tokens for step in logs),
        "plain_tokens": sum(step.plain_tokens for step in logs),
        "answer_tokens": sum(step.answer_tokens for step in logs),
        "rows_set_aside": training.set_aside.total(),
        "reasons": dict(training.set_aside.most_common(5)),
        "mix": fit.config.data.shares,
        "train_images": len(fit.inputs.rows.images()),
        "train_rows": len(fit.inputs.rows),
        "seed": fit.config.seed,
    }


def predict_val(
    config: TrainingConfig,
    inputs: Inputs,
    assembly: Assembly,
    verdict: Verdict,
    processes: Processes = ALONE,
) -> list[Prediction]:
    """The token soft score of each image of the val split; every process scores its share."""
    assembly.model.eval()
    images = inputs.of(Split.VAL)
    own = predict(
        processes.even_share(images),
        inputs.folder,
        verdict,
        assembly,
        batch_images=config.scoring.batch_images,
        advance=lambda _: None,
    )
    return interleave(processes.gather(own), len(images))
