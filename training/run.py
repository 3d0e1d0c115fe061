"""python -m training.run CONFIG --shards DIR --images DIR --out DIR [key=value ...]

Trains a model on a FakeInstruct shard set, scores it on the test split and writes a run folder.
With --plan it says what that would take, and stops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.command_line import one_line_errors
from core.errors import ConfigError
from core.records import Split
from instruct_builder.shards import MANIFEST
from training.config import (
    TinyLlava,
    TrainingConfig,
    align_first,
    dump_config,
    go_on_from,
    load_config,
)
from training.inputs import Inputs, read_inputs, with_steps
from training.progress import counting

if TYPE_CHECKING:
    from training.calibrate import Calibration
    from training.loop import StepLog
    from training.metrics import Scores
    from training.model import Assembly
    from training.report import Report
    from training.run_folder import RunFolder
    from training.score import Verdict
    from training.test_split import Prediction, TestSet

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)

Log = Callable[[dict[str, Any]], None]


@app.command()
@one_line_errors()
def main(  # noqa: PLR0913, these are the options of the command
    config: Annotated[Path, typer.Argument(help="Training file, such as training/tiny.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")
    ] = None,
    *,
    shards: Annotated[
        Path | None, typer.Option(help="Folder of the FakeInstruct shards.", show_default=False)
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Image store that the shards point into.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of this run; must not exist yet.", show_default=False),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out where it was cut short.")
    ] = False,
    track: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TRACKER",
            help="Report to tensorboard, wandb or trackio as well; may be given more than once.",
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Say what the run would take, without weights, and stop."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The plan as JSON.")] = False,
) -> None:
    """Train on a shard set, score the test split, write a run folder with a report."""
    from training.report import render_text
    from training.run_folder import RunFolder
    from training.trackers import check_trackers

    settings, trackers = load_config(config, overrides or ()), track or ()
    check_trackers(trackers)
    if plan:
        typer.echo(describe_plan(settings, shards, as_json=as_json))
        return
    if as_json:
        raise ConfigError("--json goes with --plan; the figures of a run are in its report.json")
    if shards is None or images is None or out is None:
        raise ConfigError(
            "name the shards, their image store and a folder for the run with "
            "--shards, --images and --out"
        )
    report = run_stages(
        settings, shards=shards, images=images, out=out, resume=resume, trackers=trackers
    )
    if report is not None:
        typer.echo(render_text(report, RunFolder(out).path))


def describe_plan(config: TrainingConfig, shards: Path | None, *, as_json: bool) -> str:
    """What a run would take: parameters, memory, steps, tokens."""
    import transformers

    from training.plan import make_plan, to_json, to_text

    transformers.logging.set_verbosity_error()
    plan = make_plan(config, shards)
    return to_json(plan) if as_json else to_text(plan)


def run_stages(
    config: TrainingConfig,
    *,
    shards: Path,
    images: Path,
    out: Path,
    resume: bool = False,
    trackers: Sequence[str] = (),
) -> dict[str, Any] | None:
    """A run with the alignment before it, where the settings ask for one.

    The alignment is a run of its own in a folder beside `out`; each is gone on with by `resume`.
    """
    from training.report import REPORT_JSON
    from training.run_folder import RunFolder

    start = partial(run, shards=shards, images=images, resume=resume, trackers=trackers)
    if config.alignment is None:
        return start(config, out=out)
    first = RunFolder(out.with_name(f"{out.name}-alignment"))
    if "WORLD_SIZE" in os.environ and not (first.path / REPORT_JSON).is_file():
        raise ConfigError(
            "alignment: it takes one process; let it end there, and go on with several"
        )
    stage = align_first(config, config.alignment)
    start(stage, out=first.path)
    checkpoint = first.checkpoint(first.read_report()["training"]["scored_step"])
    stage = go_on_from(config, checkpoint)
    return start(stage, out=out)


def run(
    config: TrainingConfig,
    *,
    shards: Path,
    images: Path,
    out: Path,
    resume: bool = False,
    trackers: Sequence[str] = (),
) -> dict[str, Any] | None:
    """One whole run; returns `report.json`. A run that was finished before is not done again.

    `resume` goes on with a run that was cut short, and starts one that was not begun. Of several
    processes (`torchrun`) the first one alone writes, reports to trackers, and has a report to
    return.
    """
    from training.fit import train_model
    from training.loop import choose_device
    from training.processes import join_processes
    from training.run_folder import RunFolder
    from training.test_split import with_others

    inputs = read_inputs(config, shards, images)
    config = with_steps(config, inputs.rows)
    folder, resolved = RunFolder(out), dump_config(config)
    manifest = (shards / MANIFEST).read_bytes()
    processes = join_processes(choose_device(config))
    progress = processes.agree(folder.progress(resolved, manifest))
    if progress == "finished":
        typer.echo(f"{out} holds this very run; nothing to do", err=True)
        return folder.read_report()
    if progress == "begun" and not resume:
        raise ConfigError(
            f"{out} holds a run that was not finished; go on with --resume, or delete it"
        )
    prepare_torch(config)
    assembly, verdict = prepare_model(config, inputs)
    if processes.is_first:
        folder.start(resolved, manifest)
    is_begun = progress == "begun"
    fitted = train_model(
        config,
        inputs,
        assembly,
        verdict,
        folder,
        resume=is_begun,
        processes=processes,
        trackers=trackers,
    )
    if fitted is None:
        return None
    assembly = fitted.assembly
    calibration = calibrate_model(config, inputs, assembly, verdict, folder, step=fitted.step)
    predictions, scores = score_test(config, inputs, assembly, verdict)
    folder.write_predictions(with_others(predictions, scores, calibration))
    report = judge(config, inputs, assembly, verdict, scores, fitted.facts, calibration)
    publish(folder, report, inputs.test, scores, fitted.logs)
    folder.drop_states()
    return folder.read_report()


def prepare_torch(config: TrainingConfig) -> None:
    """Threads, seed, and on a CPU the same numbers each time; chattering libraries are silenced."""
    import torch
    import transformers

    from training.loop import choose_device

    torch.set_num_threads(config.threads or len(os.sched_getaffinity(0)))
    torch.manual_seed(config.seed)
    torch.use_deterministic_algorithms(choose_device(config).type == "cpu")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def prepare_model(config: TrainingConfig, inputs: Inputs) -> tuple[Assembly, Verdict]:
    """The model of the configuration, and the place where its verdict is read.

    ConfigError where it is to be compiled and cannot be.
    """
    from training.adapters import add_adapters
    from training.compiling import check_compiler
    from training.loop import choose_device
    from training.model import build_tiny, load_checkpoint
    from training.score import resolve_verdict

    device = choose_device(config)
    if config.compile:
        check_compiler(device)
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
        assembly = load_checkpoint(
            config.model, quantised=bool(config.lora and config.lora.quantised)
        )
        if config.lora is not None:
            assembly = add_adapters(assembly, config.lora, config.model)
    assembly.model.to(device).eval()
    return assembly, resolve_verdict(config.scoring, assembly)


def calibrate_model(
    config: TrainingConfig,
    inputs: Inputs,
    assembly: Assembly,
    verdict: Verdict,
    folder: RunFolder,
    *,
    step: int,
) -> Calibration | None:
    """Fit a calibration on the val split and store it with the checkpoint of a step.

    None when the split has not both classes.
    """
    import numpy as np

    from training.calibrate import calibrate
    from training.checkpoint import store_calibration
    from training.fit import predict_val

    images = inputs.of(Split.VAL)
    labels = np.array([image.is_fake for image in images], bool)
    if not labels.any() or labels.all():
        return None
    predictions = predict_val(config, inputs, assembly, verdict)
    calibration = calibrate(labels, np.array([each.log_odds for each in predictions]))
    if step > 0:
        store_calibration(folder.checkpoint(step), calibration)
    return calibration


def score_test(
    config: TrainingConfig, inputs: Inputs, assembly: Assembly, verdict: Verdict
) -> tuple[list[Prediction], dict[str, Scores]]:
    """Score the test split with the model, and with all that the model has to beat."""
    import numpy as np

    from training.test_split import BLANKED, MODEL, predict, score_baselines, score_blanks

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
    calibration: Calibration | None,
) -> Report:
    """All figures of a run."""
    from training.report import Report, find_caveats, find_simulations
    from training.score import scoring_facts
    from training.test_split import (
        MODEL,
        by_generator,
        compare,
        summarise_all,
        summarise_calibrated,
        tabulate,
    )

    test = inputs.test
    difference, sentence = compare(test, scores, config)
    photographs = len(set(test.groups))
    return Report(
        title=config.title,
        simulated=find_simulations(inputs.manifest),
        model=_model_facts(config, assembly),
        training=training,
        scoring=scoring_facts(config.scoring, verdict),
        images=len(test.images),
        photographs=photographs,
        table=tuple(tabulate(test, scores, config)),
        generators=tuple(by_generator(test, scores[MODEL], config)),
        figures=summarise_all(test, scores[MODEL], config),
        calibration=calibration,
        calibrated=summarise_calibrated(test, scores[MODEL], calibration),
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

    from training.figures import draw_histogram, draw_losses, draw_reliability, draw_roc
    from training.report import write_report
    from training.test_split import MODEL, to_probabilities

    labels = np.array(test.labels)
    seen = np.array(test.among(test.seen or test.held_out))
    probabilities = to_probabilities(scores[MODEL])
    figures = [
        draw_roc(
            labels[seen],
            {name: values[seen] for name, values in scores.items()},
            on="seen generators and unseen photographs",
        ),
        draw_reliability(labels, probabilities),
        draw_histogram(labels, probabilities),
    ]
    if logs:
        figures.append(draw_losses([log.step for log in logs], [log.losses for log in logs]))
    write_report(folder.path, report, figures)


if __name__ == "__main__":
    app()
