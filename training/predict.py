"""python -m training.predict IMAGE|FOLDER ... --checkpoint DIR: is it real or fake, how sure, why.

Answers come as they are made, one image at a time; a file that cannot be read is said and passed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from core.command_line import one_line_errors
from core.errors import ConfigError
from core.printable import printable
from core.recipe import DEFAULT_RECIPE, Strict, find_recipe, read_model
from core.records import Authenticity
from core.taxonomy import Taxonomy
from imaging.layouts import PLAIN
from training.batches import BATCH, in_batches
from training.benchmarks import Benchmark, Examined, ImageFacts, Refused
from training.progress import counting

if TYPE_CHECKING:
    from training.checkpoint import Checkpointed

QUESTIONS: Final = "prediction.yaml"
"""of a recipe: what is asked besides the verdict"""
POST_HOC: Final = "written after the fact: not proven to be what decided the verdict"

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


class Questions(Strict):
    """Questions by what they are for; `{aspect}` is the name of a trace category."""

    explain: list[str]
    aspects: list[str]
    advise: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model says of one image."""

    name: str
    sha256: str
    """of the file"""
    verdict: Authenticity | None
    """None: it abstains"""
    p_fake: float
    """at the given prior; of the raw score where nothing was calibrated"""
    log_likelihood_ratio: float | None
    """natural logarithm, positive for fake; None: nothing was calibrated"""
    log_odds: float
    """of the raw token soft score"""
    said: dict[str, str]
    """replies by question; post-hoc, untrusted"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What is asked for."""

    questions: tuple[str, ...] = ()
    prior: float = 0.5
    """share of fakes among the images, before anything is seen of them"""
    abstain: float = 0.0
    """no verdict when p_fake lies nearer than this to even odds"""
    max_tokens: int = 256


@app.command()
@one_line_errors()
def main(  # noqa: PLR0913 - the options of a command
    paths: Annotated[list[Path], typer.Argument(help="Images, folders or archives.")],
    *,
    checkpoint: Annotated[
        Path, typer.Option(help="Checkpoint of a run, such as RUN/checkpoints/step-000500.")
    ],
    explain: Annotated[bool, typer.Option("--explain", help="Say by which traces.")] = False,
    aspects: Annotated[
        bool, typer.Option("--aspects", help="Ask about each trace category of the recipe.")
    ] = False,
    advise: Annotated[
        bool, typer.Option("--advise", help="Say what would make it more like a photograph.")
    ] = False,
    ask: Annotated[
        list[str] | None, typer.Option(help="A question about each image; may be repeated.")
    ] = None,
    prior: Annotated[
        float, typer.Option(min=0.0001, max=0.9999, help="Share of fakes to be expected.")
    ] = 0.5,
    abstain: Annotated[
        float, typer.Option(min=0, max=0.5, help="No verdict this near to p_fake = 0.5.")
    ] = 0.0,
    max_tokens: Annotated[int, typer.Option(min=1, help="At most so many a reply.")] = 256,
    recipe: Annotated[
        Path,
        typer.Option(
            callback=find_recipe, help="Recipe with the questions and the trace categories."
        ),
    ] = DEFAULT_RECIPE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    out: Annotated[Path | None, typer.Option(help="JSON lines go to this new file.")] = None,
) -> None:
    """Score images with a trained checkpoint; p_fake is calibrated where the run could do so."""
    from training.checkpoint import open_checkpoint

    prepared = prepare_questions(recipe, explain=explain, aspects=aspects, advise=advise)
    questions = (*prepared, *(ask or ()))
    wishes = Wishes(questions=questions, prior=prior, abstain=abstain, max_tokens=max_tokens)
    benchmarks = [_open(path) for path in paths]
    opened = open_checkpoint(checkpoint)
    refused = 0
    with _lines_to(out) as write, counting("scoring", _total(benchmarks)) as advance:
        for answer in predict(benchmarks, opened, wishes):
            refused += isinstance(answer, Refused)
            write(_as_line(answer) if as_json or out else _as_text(answer))
            advance(1, "")
    if not as_json and opened.calibration is not None:
        threshold = opened.calibration.threshold
        typer.echo(f"called fake from a log-likelihood ratio of {threshold:+.2f} on", err=True)
    if refused:
        typer.echo(f"{refused:,} files could not be read", err=True)


def prepare_questions(
    recipe: Path, *, explain: bool, aspects: bool, advise: bool
) -> tuple[str, ...]:
    """The questions of a recipe that are wished for; one for each trace category."""
    if not (explain or aspects or advise):
        return ()
    asked = read_model(recipe / QUESTIONS, Questions)
    names = [c.name for c in read_model(recipe / "taxonomy.yaml", Taxonomy).categories]
    by_aspect = [text.format(aspect=name) for name in names for text in asked.aspects]
    return (
        *(asked.explain if explain else ()),
        *(by_aspect if aspects else ()),
        *(asked.advise if advise else ()),
    )


def predict(
    benchmarks: Sequence[Benchmark], opened: Checkpointed, wishes: Wishes
) -> Iterator[Answer | Refused]:
    """Answers for all images of some collections, in their order."""
    for benchmark in benchmarks:
        for batch in in_batches(benchmark.read(), BATCH):
            read = [each for each in batch if not isinstance(each, Refused)]
            answers = iter(_answer(read, opened, wishes) if read else [])
            for each in batch:
                answer = each if isinstance(each, Refused) else next(answers)
                yield replace(answer, name=_full_name(benchmark, answer.name))


def _answer(images: Sequence[Examined], opened: Checkpointed, wishes: Wishes) -> Iterator[Answer]:
    for facts, score, said in _examine(images, opened, wishes):
        p_fake, is_fake = _judge(score, opened, wishes)
        yield Answer(
            name=facts.name,
            sha256=facts.sha256,
            verdict=is_fake,
            p_fake=p_fake,
            log_likelihood_ratio=opened.calibration.ratio(score) if opened.calibration else None,
            log_odds=score,
            said=said,
        )


def _examine(
    images: Sequence[Examined], opened: Checkpointed, wishes: Wishes
) -> Iterator[tuple[ImageFacts, float, dict[str, str]]]:
    """Log-odds and replies: of a batch of images, or of one at a time with all its questions."""
    from training.score import score_images
    from training.shared_prefill import score_and_reply

    if not wishes.questions:
        log_odds = score_images([picture for _, picture in images], opened.verdict, opened.assembly)
        yield from ((facts, score, {}) for (facts, _), score in zip(images, log_odds, strict=True))
        return
    for facts, picture in images:
        score, replies = score_and_reply(
            opened.verdict,
            wishes.questions,
            picture,
            opened.assembly,
            max_tokens=wishes.max_tokens,
        )
        yield facts, score, dict(zip(wishes.questions, replies, strict=True))


def _judge(
    log_odds: float, opened: Checkpointed, wishes: Wishes
) -> tuple[float, Authenticity | None]:
    """p_fake and the verdict: by the threshold of the calibration, or by even odds of a prior."""
    from scipy.special import expit, logit

    fitted = opened.calibration
    ratio = fitted.ratio(log_odds) if fitted else log_odds
    p_fake = float(expit(ratio + logit(wishes.prior)))
    if abs(p_fake - 0.5) < wishes.abstain:
        return p_fake, None
    is_fake = ratio >= fitted.threshold if fitted and wishes.prior == 0.5 else p_fake >= 0.5
    return p_fake, Authenticity.FAKE if is_fake else Authenticity.REAL


def _full_name(benchmark: Benchmark, name: str) -> str:
    """As the caller would find the image again."""
    place = printable(str(benchmark.path))
    return f"{place}/{name}" if benchmark.path.is_dir() or benchmark.path.name != name else place


def _open(path: Path) -> Benchmark:
    """Whatever labels a collection has count for nothing here."""
    return Benchmark.open(path, layout=PLAIN)


def _total(benchmarks: Sequence[Benchmark]) -> int:
    return sum(1 for benchmark in benchmarks for _ in benchmark.files())


# What comes out


@contextmanager
def _lines_to(out: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes one answer, to a new file or to standard output."""
    if out is None:
        yield typer.echo
        return
    try:
        file = out.open("x", encoding="utf-8")
    except OSError as error:
        reason = "it is there already" if out.exists() else error.strerror or str(error)
        raise ConfigError(f"{out}: {reason}; name another file with --out") from None
    with file:

        def write(line: str) -> None:
            file.write(line + "\n")
            file.flush()

        yield write


def _as_line(answer: Answer | Refused) -> str:
    values: dict[str, Any] = asdict(answer)
    return json.dumps(values, ensure_ascii=False)


def _as_text(answer: Answer | Refused) -> str:
    if isinstance(answer, Refused):
        return f"{answer.name}: not read: {answer.reason}"
    ratio = answer.log_likelihood_ratio
    how_sure = "not calibrated" if ratio is None else f"log-likelihood ratio {ratio:+.2f}"
    lines = [
        f"{answer.name}: {answer.verdict or 'no verdict'}, p_fake {answer.p_fake:.3f}, {how_sure}"
    ]
    if answer.said:
        lines.append(f"  what follows was {POST_HOC}")
    for question, reply in answer.said.items():
        lines.append(f"  {printable(question)}")
        lines += [f"    {printable(line)}" for line in reply.splitlines() or ["(nothing)"]]
    return "\n".join(lines)


if __name__ == "__main__":
    app()
