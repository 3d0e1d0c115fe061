"""Drafting at scale: a teacher that fails, workers that are killed, a broker that forgets."""

from __future__ import annotations

import signal
from pathlib import Path
from random import Random

import pytest

from tests.databases import new_database, postgresql_server
from tests.e2e.faults import (
    Crew,
    assert_all_settled,
    assert_nothing_stored_is_asked_again,
    assert_stops_at_its_ceiling,
    assert_unknown_calls_are_few_and_reserved,
    assert_within_limits,
    end_group,
    faults_of,
    faulty_campaign,
    finish,
    spent_by_the_teachers_log,
    wait_until_asked,
)
from tests.redis_servers import RedisServer

pytestmark = pytest.mark.full

FAULTS = faults_of(0.1, latency_s=0.2, seed=3)
CEILING_USD = 50


def limits(*, requests: int, tokens: int) -> dict[str, str]:
    """Settings with limits of a minute that a run without a limiter would pass."""
    return {
        "OPENAI_REQUESTS_PER_MINUTE": str(requests),
        "OPENAI_TOKENS_PER_MINUTE": str(tokens),
    }


def test_four_workers_killed_at_random_and_redis_started_again(tmp_path: Path) -> None:
    images, requests, tokens = 2000, 1500, 12_000_000
    with (
        postgresql_server() as server,
        new_database(server) as database,
        RedisServer(tmp_path) as redis,
        faulty_campaign(
            tmp_path,
            images=images,
            faults=FAULTS,
            DATABASE_URL=database.render_as_string(hide_password=False),
            CELERY_BROKER_URL=redis.address,
            **limits(requests=requests, tokens=tokens),
        ) as campaign,
        Crew(campaign.project, 4, seed=1) as crew,
    ):
        assert_stops_at_its_ceiling(campaign, 1)
        drafting = campaign.start("--budget", CEILING_USD)
        moments = sorted(Random(1).sample(range(len(campaign.asked()) + 50, images), 8))
        for number, moment in enumerate(moments):
            wait_until_asked(campaign, moment, drafting)
            crew.kill_one()
            if number == 3:
                redis.kill()
                redis.start()
        finish(drafting)
        assert_all_settled(campaign, images)
        assert_nothing_stored_is_asked_again(campaign)
        assert_unknown_calls_are_few_and_reserved(campaign, crew.kills)
        assert_within_limits(campaign, requests=requests, tokens=tokens)
        assert spent_by_the_teachers_log(campaign) <= CEILING_USD


def test_in_process_killed_at_random_and_started_again(tmp_path: Path) -> None:
    images, requests, tokens = 300, 300, 2_400_000
    moments = sorted(Random(5).sample(range(20, images - 50), 4))
    settings = limits(requests=requests, tokens=tokens)
    with faulty_campaign(tmp_path, images=images, faults=FAULTS, **settings) as campaign:
        for moment in moments:
            drafting = campaign.start("--budget", CEILING_USD)
            wait_until_asked(campaign, moment, drafting)
            end_group(drafting, signal.SIGKILL)
        finish(campaign.start())
        assert_all_settled(campaign, images)
        assert_nothing_stored_is_asked_again(campaign)
        assert_unknown_calls_are_few_and_reserved(campaign, kills=len(moments))
        assert_within_limits(campaign, requests=requests, tokens=tokens)
