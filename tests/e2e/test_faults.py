"""A teacher that fails now and then, workers that are killed: nothing is lost or paid twice."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.databases import new_database, postgresql_server
from tests.e2e.faults import (
    Crew,
    assert_all_settled,
    assert_nothing_stored_is_asked_again,
    assert_stops_at_its_ceiling,
    assert_unknown_calls_are_few_and_reserved,
    end_group,
    faults_of,
    faulty_campaign,
    finish,
    wait_until_asked,
)
from tests.redis_servers import RedisServer

IMAGES = 80
FAULTS = faults_of(0.1, latency_s=0.1, seed=1)


def test_workers_killed_and_redis_started_again(tmp_path: Path) -> None:
    with (
        postgresql_server() as server,
        new_database(server) as database,
        RedisServer(tmp_path) as redis,
        faulty_campaign(
            tmp_path,
            images=IMAGES,
            faults=FAULTS,
            DATABASE_URL=database.render_as_string(hide_password=False),
            CELERY_BROKER_URL=redis.address,
        ) as campaign,
        Crew(campaign.project, 2, seed=1) as crew,
    ):
        drafting = campaign.start("--budget", 100)
        wait_until_asked(campaign, 20, drafting)
        crew.kill_one()
        wait_until_asked(campaign, 50, drafting)
        redis.kill()
        redis.start()
        finish(drafting)
        assert_all_settled(campaign, IMAGES)
        assert_nothing_stored_is_asked_again(campaign)
        assert_unknown_calls_are_few_and_reserved(campaign, crew.kills)


@pytest.mark.full
def test_in_process_killed_and_started_again_within_its_ceiling(tmp_path: Path) -> None:
    with faulty_campaign(tmp_path, images=IMAGES, faults=FAULTS) as campaign:
        assert_stops_at_its_ceiling(campaign, 0.15)
        drafting = campaign.start("--budget", 100)
        wait_until_asked(campaign, len(campaign.asked()) + 20, drafting)
        end_group(drafting, signal.SIGKILL)
        finish(campaign.start())
        assert_all_settled(campaign, IMAGES)
        assert_nothing_stored_is_asked_again(campaign)
        assert_unknown_calls_are_few_and_reserved(campaign, kills=1)
