"""`python -m instruct_builder`: chains in, a verified shard set out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.command_line import one_line_errors
from core.recipe import DEFAULT_RECIPE, configured_recipe
from core.records import ReviewLevel
from core.settings import load_settings
from db.engine import open_database
from imaging.store import ImageStore
from instruct_builder.build import BuildSummary, Report, build
from instruct_builder.inspection import readable_counts, readable_samples
from instruct_builder.manifest import warnings_of
from instruct_builder.shards import ShardSet, verify

app = typer.Typer(
    help="Chains in, a verified shard set out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a shard set.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("build")
@one_line_errors()
def build_command(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the shard set.")],
    min_review: Annotated[
        ReviewLevel | None, typer.Option(help="Least review level; default: the recipe's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Default: the recipe's.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Only this source; default: all but the demo.")
    ] = None,
    release: Annotated[
        bool,
        typer.Option("--release", help="For others to train on: shortcuts and overlaps stop it."),
    ] = False,
    accept_shortcuts: Annotated[
        bool, typer.Option("--accept-shortcuts", help="Build in spite of metadata shortcuts.")
    ] = False,
    accept_overlaps: Annotated[
        bool, typer.Option("--accept-overlaps", help="Build in spite of images of benchmarks.")
    ] = False,
    recipe: Annotated[Path, typer.Option(help="Recipe folder.")] = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Build a shard set from the reviewed chains; one that is there already is left as it is."""
    settings = load_settings()
    with _counting() as report:
        summary = build(
            open_database(settings),
            configured_recipe(recipe, settings),
            ImageStore(settings.image_store),
            out,
            min_review=min_review,
            seed=seed,
            source=source,
            release=release,
            accept_shortcuts=accept_shortcuts,
            accept_overlaps=accept_overlaps,
            report=report,
        )
    typer.echo(_as_json(summary) if as_json else _as_text(summary))


@app.command()
@one_line_errors()
def inspect(folder: Folder, as_json: JsonOption = False) -> None:
    """Show counts, and one instruction of each family as a person would read it."""
    shards = ShardSet.open(folder)
    if as_json:
        typer.echo(shards.manifest.model_dump_json(indent=2))
        return
    typer.echo(f"{readable_counts(shards)}\n\n{readable_samples(shards)}")


@app.command("verify")
@one_line_errors()
def verify_command(folder: Folder, as_json: JsonOption = False) -> None:
    """Recompute every checksum and every count of the manifest."""
    problems = verify(folder)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "problems": problems}))
    else:
        typer.echo("\n".join(problems) or f"{folder}: every checksum and every count is right")
    raise SystemExit(1 if problems else 0)


def _as_json(summary: BuildSummary) -> str:
    values = {
        "folder": str(summary.folder),
        "unchanged": summary.unchanged,
        "rows": summary.manifest.rows,
        "images": summary.manifest.images,
        "chains": summary.manifest.chains,
        "counts": summary.manifest.counts,
        "left_out": summary.manifest.left_out,
        "statement": summary.manifest.statement,
        "warnings": warnings_of(summary.manifest),
    }
    return json.dumps(values)


def _as_text(summary: BuildSummary) -> str:
    shards = ShardSet(summary.folder, summary.manifest)
    done = "was there already, nothing to do" if summary.unchanged else "built"
    return f"{summary.folder}: {done}\n{readable_counts(shards)}"


@contextmanager
def _counting() -> Iterator[Report]:
    """A bar on a terminal, silence in a log: a build takes seconds."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (TextColumn("building"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("building", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    app()
