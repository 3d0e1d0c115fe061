"""Where the workers of a deployment count requests and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.limits import Limits
from core.recipe import load_recipe
from core.settings import load_settings
from db.engine import Database, open_database
from db.limits import DatabaseLimiter
from generation.limits import open_limiter
from teacher.redis_limits import RedisLimiter

REDIS = "redis://127.0.0.1:9/0"
RABBITMQ = "amqp://guest:guest@127.0.0.1:9//"
LIMITED = load_recipe().arms[0].model_copy(update={"limits": Limits(requests_per_minute=60)})


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    opened = open_database(load_settings(fakescope_home=tmp_path))
    yield opened
    opened.dispose()


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({}, DatabaseLimiter),
        ({"celery_broker_url": REDIS}, RedisLimiter),
        ({"celery_broker_url": RABBITMQ}, DatabaseLimiter),
        ({"celery_broker_url": RABBITMQ, "limits_redis_url": REDIS}, RedisLimiter),
    ],
)
def test_redis_counts_where_there_is_one(
    database: Database, settings: dict[str, Any], kind: type
) -> None:
    assert type(open_limiter(load_settings(**settings), database, LIMITED)) is kind


def test_without_limits_there_is_no_limiter(database: Database) -> None:
    assert open_limiter(load_settings(), database, load_recipe().arms[0]) is None


def test_an_address_is_the_same_with_and_without_a_slash(database: Database) -> None:
    waits = []
    for teacher in ("http://127.0.0.1:9/v1", "http://127.0.0.1:9/v1/"):
        arm = LIMITED.model_copy(update={"teacher": teacher})
        limiter = open_limiter(load_settings(), database, arm)
        assert limiter is not None
        waits.append(limiter.reserve(requests=1, tokens=1))
    assert waits[1] < waits[0]
