"""The main job, `make build-instruct`: images in, FakeInstruct shards out.

The composition root: the one place that knows generation, annotation and instruct_builder alike.
Every step does what is missing and nothing twice, so the whole may be killed and run again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer

from annotation.chains import ChainSummary, chain_drafts
from core.command_line import RecipeOption, one_line_errors
from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE, Recipe, configured_recipe
from core.records import Authenticity, ReviewLevel, Source, Split
from core.settings import Settings, load_settings
from core.sources import DEMO, choose_sources
from core.split import split_components
from db.chains import count_chains
from db.engine import Database, open_database
from db.images import count_images, source_names, total_files
from db.reports import Status, status
from db.work import campaign_id_of
from generation.campaign import Campaign, Progress, check_ceiling, prepare
from generation.console import Report, counting, drafting_bar
from generation.ingest import EncodedImage, ingest, ingest_encoded
from generation.normalise import normalise as normalise_images
from imaging.crew import usable_cores
from imaging.photographs import LICENCES, photographs
from imaging.simulate import DemoImage, count_demo_images, demo_images
from imaging.store import ImageStore
from instruct_builder.build import BuildSummary, build
from instruct_builder.inspection import readable_samples
from instruct_builder.making import Making
from instruct_builder.manifest import warnings_of
from instruct_builder.shards import ShardSet
from workers.drafting import run_campaign

THREE_WAYS = """no labelled image to work on. Three ways to label images:
  1. a folder with real/ and fake/<generator>/ in it
  2. a folder with manifest.csv in it (columns path, label, generator)
  3. any folder, with LABEL=real or LABEL=fake
then: make build-instruct IMAGES=<folder> SOURCE=<name>"""

NOBODY_LOOKED = (
    "warning: no expert has looked at any of these images, so their drafts were taken as they are; "
    "review them with `make annotate`, then run this again"
)
NEXT = """What next
  make train         train and validate a small FakeScope on these shards (minutes, no GPU)
  make annotate      experts check the drafts in Label Studio: docs/howto/label-studio.md
  your own images    docs/howto/own-images.md
  a real teacher     docs/howto/real-teacher.md
  training           docs/howto/training.md"""


@dataclass(frozen=True, kw_only=True)
class Collection:
    """A folder of images to take in, as the user describes it."""

    folder: Path
    source: Source
    label: Authenticity | None
    generator: str | None


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where the main job works."""

    settings: Settings
    recipe: Recipe
    database: Database
    store: ImageStore


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the steps did, and how many seconds each took."""

    status: Status
    campaign: Campaign
    drafted: Progress
    chains: ChainSummary
    built: BuildSummary
    nobody_looked: bool
    """no expert has reviewed an image of the user's, so drafts were taken as they are"""
    seconds: dict[str, float]

    @property
    def did_nothing(self) -> bool:
        return not self.campaign.due and not self.chains.new_chains and self.built.unchanged


@dataclass(frozen=True)
class Clock:
    """Seconds by step."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
@one_line_errors()
def main(  # noqa: PLR0913, PLR0917 - the options of the command
    images: Annotated[Path | None, typer.Option(help="Folder of images to take in first.")] = None,
    source: Annotated[
        str | None, typer.Option(help="Name of the collection; default: all but the demo.")
    ] = None,
    label: Annotated[Authenticity | None, typer.Option(help="Label of every image.")] = None,
    generator: Annotated[str | None, typer.Option(help="Generator of every image.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the collection.")] = "unknown",
    normalise: Annotated[
        bool, typer.Option("--normalise", help="Work on crops in which metadata tells no label.")
    ] = False,
    min_review: Annotated[
        ReviewLevel | None,
        typer.Option(
            help="Least review level; default: the recipe's, or `draft` where no expert looked."
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=0, help="Ceiling in US dollars for a paid teacher.")
    ] = None,
    recipe: RecipeOption = DEFAULT_RECIPE,
    out: Annotated[Path | None, typer.Option(help="Folder of the shards.")] = None,
) -> None:
    """Images in, FakeInstruct shards out; does what is missing and nothing twice."""
    settings = load_settings()
    desk = Desk(
        settings=settings,
        recipe=configured_recipe(recipe, settings),
        database=open_database(settings),
        store=ImageStore(settings.image_store),
    )
    clock = Clock()
    with clock.step("images"):
        if images is not None:
            origin = Source(name=_name_of(images, source), licence=licence)
            _take_in(
                desk, Collection(folder=images, source=origin, label=label, generator=generator)
            )
        if normalise:
            source = _normalise(desk, source)
        _fill_demo(desk)
        sources = _chosen_sources(desk, source)
    with clock.step("drafts"):
        campaign, drafted = _draft(desk, source, budget)
    with clock.step("chains"):
        chains = chain_drafts(desk.database, desk.recipe)
        nobody_looked = min_review is None and not _reviewed(desk, sources)
    with clock.step("shards"), counting("building") as report:
        built = build(
            desk.database,
            desk.recipe,
            desk.store,
            out or settings.fakescope_home / "fakeinstruct",
            min_review=ReviewLevel.DRAFT if nobody_looked else min_review,
            source=source,
            making=Making(report=report, workers=usable_cores()),
        )
    with desk.database.read() as session:
        where = status(session, campaign.campaign_id)
    outcome = Outcome(
        status=where,
        campaign=campaign,
        drafted=drafted,
        chains=chains,
        built=built,
        nobody_looked=nobody_looked and sources != [DEMO],
        seconds=clock.seconds,
    )
    typer.echo("\n".join(_summary(outcome)))


def _name_of(folder: Path, source: str | None) -> str:
    if source is None or source == DEMO:
        raise ConfigError(f"name the collection in {folder}: SOURCE=<name>, any name but {DEMO!r}")
    return source


def _take_in(desk: Desk, collection: Collection) -> None:
    with counting("taking images in") as report:
        summary = ingest(
            desk.database,
            desk.store,
            collection.folder,
            source=collection.source,
            label=collection.label,
            generator=collection.generator,
            progress=report,
        )
    typer.echo(summary.text())


def _normalise(desk: Desk, source: str | None) -> str:
    """Crop and encode both labels of a source alike; returns the source that this makes."""
    if source is None:
        raise ConfigError("name the collection to normalise: SOURCE=<name>")
    with counting("normalising") as report:
        made = normalise_images(
            desk.database,
            desk.store,
            desk.recipe.settings.normalise,
            sources=[source],
            progress=report,
        )
    typer.echo(made.text())
    return made.into


def _fill_demo(desk: Desk) -> None:
    """Fill an empty default database with the demo, or finish a demo that was cut short."""
    demo, split = desk.recipe.settings.demo, desk.recipe.settings.split.plan()
    with desk.database.read() as session:
        has_others = bool(set(source_names(session)) - {DEMO})
        is_filled = total_files(session, DEMO) >= count_demo_images(demo.crops)
    if has_others or is_filled or not desk.settings.has_default_database:
        return
    part_of = split_components([photograph.name for photograph in photographs()], split)
    images = demo_images(
        seed=demo.seed,
        crops=demo.crops,
        crop_size=demo.crop_size,
        generators=demo.generators,
        jpeg_quality=demo.jpeg_quality,
        holdout=split.holdout_generators,
        test_photographs=frozenset(n for n, part in part_of.items() if part is Split.TEST),
    )
    origin = Source(name=DEMO, licence=LICENCES)
    with counting("making the demo's images") as report:
        encoded = _encoded(images, report, total=count_demo_images(demo.crops))
        ingest_encoded(desk.database, desk.store, encoded, source=origin)


def _encoded(images: Iterable[DemoImage], report: Report, *, total: int) -> Iterator[EncodedImage]:
    for done, image in enumerate(images, start=1):
        yield EncodedImage(
            name=image.name,
            data=image.data,
            label=image.label,
            generator=image.generator,
            group=image.group,
        )
        report(done, total)


def _chosen_sources(desk: Desk, source: str | None) -> list[str]:
    """The sources that will be drafted and built; stops when nothing is labelled."""
    with desk.database.read() as session:
        labelled = count_images(session).labelled
        names = source_names(session)
    if not labelled:
        raise ConfigError(THREE_WAYS)
    return list(choose_sources(names, source))


def _reviewed(desk: Desk, sources: Sequence[str]) -> int:
    """How many chains experts have reviewed; of the demo none counts unless that is asked for."""
    if list(sources) == [DEMO]:
        return 0
    with desk.database.read() as session:
        return count_chains(
            session,
            campaign_id=campaign_id_of(desk.recipe),
            arms=desk.recipe.settings.drafting.chain_arms,
            min_review=ReviewLevel.EXPERT,
            sources=sources,
        )


def _draft(desk: Desk, source: str | None, budget: float | None) -> tuple[Campaign, Progress]:
    campaign = prepare(desk.database, desk.store, desk.recipe, source=source, budget_usd=budget)
    check_ceiling(campaign, budget)
    if campaign.leaves_machine and campaign.due:
        typer.echo("\n".join(plan.sentence() for plan in campaign.plans))
    with drafting_bar() as report:
        return campaign, run_campaign(
            desk.settings, desk.database, desk.recipe, campaign, report=report
        )


def _summary(outcome: Outcome) -> Iterator[str]:
    """What a newcomer wants to know, line by line."""
    folder = outcome.built.folder
    if outcome.did_nothing:
        yield "nothing to do: every image is drafted and chained, and the shards are up to date"
    yield ""
    yield from (f"  {name:<13}{text}" for name, text in _rows(outcome))
    yield ""
    yield f"{outcome.built.manifest.statement}"
    if outcome.nobody_looked:
        yield NOBODY_LOOKED
    yield from (f"warning: {warning}" for warning in warnings_of(outcome.built.manifest))
    yield ""
    yield "One instruction of each family, as a person would read it"
    yield ""
    yield readable_samples(ShardSet.open(folder))
    yield ""
    yield NEXT


def _rows(outcome: Outcome) -> Iterator[tuple[str, str]]:
    where, manifest = outcome.status, outcome.built.manifest
    images, drafts = where.images, sum(where.drafts.values())
    by_label = ", ".join(f"{count:,} {label}" for label, count in images.by_label.items())
    levels = ", ".join(f"{count:,} {level}" for level, count in where.chains.items())
    families = ", ".join(f"{name} {n:,}" for name, n in manifest.counts["family"].items())
    teachers = ", ".join(
        f"{teacher.name} (simulated)" if teacher.simulated else teacher.name
        for teacher in manifest.teachers
    )
    yield "images", f"{images.total:,} ({by_label})"
    yield "drafts", f"{drafts:,} ({outcome.drafted.done:,} asked for now), from {teachers}"
    yield "", f"{where.fakes_without_trace:,} fakes with no trace"
    yield "", f"{where.photographs_with_trace:,} photographs with a trace"
    yield "", f"{outcome.drafted.quarantined:,} images set aside"
    yield "chains", f"{sum(where.chains.values()):,} by review level: {levels}"
    yield "instructions", f"{manifest.rows:,}: {families}"
    yield "seconds", ", ".join(f"{step} {s:.1f}" for step, s in outcome.seconds.items())
    yield "shards", f"{outcome.built.folder}"
    yield "preview", f"{outcome.built.folder / 'preview.html'}"


if __name__ == "__main__":
    app()
