"""`python -m instruct_builder`: chains in, a verified shard set out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.command_line import RecipeOption, one_line_errors
from core.errors import ConfigError
from core.printable import printable
from core.recipe import DEFAULT_RECIPE, configured_recipe
from core.records import ReviewLevel
from core.settings import Settings, load_settings
from db.engine import Database, open_database
from imaging.crew import usable_cores
from imaging.store import ImageStore
from instruct_builder.addresses import folder_at, made_at, shown
from instruct_builder.build import BuildSummary, build
from instruct_builder.difference import as_text as difference_as_text
from instruct_builder.difference import compare
from instruct_builder.export import Format, export_to
from instruct_builder.inspection import (
    draw_rows,
    read_aloud_in_full,
    readable_counts,
    readable_samples,
)
from instruct_builder.lineage import as_text as trace_as_text
from instruct_builder.lineage import as_values, trace
from instruct_builder.making import Making, Report
from instruct_builder.manifest import MANIFEST, warnings_of
from instruct_builder.memory import do_without_pandas
from instruct_builder.plots import write_plots
from instruct_builder.rewordings import REWORDINGS
from instruct_builder.rewrite import rewrite
from instruct_builder.shards import ShardSet, verify
from instruct_builder.staging import Staging
from instruct_builder.takedown import as_text as takedown_as_text
from instruct_builder.takedown import take_down

UPLOADS = "uploads"
"""folder below the home: sets whose place is elsewhere, made and amended here first"""

app = typer.Typer(
    help="Chains in, a verified shard set out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Place = Annotated[
    str, typer.Argument(metavar="DIR", help="Folder of a shard set, or its address: s3://...")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("build")
@one_line_errors()
def build_command(
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Folder for the shard set, or its address: s3://...")
    ],
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
    rows: Annotated[
        int | None,
        typer.Option(min=1, help="So many instructions; default: what the recipe says."),
    ] = None,
    rewordings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Table of `rewrite`: say it in other words.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; default: one for each core.")
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option("--cluster", help="Let the workers of CELERY_BROKER_URL make the shards."),
    ] = False,
    check_all: Annotated[
        bool, typer.Option("--check-all", help="Check the words of every row, not of a sample.")
    ] = False,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Build a shard set from the reviewed chains; one that is there already is left as it is."""
    settings = load_settings()
    work = settings.fakescope_home / UPLOADS
    with _counting("building") as report, made_at(out, work, last=MANIFEST) as folder:
        summary = build(
            open_database(settings),
            configured_recipe(recipe, settings),
            ImageStore(settings.image_store),
            folder,
            min_review=min_review,
            seed=seed,
            source=source,
            release=release,
            accept_shortcuts=accept_shortcuts,
            accept_overlaps=accept_overlaps,
            rows=rows,
            rewordings=rewordings,
            making=Making(
                workers=workers or usable_cores(),
                hand_out=_cluster(settings) if cluster else None,
                check_all=check_all,
                report=report,
            ),
        )
    typer.echo(_as_json(summary, shown(out)) if as_json else _as_text(summary, shown(out)))


@app.command()
@one_line_errors()
def inspect(
    place: Place,
    sample: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="So many drawn; default: one of each family."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Decides which are drawn.")] = 1,
    plots: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the distributions as a page of HTML.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show counts, and instructions as a person would read them."""
    with folder_at(place) as folder:
        _inspect(ShardSet.open(folder), sample, seed, plots, as_json=as_json)


def _inspect(
    shards: ShardSet, sample: int | None, seed: int, plots: Path | None, *, as_json: bool
) -> None:
    if plots is not None:
        write_plots(shards, plots)
    drawn = [] if sample is None else draw_rows(shards, sample, seed=seed)
    if as_json:
        manifest = shards.manifest.model_dump(mode="json")
        typer.echo(json.dumps(manifest if sample is None else {"rows": drawn}, indent=2))
        return
    read = (
        readable_samples(shards) if sample is None else "\n\n".join(map(read_aloud_in_full, drawn))
    )
    typer.echo(f"{readable_counts(shards)}\n\n{read}")
    if plots is not None:
        typer.echo(f"\ndistributions: {plots}")


@app.command("verify")
@one_line_errors()
def verify_command(place: Place, as_json: JsonOption = False) -> None:
    """Recompute every checksum and every count of the manifest."""
    with folder_at(place) as folder:
        problems = verify(folder)
    if as_json:
        typer.echo(json.dumps({"folder": shown(place), "problems": problems}))
    else:
        right = f"{shown(place)}: every checksum and every count is right"
        typer.echo("\n".join(map(printable, problems)) or right)
    raise SystemExit(1 if problems else 0)


@app.command("rewrite")
@one_line_errors()
def rewrite_command(
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Table of rewordings; default: in the home folder."),
    ] = None,
    min_review: Annotated[
        ReviewLevel | None, typer.Option(help="Least review level; default: the recipe's.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Only this source; default: all but the demo.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many chains.")] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Ceiling in US dollars for a paid teacher.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    as_json: JsonOption = False,
) -> None:
    """Have a text model say what chains say in other words, for `build --rewordings`."""
    settings = load_settings()
    with _counting("rewording") as report:
        summary = rewrite(
            open_database(settings),
            configured_recipe(recipe, settings),
            settings,
            out or settings.fakescope_home / REWORDINGS,
            min_review=min_review,
            source=source,
            limit=limit,
            budget_usd=budget,
            report=report,
        )
    typer.echo(summary.as_json() if as_json else summary.as_text())


@app.command("export")
@one_line_errors()
def export_command(
    place: Place,
    format: Annotated[Format, typer.Option(help="For which trainer.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="Folder or address for the export.")],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Image store; default: this project's.")
    ] = None,
    with_images: Annotated[
        bool, typer.Option("--with-images", help="Put copies of the images beside the records.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Write a shard set as another trainer reads it."""
    with folder_at(place) as folder:
        done = export_to(
            ShardSet.open(folder),
            out,
            format=format,
            store=ImageStore(images or load_settings().image_store),
            with_images=with_images,
        )
    if as_json:
        typer.echo(json.dumps(done, default=_for_json))
        return
    state = "was there already, nothing to do" if done.unchanged else "written"
    typer.echo(f"{done.place}: {state}: {done.rows:,} instructions on {done.images:,} images")
    for reason, rows in done.left_out.items():
        typer.echo(printable(f"left out: {rows:,} {reason}"))


@app.command("diff")
@one_line_errors()
def diff_command(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Folder or address of a set.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same of a later one.")],
    as_json: JsonOption = False,
) -> None:
    """Rows that were changed, removed and added between two shard sets, and why."""
    with folder_at(old) as earlier, folder_at(new) as later:
        found = compare(earlier, later)
    typer.echo(json.dumps(asdict(found)) if as_json else "\n".join(difference_as_text(found)))


@app.command("trace")
@one_line_errors()
def trace_command(
    instruction_id: Annotated[str, typer.Argument(help="`ins-` and 20 digits, as in the rows.")],
    shards: Annotated[
        str, typer.Option(metavar="DIR", help="The shard set that holds it, or its address.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Follow an instruction back to pattern, chain, corrections, draft, call and image file."""
    settings = load_settings()
    store = ImageStore(settings.image_store)
    with folder_at(shards) as folder:
        found = trace(
            instruction_id, folder, _present_database(settings), store, place=shown(shards)
        )
    if as_json:
        typer.echo(json.dumps(as_values(found), default=_for_json))
        return
    typer.echo("\n".join(trace_as_text(found)))


def _present_database(settings: Settings) -> Database | ConfigError:
    """The database as it is, or why there is none: nothing is made or migrated to look at it."""
    try:
        return open_database(settings, migrate=False)
    except ConfigError as error:
        return error


def _for_json(value: object) -> object:
    """Records as objects, all else as text."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


@app.command("takedown")
@one_line_errors()
def takedown_command(
    image_id: Annotated[str, typer.Argument(help="An image id: `img-` and 20 digits of its hash.")],
    reason: Annotated[
        str, typer.Option(help="Why; stored with the tombstone, shown to who ingests it again.")
    ] = "no reason was given",
    shards: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR", help="A shard set, or its address; may be repeated."),
    ] = None,
    runs: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Run folders, or a folder of them; may be repeated."),
    ] = None,
    rewordings: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Tables of `rewrite`; default: that of the home folder."),
    ] = None,
    features: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Where training keeps vision features; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Withdraw an image everywhere within reach, for good, and say what remains where."""
    settings = load_settings()
    table = settings.fakescope_home / REWORDINGS
    done = take_down(
        open_database(settings),
        ImageStore(settings.image_store),
        image_id,
        reason=reason,
        now=datetime.now(UTC),
        shards=shards or [],
        work=settings.fakescope_home / UPLOADS,
        runs=runs or [],
        rewordings=rewordings or [path for path in (table,) if path.is_file()],
        features=features or [],
    )
    typer.echo(
        json.dumps(done, default=_for_json) if as_json else "\n".join(takedown_as_text(done))
    )
    raise SystemExit(0 if done.is_done else 1)


def _cluster(settings: Settings) -> Callable[[Staging, Callable[[], None]], None]:
    """Hand shards out through the configured broker."""
    if settings.celery_broker_url is None:
        raise ConfigError("--cluster needs a broker: name a Redis or RabbitMQ in CELERY_BROKER_URL")
    from workers.app import make_app

    make_app(settings).set_default()
    from instruct_builder.tasks import hand_out

    return hand_out


def _as_json(summary: BuildSummary, place: str) -> str:
    values = {
        "folder": place,
        "unchanged": summary.unchanged,
        "rows": summary.manifest.rows,
        "images": summary.manifest.images,
        "chains": summary.manifest.chains,
        "counts": summary.manifest.counts,
        "left_out": summary.manifest.left_out,
        "statement": summary.manifest.statement,
        "warnings": warnings_of(summary.manifest),
        "seconds": {part: round(spent.seconds, 2) for part, spent in summary.spent.items()},
    }
    return json.dumps(values)


def _as_text(summary: BuildSummary, place: str) -> str:
    shards = ShardSet(summary.folder, summary.manifest)
    spent = ", ".join(f"{part} {spent.seconds:.1f} s" for part, spent in summary.spent.items())
    done = "was there already, nothing to do" if summary.unchanged else f"built ({spent})"
    return f"{place}: {done}\n{readable_counts(shards)}"


@contextmanager
def _counting(what: str) -> Iterator[Report]:
    """A bar on a terminal, silence in a log."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


if __name__ == "__main__":
    do_without_pandas()
    app()
