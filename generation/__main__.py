"""`python -m generation`: images in, teacher drafts out."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from core.command_line import one_line_errors
from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE, configured_recipe, load_recipe
from core.records import Authenticity, Source
from core.settings import Settings, load_settings
from db.engine import Database, open_database
from db.images import images_by_id
from db.reports import costs as read_costs
from db.reports import status as read_status
from db.work import campaign_id_of
from generation.audit import as_json as audit_as_json
from generation.audit import as_text as audit_as_text
from generation.audit import audit as audit_images
from generation.audit import write_audit
from generation.campaign import check_ceiling, prepare
from generation.console import counting, drafting_bar
from generation.ingest import ingest as ingest_folder
from generation.prompt import render_request
from imaging.layouts import NAMES
from imaging.store import ImageStore
from teacher.rehearsal import start_rehearsal
from teacher.request import payload_of
from workers.drafting import run_campaign

app = typer.Typer(
    help="Images in, teacher drafts out.", no_args_is_help=True, pretty_exceptions_enable=False
)

RecipeOption = Annotated[Path, typer.Option("--recipe", help="Recipe folder.")]
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
    evaluation_only: Annotated[
        bool, typer.Option("--evaluation-only", help="Never build training data from it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check, hash and store images. Doing it again adds nothing."""
    settings, database = _open()
    with counting("ingesting") as report:
        summary = ingest_folder(
            database,
            ImageStore(settings.image_store),
            path,
            source=Source(name=source, licence=licence, may_train=not evaluation_only),
            layout=layout,
            label=label,
            generator=generator,
            progress=report,
        )
    typer.echo(json.dumps(asdict(summary)) if as_json else summary.text())


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
    report = audit_images(
        database,
        ImageStore(settings.image_store),
        source=source,
        threshold=load_recipe(recipe).settings.audit.metadata_auc,
    )
    page = write_audit(report, out or settings.fakescope_home / "audit")
    if as_json:
        typer.echo(audit_as_json(report), nl=False)
        return
    typer.echo("\n".join([*audit_as_text(report), f"page: {page}"]))


@app.command()
@one_line_errors()
def draft(
    source: SourceOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images.")] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show calls and money; send nothing.")
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
    campaign = prepare(database, store, chosen, source=source, limit=limit, budget_usd=budget)
    if plan:
        for item in campaign.plans:
            typer.echo(item.sentence())
        return
    check_ceiling(campaign, budget)
    with drafting_bar() as report:
        end = run_campaign(settings, database, chosen, campaign, report=report)
    typer.echo(
        f"{campaign.images} labelled images: {end.done} drafted now, "
        f"{campaign.images * len(chosen.arms) - campaign.due} drafted before; "
        f"{end.quarantined} set aside in all"
    )


@app.command()
@one_line_errors()
def prompt(
    image_id: Annotated[str, typer.Argument(help="An image id: `img-` and 20 digits of its hash.")],
    arm: Annotated[str | None, typer.Option(help="Arm of the recipe.")] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
) -> None:
    """Print exactly what would be sent for one image; the image bytes are shortened."""
    settings, database = _open()
    chosen = configured_recipe(recipe, settings)
    with database.read() as session:
        image = images_by_id(session, [image_id]).get(image_id)
    if image is None:
        raise ConfigError(f"there is no image {image_id!r} in the database")
    request = render_request(
        image,
        ImageStore(settings.image_store).read(image.path),
        recipe=chosen,
        arm=chosen.arm(arm or chosen.settings.drafting.chain_arm),
    )
    typer.echo(json.dumps(_without_bytes(payload_of(request)), indent=2, ensure_ascii=False))


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
    """What the campaign has spent and set aside."""
    settings, database = _open()
    campaign_id = campaign_id_of(configured_recipe(recipe, settings))
    with database.read() as session:
        _show(asdict(read_costs(session, campaign_id)), as_json=as_json)


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


def _without_bytes(payload: object) -> object:
    """The same payload with data URLs shortened."""
    if isinstance(payload, dict):
        return {key: _without_bytes(value) for key, value in payload.items()}
    if isinstance(payload, list):
        return [_without_bytes(value) for value in payload]
    if isinstance(payload, str) and payload.startswith("data:"):
        return f"{payload[:40]}... ({len(payload)} characters)"
    return payload


if __name__ == "__main__":
    app()
