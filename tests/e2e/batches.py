"""Drafting in batches against a rehearsal teacher of the test's own, whose log tells the truth."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from core.recipe import DEFAULT_RECIPE, Recipe, configured_recipe
from core.records import Authenticity, Batch, Draft, Source
from core.settings import Settings, load_settings
from db.batches import all_batches
from db.engine import Database, open_database
from db.ledger import drafts
from db.work import count_quarantined
from generation import batch_results
from generation.batch import BatchRun, give_up_lost, run_batches
from generation.batch_desk import open_batch_desk
from generation.campaign import Campaign, prepare
from generation.ingest import ingest
from imaging.store import ImageStore
from teacher.batch import BatchTeacher
from teacher.faults import NO_FAULTS, Faults
from teacher.loopback import serve
from teacher.rehearsal import Rehearsal
from tests.unit.teacher.scripted import draw_jpeg

POINTS = ("before the upload", "after the upload", "after the creation", "while ingesting")


@dataclass
class Bench:
    """A database with labelled images, and a teacher that answers batches."""

    settings: Settings
    database: Database
    recipe: Recipe
    log: Path
    told: list[str] = field(default_factory=list)
    """what the commands said"""

    def prepare(self, **options: Any) -> Campaign:
        store = ImageStore(self.settings.image_store)
        return prepare(self.database, store, self.recipe, in_batches=True, **options)

    def run(self, *, wait: bool = True, **options: Any) -> BatchRun:
        campaign_id = self.prepare(**options).campaign_id
        with open_batch_desk(
            self.settings, self.database, self.recipe, campaign_id, tell=self.told.append
        ) as desk:
            return run_batches(desk, wait=wait)

    def give_up(self, batch_id: str) -> Batch:
        campaign_id = self.prepare().campaign_id
        with open_batch_desk(
            self.settings, self.database, self.recipe, campaign_id, tell=self.told.append
        ) as desk:
            return give_up_lost(desk, batch_id)

    def with_drafting(self, **changes: Any) -> Bench:
        """The same with other settings of drafting, which decide no draft."""
        drafting = self.recipe.settings.drafting.model_copy(update=changes)
        settings = self.recipe.settings.model_copy(update={"drafting": drafting})
        return replace(self, recipe=self.recipe.model_copy(update={"settings": settings}))

    def give_price(self, folder: Path, price: Mapping[str, float]) -> None:
        """Let the rehearsal teacher ask for money; the recipe stays another copy's."""
        table = {"as_of": "2026-01-01", "source": "a test", "models": {"rehearsal": price}}
        copy = folder / "priced"
        copy.mkdir()
        (copy / "prices.yaml").write_text(json.dumps(table), encoding="utf-8")
        self.recipe = self.recipe.model_copy(update={"folder": copy})

    def batches(self) -> list[Batch]:
        with self.database.read() as session:
            return all_batches(session, self.prepare().campaign_id)

    def drafts(self) -> list[Draft]:
        campaign_id = self.prepare().campaign_id
        with self.database.read() as session:
            return list(drafts(session, campaign_id, "main"))

    def quarantined(self) -> list[str]:
        campaign_id = self.prepare().campaign_id
        with self.database.read() as session:
            return [*Counter(count_quarantined(session, campaign_id)).elements()]

    def asked(self) -> Counter[str]:
        """How often the teacher was asked each request, by its own log."""
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        return Counter(json.loads(line)["request_hash"] for line in lines)

    def environment(self) -> dict[str, str]:
        """For a command of its own process."""
        return {
            "FAKESCOPE_HOME": str(self.settings.fakescope_home),
            "DATABASE_URL": self.settings.database_address,
            "OPENAI_BASE_URL": str(self.settings.openai_base_url),
            "OPENAI_MODEL": "rehearsal",
        }


@contextmanager
def open_bench(
    folder: Path,
    rehearsal: Rehearsal,
    *,
    images: int = 12,
    faults: Faults = NO_FAULTS,
    **settings: Any,
) -> Iterator[Bench]:
    """Noisy pictures, half of them called fake, before a teacher with these faults."""
    log = folder / "asked.jsonl"
    with serve(rehearsal, faults=faults, log=log, batches=folder / "batches") as url:
        chosen = load_settings(
            fakescope_home=folder / "home",
            openai_base_url=url,
            openai_model="rehearsal",
            **settings,
        )
        database = open_database(chosen)
        fill(database, ImageStore(chosen.image_store), folder / "pictures", images)
        recipe = configured_recipe(DEFAULT_RECIPE, chosen)
        yield Bench(settings=chosen, database=database, recipe=recipe, log=log)
        database.dispose()


@contextmanager
def serve_again(folder: Path, rehearsal: Rehearsal, bench: Bench) -> Iterator[Bench]:
    """Another server on the same address and folder, without faults."""
    port = urlsplit(str(bench.settings.openai_base_url)).port
    assert port is not None
    with serve(rehearsal, port=port, log=bench.log, batches=folder / "batches"):
        yield bench


def fill(database: Database, store: ImageStore, folder: Path, count: int) -> None:
    for number in range(count):
        label = Authenticity.FAKE if number % 2 else Authenticity.REAL
        path = folder / label / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw_jpeg(number, side=64))
    ingest(database, store, folder, source=Source(name="noise", licence="CC0-1.0"))


def dying(point: str) -> None:
    """Let this process kill itself at a point of its work."""
    create, store = BatchTeacher.create_batch, batch_results.Ingest._store

    def die(*_: object, **__: object) -> Any:
        os.kill(os.getpid(), signal.SIGKILL)

    def and_die(work: Any) -> Any:
        def work_and_die(*arguments: Any, **options: Any) -> Any:
            work(*arguments, **options)
            die()

        return work_and_die

    if point == "before the upload":
        BatchTeacher.upload = die  # type: ignore[method-assign]
    elif point == "after the upload":
        BatchTeacher.create_batch = die  # type: ignore[method-assign]
    elif point == "after the creation":
        BatchTeacher.create_batch = and_die(create)  # type: ignore[method-assign]
    else:
        batch_results.LINES_AT_ONCE = 4
        batch_results.Ingest._store = and_die(store)  # type: ignore[method-assign]


if __name__ == "__main__":
    chosen = load_settings()
    dying(sys.argv[1])
    Bench(
        settings=chosen,
        database=open_database(chosen),
        recipe=configured_recipe(DEFAULT_RECIPE, chosen),
        log=Path("unused"),
    ).run()
