"""python -m training.evaluate: a checkpoint, or what another model said, on a published benchmark.

Predictions are kept image by image as they are made, so an evaluation that was cut short goes on
where it was. `compare` sets two of them side by side.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from core.command_line import one_line_errors
from core.errors import ConfigError
from core.ids import sha256_bytes
from core.recipe import DEFAULT_RECIPE, REHEARSAL, find_recipe
from core.records import Split
from imaging.perturb import Perturbation, read_perturbation
from instruct_builder.shards import sha256_of
from training.answers import (
    ANSWERS,
    TAKES_RESULT_FILES,
    Replies,
    as_row,
    read_replies,
    write_result_files,
)
from training.batches import BATCH, in_batches
from training.benchmarks import Benchmark, Refused
from training.own_sets import open_own_set
from training.progress import counting
from training.robustness import read_grid, score_changed
from training.scorers import CheckpointScorer, ReplyScorer, Scorer, read_scores

if TYPE_CHECKING:
    from training.checkpoint import Checkpointed
    from training.endpoint import Endpoint
    from training.evaluation import EvaluationFolder

WORDS: Final = "Answers in words"
JUDGE: Final = "Judge"
CHANGES: Final = "Robustness"


class VerdictAt(StrEnum):
    """Where a checkpoint's score is read."""

    PREFIX = "prefix"
    REPLY = "reply"


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


CheckpointOption = Annotated[
    Path | None, typer.Option(help="Checkpoint of a run, such as RUN/checkpoints/step-000500.")
]
ScoresOption = Annotated[
    Path | None,
    typer.Option(help="CSV of another detector's scores: name,p_fake or name,log_odds."),
]
RepliesOption = Annotated[
    list[Path] | None,
    typer.Option(help="Another model's answers to the benchmark's questions, as JSON."),
]
EndpointOption = Annotated[
    str | None, typer.Option(help="OpenAI-compatible base URL, or rehearsal (simulated).")
]
ModelOption = Annotated[str | None, typer.Option(help="Model there.")]
DataOption = Annotated[
    Path | None, typer.Option(help="The benchmark: a folder, an archive, or a FakeInstruct set.")
]
BenchmarkOption = Annotated[
    str, typer.Option(help="How it lies on disk; auto says what it recognised.")
]
ShardsOption = Annotated[
    Path | None, typer.Option(help="Shards trained on: is any of the benchmark in them?")
]
VerdictAtOption = Annotated[
    VerdictAt,
    typer.Option(
        help="Where a checkpoint's score is read: after the answer prefix of its run, or where its "
        "own reply first says a verdict (calibrated with --shards and --images).",
    ),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many files.")]
OutOption = Annotated[Path | None, typer.Option(help="Folder of this evaluation.")]
AskOption = Annotated[
    bool, typer.Option("--ask", help="Put the benchmark's questions too.", rich_help_panel=WORDS)
]
MaxTokensOption = Annotated[
    int, typer.Option(min=1, help="At most so many an answer.", rich_help_panel=WORDS)
]
ReferencesOption = Annotated[
    list[Path] | None,
    typer.Option(help="Expected answers that the benchmark keeps back.", rich_help_panel=WORDS),
]
SimilarityOption = Annotated[
    str | None,
    typer.Option(help="Model of sentence-transformers, or its folder.", rich_help_panel=WORDS),
]
StemmingOption = Annotated[
    bool, typer.Option("--stemming", help="Compare stems of words.", rich_help_panel=WORDS)
]
DropVerdictOption = Annotated[
    bool,
    typer.Option(
        "--drop-verdict-sentence",
        help="Compare without a first sentence that states the verdict.",
        rich_help_panel=WORDS,
    ),
]
JudgeOption = Annotated[
    str | None,
    typer.Option(help="Model that marks the answers, at --judge-address.", rich_help_panel=JUDGE),
]
JudgeAddressOption = Annotated[
    str,
    typer.Option(help="OpenAI-compatible base URL; rehearsal: simulated.", rich_help_panel=JUDGE),
]
RoundsOption = Annotated[
    int, typer.Option(min=1, help="Marks of each answer.", rich_help_panel=JUDGE)
]
BudgetOption = Annotated[
    float | None,
    typer.Option(min=0, help="US dollars that an endpoint, or a judge, may cost at most."),
]
ImagesOption = Annotated[
    Path | None,
    typer.Option(help="Image store of --shards, to fit a probe; or of the set in --data."),
]
RobustnessOption = Annotated[
    bool,
    typer.Option("--robustness", help="Try the changes of the recipe.", rich_help_panel=CHANGES),
]
ChangeOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A change of all images, as `jpeg 70` or `resize 0.5 | jpeg 70`; repeatable.",
        rich_help_panel=CHANGES,
    ),
]
RecipeOption = Annotated[
    Path,
    typer.Option(callback=find_recipe, help="Recipe with the changes, the prompts and the prices."),
]
MasksOption = Annotated[
    Path | None,
    typer.Option(help="Folder of the model's masks: PNG, or JSON with COCO run lengths."),
]


@app.callback(invoke_without_command=True)
@one_line_errors()
def main(  # noqa: PLR0913 - the options of a command
    context: typer.Context,
    *,
    checkpoint: CheckpointOption = None,
    scores: ScoresOption = None,
    replies: RepliesOption = None,
    endpoint: EndpointOption = None,
    model: ModelOption = None,
    data: DataOption = None,
    benchmark: BenchmarkOption = "auto",
    shards: ShardsOption = None,
    verdict_at: VerdictAtOption = VerdictAt.PREFIX,
    limit: LimitOption = None,
    out: OutOption = None,
    ask: AskOption = False,
    max_tokens: MaxTokensOption = 256,
    references: ReferencesOption = None,
    similarity: SimilarityOption = None,
    stemming: StemmingOption = False,
    drop_verdict_sentence: DropVerdictOption = False,
    judge: JudgeOption = None,
    judge_address: JudgeAddressOption = REHEARSAL,
    rounds: RoundsOption = 5,
    budget: BudgetOption = None,
    images: ImagesOption = None,
    robustness: RobustnessOption = False,
    change: ChangeOption = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    masks: MasksOption = None,
) -> None:
    """Score every image of a benchmark, and write a report; run again, it goes on.

    What to evaluate: --checkpoint, --endpoint with --model, --scores or --replies; or nothing but
    --masks.
    """
    if context.invoked_subcommand is not None:
        return
    named = sum(map(bool, (checkpoint, scores, replies, endpoint)))
    if data is None or out is None or named > 1 or not (named or masks):
        raise ConfigError(
            "give --data, --out, and one of --checkpoint, --endpoint, --scores and --replies, "
            "or --masks alone"
        )
    if (endpoint is None) != (model is None):
        raise ConfigError("--endpoint and --model belong together")
    from training.endpoint import Endpoint
    from training.evaluation_report import Wanted, report_evaluation
    from training.judge import Judge
    from training.text_metrics import TextSettings

    there = partial(Endpoint, budget_usd=budget, recipe=recipe)
    subject = Subject(
        checkpoint=checkpoint,
        endpoint=there(address=endpoint, model=model) if endpoint and model else None,
        scores=scores,
        replies=tuple(replies or ()),
        masks=masks,
    )
    options = Options(
        out=out,
        limit=limit,
        verdict_at=verdict_at,
        ask=ask,
        max_tokens=max_tokens,
        changes=_read_changes(change or (), recipe if robustness else None),
        trained_on=(shards, images) if shards and images else None,
    )
    marking = there(address=judge_address, model=judge) if judge else None
    wanted = Wanted(
        shards=shards,
        texts=TextSettings(
            stemming=stemming, drop_verdict_sentence=drop_verdict_sentence, embedding=similarity
        ),
        references=tuple(references or ()),
        judge=Judge(endpoint=marking, rounds=rounds) if marking else None,
        masks=masks,
    )
    opened = _open(data, benchmark, images)
    folder = evaluate(subject, opened, options)
    _write_result_files(folder, opened, limit)
    typer.echo(report_evaluation(folder, opened, wanted))


@app.command()
@one_line_errors()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of an evaluation.")],
    second: Annotated[Path, typer.Argument(help="Another one, of the same benchmark.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Set two evaluations side by side: paired differences, and the images that changed."""
    from training.comparison import compare_evaluations, render_comparison

    found = compare_evaluations(first, second)
    typer.echo(json.dumps(asdict(found), indent=2) if as_json else render_comparison(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How far an evaluation goes, whatever is evaluated."""

    out: Path
    limit: int | None = None
    """at most so many files"""
    verdict_at: VerdictAt = VerdictAt.PREFIX
    ask: bool = False
    """put the benchmark's questions too"""
    max_tokens: int = 256
    changes: tuple[Perturbation, ...] = ()
    """after each of them all images are scored again"""
    trained_on: tuple[Path, Path] | None = None
    """shards and image store, to fit a probe on"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is evaluated: the first of these that is there."""

    checkpoint: Path | None = None
    endpoint: Endpoint | None = None
    scores: Path | None = None
    """written by another detector"""
    replies: tuple[Path, ...] = ()
    """written by another model"""
    masks: Path | None = None
    """a model's masks, which may also stand alone"""


def evaluate(subject: Subject, benchmark: Benchmark, options: Options) -> EvaluationFolder:
    """Predictions of whatever is evaluated, in its folder; what is there already is kept."""
    if subject.checkpoint:
        return evaluate_checkpoint(subject.checkpoint, benchmark, options)
    if subject.endpoint:
        return evaluate_endpoint(subject.endpoint, benchmark, options)
    if subject.scores:
        return evaluate_scores(subject.scores, benchmark, options)
    if subject.replies:
        return take_replies(subject.replies, benchmark, options)
    if subject.masks:
        return take_masks(subject.masks, benchmark, options)
    raise ConfigError("there is nothing to evaluate")


def evaluate_checkpoint(path: Path, benchmark: Benchmark, options: Options) -> EvaluationFolder:
    """Score every image, and have the questions answered when that is wanted."""
    from training.asking import CheckpointReplier, ask_questions
    from training.checkpoint import open_checkpoint
    from training.probe import score_probe

    opened = open_checkpoint(path)
    folder = score(_scorer_of(path, opened, options), benchmark, options)
    if options.trained_on:
        shards, images = options.trained_on
        score_probe(opened, benchmark, folder, shards=shards, images=images)
    if options.ask:
        replier = CheckpointReplier(str(path), opened, max_tokens=options.max_tokens)
        ask_questions(replier, benchmark, folder, limit=options.limit)
    return folder


def _scorer_of(path: Path, opened: Checkpointed, options: Options) -> Scorer:
    """Where it is read in replies, calibrated on the val split of what was trained on."""
    if options.verdict_at is VerdictAt.PREFIX:
        return CheckpointScorer(path, opened)
    scorer = ReplyScorer(path, opened)
    if options.trained_on:
        shards, images = options.trained_on
        scorer.calibrate(Benchmark(shards, open_own_set(shards, images, split=Split.VAL)))
    return scorer


def evaluate_endpoint(
    endpoint: Endpoint, benchmark: Benchmark, options: Options
) -> EvaluationFolder:
    """The same with a model behind an OpenAI-compatible endpoint."""
    from training.asking import ask_questions
    from training.endpoint import EndpointScorer, connect

    with connect(endpoint, options.out) as connection:
        scorer = EndpointScorer(connection)
        folder = score(scorer, benchmark, options)
        if options.ask:
            ask_questions(scorer, benchmark, folder, limit=options.limit)
        typer.echo(
            f"{connection.ledger.calls:,} replies of {endpoint.name}, "
            f"${connection.ledger.committed_usd:.4f}",
            err=True,
        )
    return folder


def evaluate_scores(path: Path, benchmark: Benchmark, options: Options) -> EvaluationFolder:
    """Take the scores of another detector; ConfigError where changed images would need new ones."""
    if options.changes:
        raise ConfigError("--scores are of the images as they are: changes need a model")
    return score(read_scores(path), benchmark, options)


def score(scorer: Scorer, benchmark: Benchmark, options: Options) -> EvaluationFolder:
    """Score what is not scored yet; a folder of another evaluation is refused."""
    folder = _start(options, benchmark, name=scorer.name, digest=scorer.digest, scorer=scorer)
    _score_all(scorer, benchmark, folder, options.limit)
    if options.changes:
        score_changed(scorer, benchmark, folder, options.changes, limit=options.limit)
    return folder


def take_replies(paths: Sequence[Path], benchmark: Benchmark, options: Options) -> EvaluationFolder:
    """Keep the answers of another model; those that fit no image are counted on the terminal."""
    questions = benchmark.questions(limit=options.limit)
    replies = read_replies(paths, questions)
    digest = sha256_bytes("".join(sha256_of(path) for path in paths).encode())
    name = ", ".join(map(str, paths))
    folder = _start(options, benchmark, name=name, digest=digest)
    there = folder.replies()
    rows = [
        as_row(each, model=name, digest=digest)
        for each in replies.to(questions)
        if each.reply is not None and (each.question.image, each.question.key) not in there
    ]
    folder.append(rows, ANSWERS)
    if replies.unmatched:
        typer.echo(f"{replies.unmatched:,} answers fit no image of the benchmark", err=True)
    return folder


def take_masks(path: Path, benchmark: Benchmark, options: Options) -> EvaluationFolder:
    """Begin an evaluation of masks alone, which scores nothing; the report compares them."""
    from training.masks import digest_of

    if options.changes or options.ask:
        raise ConfigError("--masks alone name no model: it can be asked nothing, nor try changes")
    return _start(options, benchmark, name=str(path), digest=digest_of(path))


def _open(data: Path, layout: str, images: Path | None) -> Benchmark:
    """The benchmark; how it is read, and why, goes to the terminal."""
    opened = Benchmark.open(data, layout=layout, images=images)
    typer.echo(f"{data}: {opened.collection.layout} ({opened.collection.reason})", err=True)
    return opened


def _read_changes(texts: Sequence[str], recipe: Path | None) -> tuple[Perturbation, ...]:
    """Those that were named, and the grid of a recipe."""
    named = [read_perturbation(text) for text in texts]
    return (*named, *(read_grid(recipe) if recipe else ()))


def _write_result_files(folder: EvaluationFolder, benchmark: Benchmark, limit: int | None) -> None:
    if benchmark.collection.layout == TAKES_RESULT_FILES:
        answered = Replies(folder.replies()).to(benchmark.questions(limit=limit))
        for path in write_result_files(folder.path, answered):
            typer.echo(f"{path}: to be sent to the authors of the benchmark", err=True)


def _start(
    options: Options,
    benchmark: Benchmark,
    *,
    name: str,
    digest: str,
    scorer: Scorer | None = None,
) -> EvaluationFolder:
    from training.evaluation import Asked, EvaluationFolder

    folder, collection = EvaluationFolder(options.out), benchmark.collection
    folder.start(
        Asked(
            benchmark=str(benchmark.path),
            layout=collection.layout,
            because=collection.reason,
            licence=collection.licence,
            scorer=name,
            digest=digest,
            prompt=scorer.prompt if scorer else None,
            reduce=scorer.reduce if scorer else None,
            limit=options.limit,
            calibration=scorer.calibration if scorer else None,
            simulated_generators=scorer.simulated_generators if scorer else (),
        )
    )
    return folder


def _score_all(
    scorer: Scorer, benchmark: Benchmark, folder: EvaluationFolder, limit: int | None
) -> None:
    from training.evaluation import Predicted, line_of

    done = folder.done().names
    total = sum(1 for _ in islice(benchmark.files(), limit))
    with counting("scoring", total) as advance:
        advance(len(done), "")
        for batch in in_batches(benchmark.read(without=done, limit=limit), BATCH):
            read = [each for each in batch if not isinstance(each, Refused)]
            scores = scorer.score(read) if read else []
            lines = [
                line_of(Predicted(facts, score.log_odds, score.read_at), scorer.calibration)
                for (facts, _), score in zip(read, scores, strict=True)
            ]
            lines += [
                {"name": each.name, "refused": each.reason}
                for each in batch
                if isinstance(each, Refused)
            ]
            folder.append(lines)
            advance(len(batch), "")


if __name__ == "__main__":
    app()
