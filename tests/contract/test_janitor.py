"""The janitor looks at the database alone: due work gets a worker, and lost claims are freed."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from celery import Celery
from sqlalchemy import text

from core.recipe import DEFAULT_RECIPE, load_recipe
from core.records import WorkState
from db.engine import Database
from db.work import add_work, claim, employ, open_campaign, stop_campaign, work_counts
from generation.janitor import tend, tidy
from generation.tasks import num_waiting, queue_of, teachers_of
from tests.campaigns import store_images
from tests.databases import (  # noqa: F401
    database,
    postgresql_tables,
    postgresql_url,
    settings,
    sqlite_template,
)

(TEACHER,) = teachers_of(load_recipe())


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """A broker inside this process, empty."""
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL"):
        monkeypatch.delenv(name, raising=False)
    app = Celery("janitor-test", broker="memory://")
    app.set_default()
    app.set_current()
    empty(app)
    yield app
    empty(app)


def empty(app: Celery) -> None:
    with app.connection_for_write() as connection:
        connection.default_channel.queue_declare(queue_of(TEACHER))
        connection.default_channel.queue_purge(queue_of(TEACHER))


@pytest.fixture
def campaign_id(database: Database) -> str:  # noqa: F811
    """A campaign of the default recipe over three images, which was started."""
    images = store_images(database, 3)
    with database.write() as session:
        opened = open_campaign(session, load_recipe(), ceiling_usd=None)
        add_work(session, opened, "main", [image.image_id for image in images])
        employ(
            session,
            opened,
            recipe_folder=str(DEFAULT_RECIPE),
            rehearsal_url="http://127.0.0.1:1/v1",
        )
    return opened


def let_time_pass(database: Database) -> None:  # noqa: F811
    with database.write() as session:
        session.execute(text("UPDATE campaigns SET tended_at = NULL"))


def take(database: Database, campaign_id: str, worker: str, *, minutes: int) -> None:  # noqa: F811
    """Claim everything until so many minutes from now."""
    now = datetime.now(UTC) + timedelta(minutes=minutes - 1)
    with database.write() as session:
        claim(session, campaign_id, arms=["main"], worker=worker, limit=9, seconds=60, now=now)


def counts(database: Database, campaign_id: str) -> dict[WorkState, int]:  # noqa: F811
    with database.read() as session:
        return work_counts(session, campaign_id)


def test_due_work_gets_one_message_however_often_the_janitor_looks(
    database: Database,  # noqa: F811
    broker: Celery,
    campaign_id: str,
) -> None:
    assert num_waiting(TEACHER) == 0
    for _ in range(3):
        tend(database)
        let_time_pass(database)
    assert num_waiting(TEACHER) == 1


def test_a_broker_that_forgot_gets_a_new_message(
    database: Database,  # noqa: F811
    broker: Celery,
    campaign_id: str,
) -> None:
    tend(database)
    empty(broker)
    tend(database)
    assert num_waiting(TEACHER) == 0, "it is nobody's turn yet"
    let_time_pass(database)
    tend(database)
    assert num_waiting(TEACHER) == 1


def test_nobody_is_sent_to_a_campaign_that_was_stopped_or_has_nothing_due(
    database: Database,  # noqa: F811
    broker: Celery,
    campaign_id: str,
) -> None:
    take(database, campaign_id, "elsewhere/1/1", minutes=10)
    tend(database)
    assert num_waiting(TEACHER) == 0
    with database.write() as session:
        session.execute(text("UPDATE work SET state = 'new', worker = NULL, came_from = NULL"))
        stop_campaign(session, campaign_id, "no money")
    let_time_pass(database)
    tend(database)
    assert num_waiting(TEACHER) == 0


def test_expired_claims_are_freed_and_get_a_message(
    database: Database,  # noqa: F811
    broker: Celery,
    campaign_id: str,
) -> None:
    take(database, campaign_id, "elsewhere/1/1", minutes=-1)
    tend(database)
    assert counts(database, campaign_id) == {WorkState.NEW: 3}
    assert num_waiting(TEACHER) == 1


def test_claims_of_dead_processes_of_this_machine_are_freed_at_once(
    database: Database,  # noqa: F811
    campaign_id: str,
) -> None:
    take(database, campaign_id, "another-machine/1/1", minutes=10)
    assert tidy(database, campaign_id) == 0, "nobody here knows whether that process lives"
    with database.write() as session:
        dead = {"name": f"{socket.gethostname()}/1/never"}
        session.execute(text("UPDATE work SET worker = :name"), dead)
    assert tidy(database, campaign_id) == 3
    assert counts(database, campaign_id) == {WorkState.NEW: 3}
