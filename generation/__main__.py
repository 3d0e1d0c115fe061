"""`python -m generation`: images in, teacher drafts out."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from core.command_line import RecipeOption, one_line_errors
from core.errors import ConfigError, DataError
from core.printable import printable
from core.recipe import DEFAULT_RECIPE, Recipe, configured_recipe, load_recipe
from core.records import Authenticity, Source
from core.settings import Settings, load_settings
from db.engine import Database, open_database
from db.images import ImportOutcome, images_by_id, imported_files
from db.provenance import provenance_of
from db.reports import costs as read_costs
from db.reports import status as read_status
from db.work import campaign_id_of
from generation.audit import as_json as audit_as_json
from generation.audit import as_text as audit_as_text
from generation.audit import audit as audit_images
from generation.audit import write_audit
from generation.batch import give_up_lost, run_batches
from generation.batch_desk import open_batch_desk
from generation.benchmarks import hash_list, register_benchmark
from generation.brief import briefs_for
from generation.campaign import Campaign, check_ceiling, prepare, progress
from generation.compare import as_text as compared_as_text
from generation.compare import compare_arms
from generation.console import counting, drafting_bar
from generation.control import as_text as control_as_text
from generation.control import measure_controls
from generation.costs import as_text as costs_as_text
from generation.forgetting import forget
from generation.ingest import ingest as ingest_folder
from generation.normalise import NormaliseSummary
from generation.normalise import normalise as normalise_images
from generation.prompt import printed_request
from generation.provenance import NOTHING as NO_PROVENANCE
from generation.provenance import summarise as summarise_provenance
from generation.provenance import table as provenance_table
from generation.reparse import reparse
from imaging.layouts import NAMES
from imaging.store import ImageStore
from teacher.rehearsal import start_rehearsal
from workers.drafting import run_campaign

app = typer.Typer(
    help="Images in, teacher drafts out.", no_args_is_help=True, pretty_exceptions_enable=False
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SourceOption = Annotated[
    str | None, typer.Option(help="Only this source; default: all but the demo.")
]


@app.command()
@one_line_errors()
def ingest(
    path: Annotated[Path, typer.Argument(help="Folder, zip or tar archive, or a file.")],
    source: Annotated[str, typer.Option(help="Name of the collection.")],
    layout: Annotated[str, typer.Option(help=f"One of: {', '.join(NAMES)}.")] = "auto",
    label: Annotated[Authenticity | None, typer.Option(help="Label of every image.")] = None,
    generator: Annotated[str | None, typer.Option(help="Generator of every image.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the collection.")] = "unknown",
    terms: Annotated[
        str, typer.Option(help="What its owner asks beyond the licence; travels to every card.")
    ] = "",
    evaluation_only: Annotated[
        bool, typer.Option("--evaluation-only", help="Never build training data from it.")
    ] = False,
    normalise: Annotated[
        bool,
        typer.Option("--normalise", help="Then do what `normalise NAME` does."),
    ] = False,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Check, hash and store images. Doing it again adds nothing."""
    settings, database = _open()
    with counting("ingesting") as report:
        summary = ingest_folder(
            database,
            ImageStore(settings.image_store),
            path,
            source=Source(name=source, licence=licence, may_train=not evaluation_only, terms=terms),
            layout=layout,
            label=label,
            generator=generator,
            progress=report,
        )
    values, text = asdict(summary), summary.text()
    if normalise:
        made = _normalise(settings, database, [source], recipe)
        values, text = {**values, "normalised": asdict(made)}, f"{text}\n{made.text()}"
    typer.echo(json.dumps(values) if as_json else text)


@app.command()
@one_line_errors()
def benchmark(
    name: Annotated[str, typer.Argument(help="Name of the benchmark.")],
    path: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, JSON lines or Parquet: sha256, phash.")
    ],
    licence: Annotated[str, typer.Option(help="Licence of the benchmark.")] = "unknown",
    as_json: JsonOption = False,
) -> None:
    """Register a benchmark by the hashes of its images: audits and builds look for overlaps."""
    _, database = _open()
    summary = register_benchmark(database, path, name=name, licence=licence)
    typer.echo(json.dumps(asdict(summary)) if as_json else summary.text())


@app.command()
@one_line_errors()
def hashes(source: Annotated[str, typer.Argument(help="Name of the collection.")]) -> None:
    """Print the hashes of a source's images as CSV, for others to register as a benchmark."""
    _, database = _open()
    for line in hash_list(database, source):
        typer.echo(line)


@app.command("normalise")
@one_line_errors()
def normalise_command(
    sources: Annotated[
        list[str], typer.Argument(metavar="SOURCE...", help="Sources of photographs and fakes.")
    ],
    into: Annotated[
        str | None, typer.Option(metavar="NAME", help="Default: <sources>-normalised.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Make a source of crops in which size, format and JPEG quality say nothing of the label."""
    settings, database = _open()
    made = _normalise(settings, database, sources, recipe, into=into)
    typer.echo(json.dumps(asdict(made)) if as_json else made.text())


def _normalise(
    settings: Settings,
    database: Database,
    sources: list[str],
    recipe: Path,
    *,
    into: str | None = None,
) -> NormaliseSummary:
    with counting("normalising") as report:
        return normalise_images(
            database,
            ImageStore(settings.image_store),
            load_recipe(recipe).settings.normalise,
            sources=sources,
            into=into,
            progress=report,
        )


@app.command()
@one_line_errors()
def audit(
    source: SourceOption = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: audit/ in the home folder.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Look for what tells real from fake without a look at the picture; write a page and JSON."""
    settings, database = _open()
    report = audit_images(database, source=source, settings=load_recipe(recipe).settings)
    page = write_audit(report, out or settings.fakescope_home / "audit")
    if as_json:
        typer.echo(audit_as_json(report), nl=False)
        return
    typer.echo("\n".join([*audit_as_text(report), f"page: {page}"]))


@app.command()
@one_line_errors()
def refused(
    source: Annotated[str, typer.Option(help="Name of the collection.")],
    as_json: JsonOption = False,
) -> None:
    """List the files that were not taken in, with the reason; one line each."""
    _, database = _open()
    with database.read() as session:
        for file in imported_files(session, source, ImportOutcome.REFUSED):
            line = {"name": file.name, "reason": file.reason}
            typer.echo(json.dumps(line) if as_json else f"{file.name}: {file.reason}")


@app.command()
@one_line_errors()
def provenance(
    image_id: Annotated[str | None, typer.Argument(help="Default: a summary by label.")] = None,
    as_json: JsonOption = False,
) -> None:
    """What the metadata of the users' files said of their origin; proof of nothing."""
    _, database = _open()
    if image_id is None:
        rows = summarise_provenance(database)
        typer.echo(json.dumps([asdict(r) for r in rows]) if as_json else provenance_table(rows))
        return
    with database.read() as session:
        if not images_by_id(session, [image_id]):
            raise ConfigError(f"there is no image {image_id!r} in the database")
        said = provenance_of(session, image_id)
    lines = [f"{name}: {printable(value)}" for name, value in said.items()]
    typer.echo(json.dumps(said) if as_json else "\n".join(lines or [NO_PROVENANCE]))


@app.command()
@one_line_errors()
def draft(
    source: SourceOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show calls and money; send nothing.")
    ] = False,
    batch: Annotated[
        bool,
        typer.Option(
            "--batch",
            help="Send files that are answered within a day, for less; run again to fetch.",
        ),
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="With --batch: until every batch has ended.")
    ] = False,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Ceiling in US dollars for this campaign.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Ask the teacher about every labelled image that has no draft yet."""
    settings, database = _open()
    chosen = configured_recipe(recipe, settings)
    store = ImageStore(settings.image_store)
    if wait and not batch:
        raise ConfigError("--wait goes with --batch: without it, `draft` waits in any case")
    campaign = prepare(
        database, store, chosen, source=source, limit=limit, budget_usd=budget, in_batches=batch
    )
    if plan:
        for item in campaign.plans:
            typer.echo(item.sentence())
        return
    check_ceiling(campaign, budget)
    if batch:
        _draft_in_batches(settings, database, chosen, campaign, wait=wait)
        return
    with drafting_bar() as report:
        end = run_campaign(settings, database, chosen, campaign, report=report)
    typer.echo(
        f"{campaign.images} labelled images: {end.done} drafted now, "
        f"{campaign.drafts - campaign.due} drafted before; "
        f"{end.quarantined} set aside in all"
    )
    if end.in_batches:
        typer.echo(f"{end.in_batches} wait for their batch: `draft --batch` fetches what is ready")


def _draft_in_batches(
    settings: Settings, database: Database, recipe: Recipe, campaign: Campaign, *, wait: bool
) -> None:
    campaign_id = campaign.campaign_id
    with open_batch_desk(settings, database, recipe, campaign_id, tell=typer.echo) as desk:
        if wait:
            with counting("answered in batches") as report:
                run = run_batches(desk, wait=True, report=report)
        else:
            run = run_batches(desk, wait=False)
    end = progress(database, campaign)
    waiting = f"{run.waiting} wait for their batch" if run.waiting else "none wait for a batch"
    typer.echo(
        f"{campaign.images} labelled images: {run.drafted} drafted now, {waiting}; "
        f"{end.quarantined} set aside in all"
    )
    if run.waiting:
        typer.echo("Run this again to fetch what is ready, or once with --wait.")


@app.command()
@one_line_errors()
def prompt(
    image_id: Annotated[str, typer.Argument(help="An image id: `img-` and 20 digits of its hash.")],
    arm: Annotated[
        str | None, typer.Option(help="One arm of the recipe; without it every arm.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Print exactly what would be sent for one image, as JSON by arm; pictures are shortened."""
    settings, database = _open()
    chosen = configured_recipe(recipe, settings)
    with database.read() as session:
        image = images_by_id(session, [image_id]).get(image_id)
    if image is None:
        raise ConfigError(f"there is no image {image_id!r} in the database")
    if image.label is None:
        raise ConfigError(f"image {image_id} has no label: only labelled images are drafted")
    data = ImageStore(settings.image_store).read(image.path)
    arms = chosen.arms if arm is None else (chosen.arm(arm),)
    requests = {}
    for each in arms:
        brief = briefs_for(database, chosen, each, [image])[image_id]
        try:
            brief.check()
        except DataError as error:
            requests[each.name] = {"not asked": str(error)}
        else:
            requests[each.name] = printed_request(brief.render(data))
    typer.echo(json.dumps(requests, indent=2, ensure_ascii=False))


@app.command("reparse")
@one_line_errors()
def reparse_command(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """Read the stored replies again with the present parser; sends nothing and costs nothing.

    Drafts that read differently now are superseded, unless experts have corrected them. Images that
    were set aside are rescued where one of their replies can be used now. Where an arm has merged
    drafts that were superseded since, its images are due again, for `draft`.
    """
    settings, database = _open()
    chosen = configured_recipe(recipe, settings)
    done = reparse(database, ImageStore(settings.image_store), chosen)
    _show(asdict(done), as_json=as_json)


@app.command()
@one_line_errors()
def compare(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """The arms of the recipe side by side: replies, drafts, traces, tokens."""
    settings, database = _open()
    figures = compare_arms(database, configured_recipe(recipe, settings))
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in figures]))
        return
    typer.echo("\n".join(compared_as_text(figures)))


@app.command("forget")
@one_line_errors()
def forget_command(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """Have teachers delete the files of batches that ask about withdrawn images."""
    settings, database = _open()
    chosen = configured_recipe(recipe, settings)
    tell = partial(typer.echo, err=as_json)
    with open_batch_desk(settings, database, chosen, campaign_id_of(chosen), tell=tell) as desk:
        done = forget(desk)
    if as_json:
        typer.echo(json.dumps(done._asdict()))
        return
    again = "; run this again when they have ended" if done.under_way else ""
    typer.echo(f"{done.deleted} batches deleted, {done.under_way} still under way{again}")


@app.command("give-up")
@one_line_errors()
def give_up_command(
    batch_id: Annotated[str, typer.Argument(help="As `status` and `draft --batch` name it.")],
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Give up a batch that its teacher does not know any more: its images are due again.

    It may have been paid: what was set aside for it stays set aside.
    """
    settings, database = _open()
    chosen = configured_recipe(recipe, settings)
    campaign_id = campaign_id_of(chosen)
    with open_batch_desk(settings, database, chosen, campaign_id, tell=typer.echo) as desk:
        batch = give_up_lost(desk, batch_id)
    typer.echo(f"{batch.batch_id}: given up; its {batch.num_lines:,} images are due again")


@app.command("control")
@one_line_errors()
def control_command(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """What the teachers invent: findings about photographs whose label they were not told."""
    settings, database = _open()
    controls = measure_controls(database, configured_recipe(recipe, settings))
    if as_json:
        typer.echo(json.dumps([asdict(control) for control in controls]))
        return
    typer.echo("\n".join(line for control in controls for line in control_as_text(control)))


@app.command()
@one_line_errors()
def status(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """Where every image stands."""
    settings, database = _open()
    campaign_id = campaign_id_of(configured_recipe(recipe, settings))
    with database.read() as session:
        _show(asdict(read_status(session, campaign_id)), as_json=as_json)


@app.command()
@one_line_errors()
def costs(recipe: RecipeOption = DEFAULT_RECIPE, as_json: JsonOption = False) -> None:
    """What the campaign has spent and set aside, by arm and day, and what it will have cost."""
    settings, database = _open()
    chosen = configured_recipe(recipe, settings)
    with database.read() as session:
        found = read_costs(
            session,
            campaign_id_of(chosen),
            chosen.arms,
            now=datetime.now(UTC),
            usd_per_day=settings.usd_per_day,
        )
    typer.echo(json.dumps(asdict(found)) if as_json else "\n".join(costs_as_text(found)))


@app.command()
@one_line_errors()
def rehearse(
    recipe: RecipeOption = DEFAULT_RECIPE,
    log: Annotated[Path | None, typer.Option(help="Log of requests, JSON lines.")] = None,
) -> None:
    """Run the rehearsal teacher until Ctrl-C. It measures pixels; it is no language model."""
    with start_rehearsal(recipe, log=log) as address:
        typer.echo(f"rehearsal teacher at {address} (simulated); stop with Ctrl-C")
        signal.pause()


def _open() -> tuple[Settings, Database]:
    settings = load_settings()
    return settings, open_database(settings)


def _show(values: Mapping[str, object], *, as_json: bool) -> None:
    typer.echo(json.dumps(values) if as_json else "\n".join(_lines(values)))


def _lines(values: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """One line per figure, those inside others with the name of the whole before them."""
    for name, value in values.items():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, dict):
            yield from _lines(value, f"{label}, ")
        else:
            yield f"{label}: {'none' if value is None else value}"


if __name__ == "__main__":
    app()
