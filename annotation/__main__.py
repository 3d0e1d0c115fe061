"""`python -m annotation`: experts check drafts in Label Studio, and FakeChain comes of it."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final

import typer

from annotation import server
from annotation.chains import chain_drafts
from annotation.desk import Desk
from annotation.exemplar_file import write_exemplars
from annotation.exemplars import Filled, filled_slots, finished
from annotation.export import export as export_chains
from annotation.fakechain import Images
from annotation.office import Office, booths_of
from annotation.preference import report_as_text
from annotation.projects import opened_projects
from annotation.pull import PullSummary
from annotation.pull import pull as pull_answers
from annotation.push import PushSummary
from annotation.push import push as push_due
from annotation.quality import (
    agreement_as_text,
    quality_as_text,
    queue_as_text,
)
from annotation.standing import Standing, standing
from annotation.sync import FULL_SECONDS, SyncSummary, repeat
from annotation.sync import sync as sync_both
from annotation.webhook import call_back, call_no_more, receiving
from core.command_line import RecipeOption, one_line_errors
from core.errors import ConfigError, FakeScopeError
from core.recipe import (
    DEFAULT_RECIPE,
    EXEMPLARS_FILE,
    RECIPE_FILE,
    configured_recipe,
)
from core.records import AnnotationFate, Authenticity, ReviewLevel, TaskKind
from core.settings import load_settings
from db.engine import open_database
from db.quality import (
    adjudication_queue,
    measure_agreement,
    measure_preferences,
    measure_quality,
)
from db.studio import StudioProject
from imaging.store import ImageStore

app = typer.Typer(
    help="Experts check drafts in Label Studio, and FakeChain comes of it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

SourceOption = Annotated[
    str | None, typer.Option(help="Name of the collection; default: all but the demo.")
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many new tasks.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
BLIND_EXPERTS: Final = 3
"""two label an image, and the third settles what they do not agree on"""
LOOK_SECONDS: Final = 1.0
"""how often `serve` looks whether its servers are still there"""


class BlindLabels(StrEnum):
    """Where experts label blind."""

    SEPARATE = "separate"


@app.command()
@one_line_errors()
def serve(
    recipe: RecipeOption = DEFAULT_RECIPE,
    source: SourceOption = None,
    limit: LimitOption = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1, max=65000, help="Port on localhost, booths on the next; default: free ones."
        ),
    ] = None,
    blind: Annotated[
        BlindLabels | None,
        typer.Option(help="`separate`: each expert labels blind on a server of their own."),
    ] = None,
    experts: Annotated[
        int | None,
        typer.Option(min=2, help=f"So many label blind separately; default: {BLIND_EXPERTS}."),
    ] = None,
) -> None:
    """Run Label Studio here until Ctrl-C, with every draft that is due; `make annotate`.

    Installs it first where it is missing. Where LABEL_STUDIO_URL names a server, that one is used
    instead: drafts go there, and the command ends. It ends with an error when a server of its own
    does.
    """
    settings = load_settings()
    office = Office.of(settings, recipe)
    booths = _booths(office, blind, experts)
    if settings.label_studio_url is not None:
        _push_and_tell(office, source, limit)
        return
    if not server.is_installed():
        typer.echo(f"Installing Label Studio into {server.ENVIRONMENT}: a gigabyte, minutes, once")
    server.install()
    home = settings.fakescope_home
    with _until_stopped(), ExitStack() as running:
        logins: dict[str, server.OwnServer] = {}
        for booth in (None, *booths):
            asked = port + (booth or 0) if port else None
            started = running.enter_context(server.own_server(home, port=asked, booth=booth))
            logins[server.remembered_as(booth)] = started
        _push_and_tell(office, source, limit, logins)
        typer.echo("Ctrl-C stops it; what was answered is kept")
        while True:
            for each in logins.values():
                each.require_running()
            time.sleep(LOOK_SECONDS)


@app.command()
@one_line_errors()
def install() -> None:
    """Install Label Studio into an environment of its own, as `make annotate` does."""
    server.install()
    typer.echo(f"Label Studio is in {server.ENVIRONMENT}")


@app.command()
@one_line_errors()
def setup(recipe: RecipeOption = DEFAULT_RECIPE) -> None:
    """Make the projects on the server, or check that they are there."""
    office = Office.of(load_settings(), recipe)
    with office.desk() as desk, office.alone():
        for at in desk.everywhere:
            for project in opened_projects(at):
                typer.echo(_address(at, project))


@app.command()
@one_line_errors()
def push(
    recipe: RecipeOption = DEFAULT_RECIPE,
    source: SourceOption = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a task of whatever is due and has none; may be killed and run again."""
    office = Office.of(load_settings(), recipe)
    with office.desk() as desk, office.alone():
        summary = push_due(desk, source=source, limit=limit, report=_report("making tasks"))
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
    office = Office.of(load_settings(), recipe)
    with office.desk() as desk, office.alone():
        summary = pull_answers(desk, full=full)
    typer.echo(json.dumps(asdict(summary)) if as_json else _pull_line(summary))


@app.command()
@one_line_errors()
def sync(
    recipe: RecipeOption = DEFAULT_RECIPE,
    source: SourceOption = None,
    limit: LimitOption = None,
    watch: Annotated[
        float | None,
        typer.Option(min=1, metavar="SECONDS", help="Go on until Ctrl-C, a round at a time."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pull, build chains, push what is due, and delete what was withdrawn."""
    office = Office.of(load_settings(), recipe)
    last_full = -math.inf

    def take_round() -> None:
        nonlocal last_full
        full = time.monotonic() - last_full >= FULL_SECONDS
        with office.desk() as desk, office.alone(wait=bool(watch)):
            report = _report("making tasks")
            summary = sync_both(desk, source=source, limit=limit, full=full, report=report)
        if full:
            last_full = time.monotonic()
        if full or summary.is_news:
            typer.echo(json.dumps(asdict(summary)) if as_json else _sync_line(summary))

    if watch is None:
        take_round()
        return
    with _until_stopped():
        repeat(take_round, seconds=watch, wake=threading.Event(), say=_say)


@app.command()
@one_line_errors()
def webhook(
    recipe: RecipeOption = DEFAULT_RECIPE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = server.HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: a free one.")
    ] = 0,
    url: Annotated[
        str | None, typer.Option(help="How the server gets there; default: http://HOST:PORT/.")
    ] = None,
    every: Annotated[
        float,
        typer.Option(min=1, metavar="SECONDS", help="Pull without a call too: some get lost."),
    ] = 300,
) -> None:
    """Let the server call whenever an expert has answered, and pull then; until Ctrl-C."""
    office = Office.of(load_settings(), recipe)
    called: set[str] = set()
    """projects whose webhook is set, by key"""

    def take_round() -> None:
        with office.desk() as desk, office.alone(wait=True):
            for at in desk.everywhere:
                called.update(call_back(at, url or receiver.url, receiver.secret, known=called))
            summary = pull_answers(desk)
        if summary.is_news:
            typer.echo(_pull_line(summary))

    with _until_stopped(), receiving(host, port) as receiver:
        typer.echo(f"listening at {receiver.url}")
        try:
            repeat(take_round, seconds=every, wake=receiver.hint, say=_say)
        finally:
            with suppress(FakeScopeError), office.desk() as desk:
                for at in desk.everywhere:
                    call_no_more(at)


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


@app.command()
@one_line_errors()
def export(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the files.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
    source: SourceOption = None,
    min_review: Annotated[
        ReviewLevel | None, typer.Option(help="Least review level; default: the recipe's.")
    ] = None,
    images: Annotated[Images, typer.Option(help="How rows lead to pictures.")] = Images.REFERENCE,
    as_json: JsonOption = False,
) -> None:
    """Write FakeChain for others: Parquet, JSON lines and a data-set card."""
    settings = load_settings()
    summary = export_chains(
        open_database(settings),
        configured_recipe(recipe, settings),
        ImageStore(settings.image_store),
        out,
        images=images,
        min_review=min_review,
        source=source,
        report=_report("writing chains"),
    )
    if as_json:
        typer.echo(json.dumps(asdict(summary)))
        return
    left_out = f", {len(summary.left_out)} left out for want of their files"
    typer.echo(f"{out}: {summary.chains} chains{left_out if summary.left_out else ''}")


@app.command()
@one_line_errors()
def adjudicate(
    source: SourceOption = None,
    limit: LimitOption = None,
    list_only: Annotated[
        bool, typer.Option("--list", help="Show the queue alone; asks no server.")
    ] = False,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """List the drafts that experts disagree on, worst first, and make a task of each."""
    office = Office.of(load_settings(), recipe)
    summary = PushSummary()
    if not list_only:
        with office.desk() as desk, office.alone():
            kind, report = TaskKind.ADJUDICATION, _report("making tasks")
            summary = push_due(desk, source=source, limit=limit, only=kind, report=report)
    queue = adjudication_queue(office.database, office.recipe)
    if as_json:
        typer.echo(json.dumps({"queue": [asdict(item) for item in queue], **asdict(summary)}))
        return
    typer.echo("\n".join(queue_as_text(queue)))
    if not list_only:
        typer.echo(_push_line(summary))


@app.command()
@one_line_errors()
def agreement(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """How far experts agree, by trace category, expert and teacher, and whose answers are alike."""
    settings = load_settings()
    found = measure_agreement(open_database(settings), configured_recipe(recipe, settings))
    typer.echo(json.dumps(asdict(found)) if as_json else "\n".join(agreement_as_text(found)))


@app.command()
@one_line_errors()
def quality(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """What experts leave of each teacher's traces, how long they take, and their gold scores."""
    settings = load_settings()
    found = measure_quality(open_database(settings), configured_recipe(recipe, settings))
    typer.echo(json.dumps(asdict(found)) if as_json else "\n".join(quality_as_text(found)))


@app.command()
@one_line_errors()
def exemplars(
    recipe: RecipeOption = DEFAULT_RECIPE,
    write: Annotated[
        bool, typer.Option("--write", help="Write them into the recipe, whose campaign changes.")
    ] = False,
    with_pictures: Annotated[
        bool, typer.Option("--with-pictures", help="Copy their pictures into the recipe, too.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """How many slots of the exemplar set are filled; `--write` makes exemplars of them."""
    settings = load_settings()
    database, known = open_database(settings), configured_recipe(recipe, settings)
    slots, done = filled_slots(database, known), finished(database, known)
    if not slots:
        raise ConfigError(
            f"{recipe / RECIPE_FILE} asks for no exemplars: give review.exemplars there"
        )
    store = ImageStore(settings.image_store) if with_pictures else None
    path = write_exemplars(database, known, done, store=store) if write else None
    if as_json:
        counts = {label: asdict(filled) for label, filled in slots.items()}
        typer.echo(json.dumps({"slots": counts, "file": str(path) if path else None}))
        return
    typer.echo(f"exemplars               {_slots_text(slots)}")
    if path is not None:
        typer.echo(f"{path}: {len(done)} exemplars; drafts are made anew with them")
        if simulated := sum(exemplar.simulated for exemplar in known.exemplars):
            typer.echo(f"{EXEMPLARS_FILE} still holds {simulated} simulated ones: delete them")


@app.command()
@one_line_errors()
def preference(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """Which of two arms experts prefer, with intervals, and whether the order mattered."""
    settings = load_settings()
    found = measure_preferences(open_database(settings), configured_recipe(recipe, settings))
    typer.echo(json.dumps(asdict(found)) if as_json else "\n".join(report_as_text(found)))


@contextmanager
def _until_stopped() -> Iterator[None]:
    """Around what ends with Ctrl-C or SIGTERM alone."""
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        yield
    typer.echo("stopped")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _booths(office: Office, blind: BlindLabels | None, experts: int | None) -> list[int]:
    """The booths to be run: those that there are, and those that are asked for."""
    known = booths_of(office.settings)
    if blind is None:
        if experts is not None and not known:
            raise ConfigError("EXPERTS goes with BLIND=separate")
    elif not office.recipe.settings.drafting.blind:
        raise ConfigError(
            f"{office.recipe.folder / 'recipe.yaml'} asks for no blind labels: "
            "set `blind: true` under `drafting` there"
        )
    elif office.settings.label_studio_url is not None:
        raise ConfigError(
            "BLIND=separate runs a server for each expert on this machine: "
            "unset LABEL_STUDIO_URL, or leave BLIND out"
        )
    else:
        experts = experts or len(known) or BLIND_EXPERTS
    if experts is not None and experts < len(known):
        raise ConfigError(
            f"{len(known)} experts label blind on servers of their own, and what they said stands "
            f"there: give EXPERTS={len(known)} or more"
        )
    return sorted({*known, *range(1, (experts or 0) + 1)})


def _push_and_tell(
    office: Office,
    source: str | None,
    limit: int | None,
    logins: Mapping[str, server.Access] = MappingProxyType({}),
) -> None:
    """Push what is due; say where it is and, of our own servers, how to get in."""
    with office.desk() as desk, office.alone():
        summary = push_due(desk, source=source, limit=limit, report=_report("making tasks"))
        typer.echo(_push_line(summary))
        for at in desk.everywhere:
            if at.is_booth:
                typer.echo("\nfor one expert alone:")
            for project in opened_projects(at):
                typer.echo(_address(at, project))
            if not at.is_booth:
                typer.echo(f"further experts   {at.studio.invitation()}")
            if login := logins.get(at.studio.server):
                typer.echo(f"log in as         {login.email}")
                typer.echo(f"password          {login.password}")


def _address(desk: Desk, project: StudioProject) -> str:
    whose = f"{project.kind}{f' of {project.owner}' if project.owner else ''} at"
    return f"{whose:<17} {desk.studio.url}/projects/{project.project_id}/data"


def _report(doing: str) -> Callable[[int, int], None]:
    """Says how far it is: on one line of a terminal, on lines of a log."""

    def report(done: int, total: int) -> None:
        end = "\n" if done == total or not sys.stderr.isatty() else "\r"
        sys.stderr.write(f"{doing}: {done} of {total}{end}")

    return report


def _sync_line(summary: SyncSummary) -> str:
    removed = f"{summary.removed} tasks of withdrawn images deleted\n" if summary.removed else ""
    return f"{removed}{_pull_line(summary.pulled)}\n{_push_line(summary.pushed)}"


def _pull_line(summary: PullSummary) -> str:
    lines = [f"new versions of annotations: {_counts(summary.new)}"]
    if summary.guided or summary.hard:
        lines.append(
            f"blind experts have settled {summary.guided} images, and {summary.hard} as hard; "
            "draft again to go on"
        )
    if summary.lost_tasks:
        lines.append(f"{summary.lost_tasks} tasks are gone from the server; push makes them again")
    for task_id, said in summary.failed_tasks.items():
        lines.append(f"task {task_id} is left out, delete its answers there: {said}")
    return "\n".join(lines)


def _push_line(summary: PushSummary) -> str:
    refused = Counter(summary.refused.values())
    reasons = "".join(f"\nset aside: {count}, {reason}" for reason, count in refused.items())
    found = f", {summary.found} found from a push that was cut short" if summary.found else ""
    return f"{summary.made} new tasks{found}, {len(summary.refused)} set aside{reasons}"


def _standing_text(found: Standing) -> str:
    lines = [
        f"drafts without a task   {found.undelivered}",
        f"tasks                   {_counts(found.tasks)}",
        f"annotations             {_counts(found.annotations)}",
        f"images with corrections {found.corrected_images}",
    ]
    if found.guided_images or found.hard_images:
        lines.append(f"settled by the blind    {found.guided_images}, hard {found.hard_images}")
    if found.exemplars:
        lines.append(f"exemplars               {_slots_text(found.exemplars)}")
    if found.preferences is not None:
        done, wanted = found.preferences.done, found.preferences.wanted
        lines.append(f"preferences             {done} of {wanted} votes")
    for flag in found.flags:
        lines.append(f"{flag.fate}: task {flag.task_id}, {flag.expert}: {flag.reason}")
    return "\n".join(lines)


def _slots_text(slots: Mapping[Authenticity, Filled]) -> str:
    return ", ".join(f"{each.done} of {each.wanted} {label}" for label, each in slots.items())


def _counts(counts: Mapping[AnnotationFate, int] | Mapping[TaskKind, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


if __name__ == "__main__":
    app()
