"""What a teacher says about photographs whose label it was not told, counted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.recipe import Recipe, load_recipe
from core.records import Authenticity, Draft, ImageRecord, Source, TraceFinding
from core.settings import load_settings
from db.engine import Database, open_database
from db.images import save_images, save_source
from db.ledger import DatabaseLedger, save_drafts
from db.work import add_work, claim, open_campaign, quarantine
from generation.control import as_text, measure_controls
from tests.campaigns import NOON, ask
from tests.databases import sqlite_template  # noqa: F401
from tests.unit.records import make_draft, make_finding, make_image, make_reasoning

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
SHIPPED = load_recipe()
CONTROL = SHIPPED.arm("main").model_copy(update={"name": "blind", "control": True})


def with_arms(*arms: object) -> Recipe:
    drafting = SHIPPED.settings.drafting.model_copy(update={"arms": arms})
    settings = SHIPPED.settings.model_copy(update={"drafting": drafting})
    return SHIPPED.model_copy(update={"settings": settings})


RECIPE = with_arms(SHIPPED.arm("main"), CONTROL)


@pytest.fixture
def database(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:  # noqa: F811
    copied = shutil.copy(sqlite_template, tmp_path / "test.db")
    opened = open_database(load_settings(database_url=f"sqlite:///{copied}"))
    yield opened
    opened.dispose()


def store_photographs(database: Database, count: int) -> tuple[str, list[ImageRecord]]:
    images = [make_image(f"photograph {n}", label=REAL, generator=None) for n in range(count)]
    with database.write() as session:
        save_source(session, Source(name="demo", licence="CC0-1.0"))
        save_images(session, images)
        campaign_id = open_campaign(session, RECIPE, ceiling_usd=None)
        add_work(session, campaign_id, "blind", [image.image_id for image in images])
    return campaign_id, images


def work_id_of(session: Any, campaign_id: str, image: ImageRecord) -> str:
    taken = {"arms": ["blind"], "worker": "w", "limit": 100, "seconds": 60, "now": NOON}
    claims = claim(session, campaign_id, **taken)
    return next(item.work_id for item in claims if item.image_id == image.image_id)


def judge(
    database: Database,
    campaign_id: str,
    image: ImageRecord,
    verdict: Authenticity,
    *findings: TraceFinding,
    arm: str = "blind",
) -> Draft:
    reply = ask(DatabaseLedger(database, campaign_id, teacher="rehearsal"), image, arm)
    draft = make_draft(
        image,
        draft_id=f"draft {image.image_id} {arm}",
        campaign_id=campaign_id,
        attempt_id=reply.attempt_id,
        arm=arm,
        reasoning=make_reasoning(*findings, verdict=verdict),
    )
    with database.write() as session:
        save_drafts(session, [draft])
    return draft


def test_false_verdicts_and_invented_traces_are_counted_once_per_photograph(
    database: Database,
) -> None:
    campaign_id, images = store_photographs(database, 10)
    twice = [make_finding("texture", FAKE), make_finding("texture", FAKE)]
    judge(database, campaign_id, images[0], FAKE, *twice, make_finding("edge", FAKE))
    judge(database, campaign_id, images[1], REAL, make_finding("texture", FAKE))
    for image in images[2:8]:
        judge(database, campaign_id, image, REAL, make_finding("clarity", REAL))
    judge(database, campaign_id, images[8], FAKE, make_finding("theme", FAKE), arm="main")
    with database.write() as session:
        quarantine(session, work_id_of(session, campaign_id, images[9]), "refused")

    (control,) = measure_controls(database, RECIPE)

    assert (control.arm, control.photographs, control.set_aside) == ("blind", 8, 1)
    assert control.called_fake.count == 1
    assert control.with_invented_traces.count == 2
    assert {name: rate.count for name, rate in control.invented.items()} == {
        "texture": 2,
        "edge": 1,
    }
    assert list(control.invented) == ["texture", "edge"]


def test_intervals_are_those_of_wilson(database: Database) -> None:
    """Agresti and Coull (1998) give the formula; 0 of 10 has the closed form z² / (10 + z²)."""
    campaign_id, images = store_photographs(database, 10)
    for image in images:
        judge(database, campaign_id, image, REAL)
    (control,) = measure_controls(database, RECIPE)
    assert control.called_fake.share == 0
    assert control.called_fake.low == pytest.approx(0, abs=1e-12)
    assert control.called_fake.high == pytest.approx(1.959964**2 / (10 + 1.959964**2), abs=1e-6)


def test_the_text_gives_the_number_of_photographs_and_the_intervals(database: Database) -> None:
    campaign_id, images = store_photographs(database, 2)
    judge(database, campaign_id, images[0], FAKE, make_finding("texture", FAKE))
    judge(database, campaign_id, images[1], REAL)
    (control,) = measure_controls(database, RECIPE)
    lines = list(as_text(control))
    assert "2 photographs judged without their label, 0 set aside" in lines[0]
    assert lines[1] == "called fake: 1 (50.0%, 95 % interval 9.5% to 90.5%)"
    assert lines[3].startswith("  texture: 1 (50.0%")


def test_a_recipe_without_a_control_is_told_how_to_add_one(database: Database) -> None:
    with pytest.raises(ConfigError, match=r"no control arm.*control: true"):
        measure_controls(database, SHIPPED)


def test_a_control_without_drafts_says_what_to_run(database: Database) -> None:
    store_photographs(database, 1)
    with pytest.raises(ConfigError, match="arm blind has no draft yet: run"):
        measure_controls(database, RECIPE)
