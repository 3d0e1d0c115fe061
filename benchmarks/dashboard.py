"""python -m benchmarks.dashboard [--images 100000] [--database-url URL] [--json]

Seconds that the queries of each page of the dashboard take, every one asked for the first time, on
a seeded database and a shard set. Ends with 1 when a page needs more than two seconds. What the
figures on experts are counted from grows with the reviewed drafts alone (`--reviewed`).
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import sklearn.metrics  # noqa: F401 - a page pays for the import once in a server's life
import typer

from benchmarks.seeded_installation import Size, fill_database, make_images, write_set
from core.recipe import Recipe, load_recipe
from core.settings import Settings, load_settings
from dashboard import sets
from db.browse import (
    DraftFilter,
    Fault,
    ImageFilter,
    categories,
    clusters_page,
    count_clusters,
    count_wanted,
    draft_details,
    first_drafts,
    images_page,
    metadata_counts,
    values_of_images,
)
from db.engine import Database, connect, open_database
from db.engine import database_url as address_of
from db.images import count_images
from db.lineage import lineage
from db.progress import (
    arm_names,
    campaigns,
    count_held_up,
    funnel,
    held_up_images,
    pace,
    set_aside_images,
)
from db.provenance import count_provenance
from db.quality import answers_so_far, measure_experts, measure_quality
from db.reports import costs, invented_traces
from db.schema import known_revisions, upgrade
from db.studio_tasks import flagged_work
from db.work import count_quarantined, stopped_because, work_counts

MOST_SECONDS = 2.0
"""of all queries of one page"""

Query = Callable[[], Any]

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
def main(
    images: Annotated[int, typer.Option(min=100, help="Images, each with a draft.")] = 100_000,
    rows_per_image: Annotated[int, typer.Option(min=1, help="Instructions on each.")] = 20,
    reviewed: Annotated[int, typer.Option(min=0, help="Drafts that two experts corrected.")] = 1000,
    database_url: Annotated[
        str | None, typer.Option(help="An empty database; default: a new SQLite file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Seed, ask what each page asks, and say how long it took."""
    size = Size(images=images, reviewed=min(reviewed, images), rows_per_image=rows_per_image)
    with tempfile.TemporaryDirectory(prefix="fakescope-dashboard-") as name:
        home = Path(name)
        with opened(home, database_url) as (database, settings):
            figures = measure(database, settings, size)
        seconds = {page: round(sum(found.values()), 3) for page, found in figures.items()}
    if as_json:
        print(json.dumps({"pages": seconds, "queries": figures}))
    else:
        print("\n".join(as_text(figures, seconds)))
    if max(seconds.values()) > MOST_SECONDS:
        sys.exit(1)


@contextmanager
def opened(home: Path, database_url: str | None) -> Iterator[tuple[Database, Settings]]:
    """The database to seed."""
    settings = load_settings(fakescope_home=home, database_url=database_url)
    if database_url is not None:
        upgrade(*connect(address_of(settings)), known_revisions()[-1])
    database = open_database(settings)
    database.map_file()  # as the dashboard does
    yield database, settings
    database.dispose()


def measure(database: Database, settings: Settings, size: Size) -> dict[str, dict[str, float]]:
    """Seconds by page and query."""
    recipe = load_recipe()
    seeded = make_images(size.images)
    campaign_id = fill_database(database, recipe, seeded, size)
    if database.dialect == "postgresql":
        tidy(settings)
    folder = settings.fakescope_home / "fakeinstruct"
    write_set(folder, seeded, size)
    pages = {
        **_database_pages(database, recipe, campaign_id),
        **_expert_pages(database, recipe, campaign_id),
        "FakeInstruct": _set_queries(database, folder, size),
    }
    return {
        page: {name: _seconds(query) for name, query in queries.items()}
        for page, queries in pages.items()
    }


def tidy(settings: Settings) -> None:
    """What PostgreSQL's autovacuum does within minutes of so many new rows."""
    engine, _ = connect(address_of(settings))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()


def _database_pages(
    database: Database, recipe: Recipe, campaign_id: str
) -> dict[str, dict[str, Query]]:
    ask = partial(_ask, database)
    now = datetime.now(UTC)
    everything, some = ImageFilter(), ImageFilter(source="collection-b", label="fake")
    drafts = DraftFilter(campaign_id=campaign_id)
    deep = partial(ask, images_page, everything, limit=24, offset=90_000)
    return {
        "Progress": {
            "campaigns": partial(ask, campaigns),
            "images": partial(ask, count_images),
            "work": partial(ask, work_counts, campaign_id),
            "reasons": partial(ask, count_quarantined, campaign_id),
            "stopped": partial(ask, stopped_because, campaign_id),
            "funnel": partial(ask, funnel, campaign_id),
            "count of held up": partial(ask, count_held_up, campaign_id, now=now),
            "held up": partial(ask, held_up_images, campaign_id, now=now, limit=12),
            "pace": partial(ask, pace, campaign_id, now=now, minutes=15),
            "costs": partial(ask, costs, campaign_id, recipe.arms, now=now),
            "set aside": partial(ask, set_aside_images, campaign_id, None, limit=12),
        },
        "Images: gallery": {
            "choices": partial(ask, values_of_images),
            "count": partial(ask, count_wanted, some),
            "first page": partial(ask, images_page, some, limit=24),
            "last page": deep,
        },
        "Images: near-duplicates": {
            "choices": partial(ask, values_of_images),
            "count": partial(ask, count_clusters, everything, mixed=True),
            "page": partial(ask, clusters_page, everything, mixed=True, limit=8),
        },
        "Images: shortcuts": {
            "choices": partial(ask, values_of_images),
            "counts": partial(ask, metadata_counts, everything),
        },
        "Images: provenance": {"names": partial(ask, count_provenance)},
        "Drafts": _draft_queries(ask, drafts),
        **{
            f"Drafts: {fault}": _draft_queries(
                ask, DraftFilter(campaign_id=campaign_id, fault=fault)
            )
            for fault in Fault
        },
    }


def _draft_queries(ask: Callable[..., Any], wanted: DraftFilter) -> dict[str, Query]:
    return {
        "choices": partial(ask, values_of_images),
        "categories": partial(ask, categories),
        "arms": partial(ask, arm_names, wanted.campaign_id),
        "count and first page": partial(ask, first_drafts, wanted, limit=12),
        "one draft": partial(ask, draft_details, "draft-00000007"),
    }


def _expert_pages(
    database: Database, recipe: Recipe, campaign_id: str
) -> dict[str, dict[str, Query]]:
    ask = partial(_ask, database)
    return {
        "Experts": {
            "answers": partial(ask, answers_so_far),
            "reviews": partial(measure_experts, database, recipe),
            "flagged": partial(ask, flagged_work, campaign_id, limit=500),
        },
        "Teachers and cost": {
            "costs": partial(ask, costs, campaign_id, recipe.arms, now=datetime.now(UTC)),
            "quality": partial(measure_quality, database, recipe),
            "invented": partial(ask, invented_traces, campaign_id),
        },
    }


def _set_queries(database: Database, folder: Path, size: Size) -> dict[str, Query]:
    shards = sets.opened(folder)
    wanted = sets.RowFilter((("label", "fake"), ("family", "discussion")))
    last = size.images * size.rows_per_image - 4
    row = f"ins-{size.images - 1:08}-00"
    return {
        "open": partial(sets.opened, folder),
        "counts": partial(sets.count_by, shards),
        "first page": partial(sets.page_of_rows, shards, wanted, limit=4, offset=0),
        "last page": partial(
            sets.page_of_rows, shards, sets.RowFilter(), limit=4, offset=max(0, last)
        ),
        "one row": partial(sets.find_row, shards, row),
        "lineage": partial(_ask, database, lineage, f"chain-{7:08}", make_images(8)[7].image_id),
        "difference": partial(sets.difference, shards, shards),
    }


def _ask(database: Database, query: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    with database.read() as session:
        return query(session, *arguments, **options)


def _seconds(query: Query) -> float:
    started = time.perf_counter()
    query()
    return round(time.perf_counter() - started, 4)


def as_text(figures: dict[str, dict[str, float]], seconds: dict[str, float]) -> Iterator[str]:
    """A line per page, with its slowest queries."""
    for page, total in seconds.items():
        slowest = sorted(figures[page].items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{name} {spent:.2f}" for name, spent in slowest)
        mark = " TOO SLOW" if total > MOST_SECONDS else ""
        yield f"{page:<48} {total:6.2f} s{mark}  ({shown})"


if __name__ == "__main__":
    app()
