"""python -m training.run CONFIG --shards DIR --images DIR --out DIR [key=value ...]

Trains a model on a FakeInstruct shard set, scores it on the test split and writes a run folder.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.command_line import one_line_errors
from core.records import Split
from instruct_builder.shards import MANIFEST, Manifest
from training.config import TinyLlava, TrainingConfig, dump_config, load_config
from training.data import (
    ImageFolder,
    LabelledImage,
    Rows,
    check_mix,
    open_shards,
    read_images,
)
from training.progress import counting

if TYPE_CHECKING:
    from training.evaluate import Prediction, TestSet
    from training.loop import SetAside, StepLog
    from training.metrics import Scores
    from training.model import Assembly
    from training.report import Report
    from training.run_folder import RunFolder
    from training.score import Verdict

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)

Log = Callable[[dict[str, Any]], None]


@app.command()
@one_line_errors()
def main(
    config: Annotated[Path, typer.Argument(help="Training file, such as training/tiny.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")
    ] = None,
    *,
    shards: Annotated[Path, typer.Option(help="Folder of the FakeInstruct shards.")],
    images: Annotated[Path, typer.Option(help="Image store that the shards point into.")],
    out: Annotated[Path, typer.Option(help="Folder of this run; must not exist yet.")],
) -> None:
    """Train on a shard set, score the test split, write a run folder with a report."""
    from training.report import render_text
    from training.run_folder import RunFolder

    settings = load_config(config, overrides or ())
    report = run(settings, shards=shards, images=images, out=out)
    typer.echo(render_text(report, RunFolder(out).path))


def run(config: TrainingConfig, *, shards: Path, images: Path, out: Path) -> dict[str, Any]:
    """One whole run; returns `report.json`. A run that was finished before is not done again."""
    from training.evaluate import with_others
    from training.run_folder import RunFolder

    folder, resolved = RunFolder(out), dump_config(config)
    inputs = read_inputs(config, shards, images)
    manifest = (shards / MANIFEST).read_bytes()
    if folder.is_finished(resolved, manifest):
        typer.echo(f"{out} holds this very run; nothing to do", err=True)
        return folder.read_report()
    prepare_torch(config)
    assembly, verdict = prepare_model(config, inputs)
    folder.start(resolved, manifest)
    facts, losses = train_model(config, inputs, assembly, verdict, folder)
    predictions, scores = score_test(config, inputs, assembly, verdict)
    folder.write_predictions(with_others(predictions, scores))
    report = judge(config, inputs, assembly, verdict, scores, facts)
    publish(folder, report, inputs.test, scores, losses)
    return folder.read_report()


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a run reads, checked before anything is computed."""

    manifest: Manifest
    images: Sequence[LabelledImage]
    rows: Rows
    """of the train split"""
    test: TestSet
    folder: ImageFolder

    def of(self, split: Split) -> list[LabelledImage]:
        return [image for image in self.images if image.split is split]


def read_inputs(config: TrainingConfig, shards: Path, images: Path) -> Inputs:
    """Open shards and image folder; every problem that can be seen now is a ConfigError now."""
    from training.evaluate import TestSet

    opened = open_shards(shards)
    known = read_images(opened)
    rows = Rows.read(opened, Split.TRAIN)
    check_mix(rows, config.data.mix)
    folder = ImageFolder(images)
    folder.check_presence(list({*rows.images(), *(image.ref for image in known)}))
    return Inputs(opened.manifest, known, rows, TestSet.of(known), folder)


def prepare_torch(config: TrainingConfig) -> None:
    """Threads, seed, and on a CPU the same numbers each time; chattering libraries are silenced."""
    import torch
    import transformers

    from training.loop import choose_device

    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(choose_device(config).type == "cpu")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def prepare_model(config: TrainingConfig, inputs: Inputs) -> tuple[Assembly, Verdict]:
    """The model of the configuration, and the place where its verdict is read."""
    from training.loop import choose_device
    from training.model import build_tiny, load_checkpoint
    from training.score import resolve_verdict

    device = choose_device(config)
    if isinstance(config.model, TinyLlava):
        sample = inputs.rows.sample(config.model.language.tokenizer_rows, seed=config.seed)
        pictures = inputs.rows.sample_images(config.model.vision.whitening_images, seed=config.seed)
        assembly = build_tiny(
            config.model,
            conversations=[row.messages for row in sample],
            images=[inputs.folder.read(ref) for ref in pictures],
            seed=config.seed,
        )
    else:
        assembly = load_checkpoint(config.model)
    assembly.model.to(device).eval()
    return assembly, resolve_verdict(config.scoring, assembly)


def train_model(
    config: TrainingConfig,
    inputs: Inputs,
    assembly: Assembly,
    verdict: Verdict,
    folder: RunFolder,
) -> tuple[dict[str, Any], list[StepLog]]:
    """Train, log every step, score the val split now and then, save checkpoints."""
    from training.loop import train

    steps, started = config.optimiser.steps, time.perf_counter()
    logs: list[StepLog] = []
    with folder.logging() as log, counting("training", steps) as advance:

        def after_step(step: StepLog) -> None:
            logs.append(step)
            log(asdict(step))
            _validate(step.step, config, inputs, assembly, verdict, log)
            _save(step.step, config, assembly, verdict, folder)
            advance(1, f"{step.key} loss {step.loss:.3f}")

        set_aside = train(assembly, inputs.rows, inputs.folder, config, after_step=after_step)
    return _training_facts(config, logs, set_aside, time.perf_counter() - started), logs


def _validate(
    step: int,
    config: TrainingConfig,
    inputs: Inputs,
    assembly: Assembly,
    verdict: Verdict,
    log: Log,
) -> None:
    from training.evaluate import predict, val_auroc

    every, images = config.scoring.validate_every, inputs.of(Split.VAL)
    if every is None or step % every or not images:
        return
    assembly.model.eval()
    predictions = predict(
        images,
        inputs.folder,
        verdict,
        assembly,
        batch_images=config.scoring.batch_images,
        advance=lambda _: None,
    )
    assembly.model.train()
    log({"step": step, "val_auroc": val_auroc(predictions), "val_images": len(images)})


def _save(
    step: int, config: TrainingConfig, assembly: Assembly, verdict: Verdict, folder: RunFolder
) -> None:
    from training.checkpoint import save_checkpoint

    every = config.optimiser.checkpoint_every
    if step == config.optimiser.steps or (every is not None and step % every == 0):
        facts = {"title": config.title, "scoring": scoring_facts(config, verdict)}
        save_checkpoint(assembly, folder.checkpoints, step=step, facts=facts)


def scoring_facts(config: TrainingConfig, verdict: Verdict) -> dict[str, Any]:
    """How the soft score is read, for checkpoint and report."""
    return {
        "prompt": verdict.text,
        "fake_words": list(config.scoring.fake_words),
        "real_words": list(config.scoring.real_words),
        "fake_tokens": list(verdict.fake_ids),
        "real_tokens": list(verdict.real_ids),
        "reduce": verdict.reduce,
        "threshold": config.scoring.threshold,
    }


def _training_facts(
    config: TrainingConfig, logs: Sequence[StepLog], set_aside: SetAside, seconds: float
) -> dict[str, Any]:
    return {
        "steps": config.optimiser.steps,
        "seconds": round(seconds, 1),
        "rows": sum(step.rows for step in logs),
        "answer_tokens": sum(step.answer_tokens for step in logs),
        "rows_set_aside": set_aside.total,
        "reasons": dict(set_aside.reasons.most_common(5)),
        "mix": config.data.mix,
        "seed": config.seed,
    }


def score_test(
    config: TrainingConfig, inputs: Inputs, assembly: Assembly, verdict: Verdict
) -> tuple[list[Prediction], dict[str, Scores]]:
    """Score the test split with the model, and with all that the model has to beat."""
    import numpy as np

    from training.evaluate import BLANKED, MODEL, predict, score_baselines, score_blanks

    train, test = inputs.of(Split.TRAIN), inputs.test.images
    with counting("scoring", len(test)) as advance:
        predictions = predict(
            test,
            inputs.folder,
            verdict,
            assembly,
            batch_images=config.scoring.batch_images,
            advance=lambda done: advance(done, ""),
        )
    with counting("measuring", len(train) + len(test)) as advance:
        baselines = score_baselines(
            train, test, inputs.folder, advance=lambda done: advance(done, "")
        )
    scores = {
        MODEL: np.array([prediction.log_odds for prediction in predictions]),
        BLANKED: score_blanks(test, verdict, assembly),
    }
    return predictions, scores | baselines


def judge(
    config: TrainingConfig,
    inputs: Inputs,
    assembly: Assembly,
    verdict: Verdict,
    scores: dict[str, Scores],
    training: dict[str, Any],
) -> Report:
    """All figures of a run."""
    from training.evaluate import MODEL, by_generator, compare, summarise_all, tabulate
    from training.report import Report, find_caveats, find_simulations

    test = inputs.test
    difference, sentence = compare(test, scores, config)
    photographs = len(set(test.groups))
    return Report(
        title=config.title,
        simulated=find_simulations(inputs.manifest),
        model=_model_facts(config, assembly),
        training=training,
        scoring=scoring_facts(config, verdict),
        images=len(test.images),
        photographs=photographs,
        table=tuple(tabulate(test, scores, config)),
        generators=tuple(by_generator(test, scores[MODEL], config)),
        figures=summarise_all(test, scores[MODEL], config),
        difference=difference,
        comparison=sentence,
        caveats=find_caveats(inputs.manifest, photographs),
    )


def _model_facts(config: TrainingConfig, assembly: Assembly) -> dict[str, Any]:
    parameters = list(assembly.model.parameters())
    return {
        "kind": config.model.kind,
        "architecture": assembly.model.config.model_type,
        "parameters": sum(p.numel() for p in parameters),
        "trained_parameters": sum(p.numel() for p in parameters if p.requires_grad),
        "vocabulary": len(assembly.tokenizer),
        "image_processor": type(assembly.image_processor).__name__,
    }


def publish(
    folder: RunFolder,
    report: Report,
    test: TestSet,
    scores: dict[str, Scores],
    logs: Sequence[StepLog],
) -> None:
    """Draw the figures and write the report, which completes the run."""
    import numpy as np

    from training.evaluate import MODEL, to_probabilities
    from training.figures import draw_histogram, draw_losses, draw_reliability, draw_roc
    from training.report import write_report

    labels = np.array(test.labels)
    seen = np.array(test.among(test.seen or test.held_out))
    probabilities = to_probabilities(scores[MODEL])
    figures = [
        draw_roc(labels[seen], {name: values[seen] for name, values in scores.items()}),
        draw_reliability(labels, probabilities),
        draw_histogram(labels, probabilities),
    ]
    if logs:
        figures.append(
            draw_losses(
                [log.step for log in logs], [log.loss for log in logs], [log.key for log in logs]
            )
        )
    write_report(folder.path, report, figures)


if __name__ == "__main__":
    app()
