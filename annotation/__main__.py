"""`python -m annotation`: experts check drafts in Label Studio, and FakeChain comes of it."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from annotation import server
from annotation.chains import chain_drafts
from annotation.pull import pull as pull_answers
from annotation.push import Desk, PushSummary, one_at_a_time, set_up
from annotation.push import push as push_drafts
from annotation.standing import Standing, standing
from annotation.studio import Studio
from core.command_line import one_line_errors
from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE, configured_recipe
from core.records import AnnotationFate
from core.settings import Settings, load_settings
from db.engine import open_database
from imaging.store import ImageStore

app = typer.Typer(
    help="Experts check drafts in Label Studio, and FakeChain comes of it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

RecipeOption = Annotated[Path, typer.Option("--recipe", help="Recipe folder.")]
SourceOption = Annotated[
    str | None, typer.Option(help="Name of the collection; default: all but the demo.")
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many new tasks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
@one_line_errors()
def serve(
    recipe: RecipeOption = DEFAULT_RECIPE,
    source: SourceOption = None,
    limit: LimitOption = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Port on localhost; default: a free one.")
    ] = None,
) -> None:
    """Run Label Studio here until Ctrl-C, with every draft that is due; `make annotate`.

    Installs it first where it is missing. Where LABEL_STUDIO_URL names a server, that one is used
    instead: drafts go there, and the command ends.
    """
    settings = load_settings()
    if settings.label_studio_url is not None:
        _push_and_tell(settings, recipe, source, limit)
        return
    open_database(settings).dispose()
    if not server.is_installed():
        typer.echo(f"Installing Label Studio into {server.ENVIRONMENT}: a gigabyte, minutes, once")
    server.install()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.default_int_handler)
    with server.own_server(settings.fakescope_home, port=port) as access:
        _push_and_tell(settings, recipe, source, limit)
        typer.echo(f"log in as         {access.email}")
        typer.echo(f"password          {access.password}")
        typer.echo("Ctrl-C stops it; what was answered is kept")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    typer.echo("stopped")


@app.command()
@one_line_errors()
def install() -> None:
    """Install Label Studio into an environment of its own, as `make annotate` does."""
    server.install()
    typer.echo(f"Label Studio is in {server.ENVIRONMENT}")


@app.command()
@one_line_errors()
def setup(recipe: RecipeOption = DEFAULT_RECIPE) -> None:
    """Make the review project on the server, or check that it is there."""
    settings = load_settings()
    with connect(settings) as studio, one_at_a_time(settings.fakescope_home):
        project = set_up(_desk(settings, recipe, studio))
        typer.echo(f"{studio.url}/projects/{project.project_id}/data")


@app.command()
@one_line_errors()
def push(
    recipe: RecipeOption = DEFAULT_RECIPE,
    source: SourceOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a task of each draft that has none; may be killed and run again."""
    settings = load_settings()
    with connect(settings) as studio, one_at_a_time(settings.fakescope_home):
        summary = push_drafts(
            _desk(settings, recipe, studio), source=source, limit=limit, report=_progress
        )
    typer.echo(json.dumps(asdict(summary)) if as_json else _push_line(summary))


@app.command()
@one_line_errors()
def pull(
    recipe: RecipeOption = DEFAULT_RECIPE,
    full: Annotated[
        bool, typer.Option("--full", help="Look at every task, not at changed ones alone.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch what experts answered; `chain` or `make build-instruct` makes chains of it."""
    settings = load_settings()
    with connect(settings) as studio, one_at_a_time(settings.fakescope_home):
        summary = pull_answers(_desk(settings, recipe, studio), full=full)
    if as_json:
        typer.echo(json.dumps({"new": summary.new, "lost_tasks": summary.lost_tasks}))
        return
    typer.echo(f"new versions of annotations: {_counts(summary.new)}")
    if summary.lost_tasks:
        typer.echo(f"{summary.lost_tasks} tasks are gone from the server; push makes them again")


@app.command()
@one_line_errors()
def status(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """Say how far the review is, by what was pulled last; asks no server."""
    settings = load_settings()
    found = standing(open_database(settings), configured_recipe(recipe, settings))
    typer.echo(json.dumps(asdict(found)) if as_json else _standing_text(found))


@app.command()
@one_line_errors()
def chain(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """Build the reasoning chain of every draft; unchanged chains stay as they are."""
    settings = load_settings()
    summary = chain_drafts(open_database(settings), configured_recipe(recipe, settings))
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
        return
    levels = ", ".join(f"{count} {level}" for level, count in sorted(summary.by_level.items()))
    typer.echo(
        f"{summary.drafts} chains ({levels or 'none'}), {summary.new_chains} of them new; "
        f"{summary.contradictions} findings against the known label left out"
    )


def connect(settings: Settings) -> Studio:
    """The configured server, else the one that runs from the home folder."""
    if settings.label_studio_url is not None:
        if settings.label_studio_api_key is None:
            raise ConfigError("LABEL_STUDIO_URL names a server: give LABEL_STUDIO_API_KEY too")
        return Studio(settings.label_studio_url, settings.label_studio_api_key)
    access = server.read_access(settings.fakescope_home)
    if access is None:
        raise ConfigError(
            "there is no Label Studio: run `make annotate` in another terminal, or name the team's "
            "in LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
        )
    return Studio(access.url, access.api_key, server=server.OWN)


def _desk(settings: Settings, recipe: Path, studio: Studio) -> Desk:
    return Desk(
        database=open_database(settings),
        recipe=configured_recipe(recipe, settings),
        store=ImageStore(settings.image_store),
        studio=studio,
    )


def _push_and_tell(settings: Settings, recipe: Path, source: str | None, limit: int | None) -> None:
    with connect(settings) as studio, one_at_a_time(settings.fakescope_home):
        desk = _desk(settings, recipe, studio)
        summary = push_drafts(desk, source=source, limit=limit, report=_progress)
        typer.echo(_push_line(summary))
        project = set_up(desk)
        typer.echo(f"review at         {studio.url}/projects/{project.project_id}/data")
        typer.echo(f"further experts   {studio.invitation()}")


def _progress(done: int, total: int) -> None:
    end = "\n" if done == total or not sys.stderr.isatty() else "\r"
    sys.stderr.write(f"making tasks: {done} of {total}{end}")


def _push_line(summary: PushSummary) -> str:
    refused = Counter(summary.refused.values())
    reasons = "".join(f"\nset aside: {count}, {reason}" for reason, count in refused.items())
    found = f", {summary.found} found from a push that was cut short" if summary.found else ""
    return f"{summary.made} new tasks{found}, {len(summary.refused)} drafts set aside{reasons}"


def _standing_text(found: Standing) -> str:
    lines = [
        f"drafts without a task   {found.undelivered}",
        f"tasks                   {found.tasks}",
        f"annotations             {_counts(found.annotations)}",
        f"images with corrections {found.corrected_images}",
    ]
    for flag in found.flags:
        lines.append(f"{flag.fate}: task {flag.task_id}, {flag.expert}: {flag.reason}")
    return "\n".join(lines)


def _counts(counts: Mapping[AnnotationFate, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    app()
