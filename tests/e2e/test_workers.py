"""Celery workers that are told to leave, whose broker forgets, or that serve one teacher alone."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from core.records import AttemptOutcome, WorkState
from db.ledger import attempts_by_outcome
from db.work import work_counts
from teacher.faults import Faults
from tests.e2e.faults import Campaign, assert_all_settled, faulty_campaign, finish, wait_until_asked
from tests.e2e.project import ROOT
from tests.redis_servers import RedisServer

IMAGES = 120
SLOW = Faults(latency_s=0.5)
PATIENCE_S = 120.0


@contextmanager
def worker(campaign: Campaign, *arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """One worker as `make worker` starts it; killed at the end unless it has left."""
    log = campaign.project.home.parent / "worker.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            campaign.project.command("workers", *arguments),
            cwd=ROOT,
            env=campaign.project.variables(),
            stdout=file,
            stderr=file,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)


def counts_of(campaign: Campaign) -> dict[WorkState, int]:
    with campaign.database() as (database, campaign_id), database.read() as session:
        return work_counts(session, campaign_id)


def wait_until_waiting(server: RedisServer, queue: str) -> None:
    """Wait until a message lies in a queue."""
    deadline = time.monotonic() + PATIENCE_S
    with redis.Redis.from_url(server.address) as client:
        while not client.llen(queue):
            assert time.monotonic() < deadline, f"nothing was sent to {queue}"
            time.sleep(0.05)


@pytest.mark.full
def test_a_worker_told_to_leave_finishes_its_calls_and_gives_back_the_rest(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        faulty_campaign(
            tmp_path, images=IMAGES, faults=SLOW, CELERY_BROKER_URL=server.address
        ) as campaign,
    ):
        with worker(campaign) as leaving:
            drafting = campaign.start("--budget", 100)
            wait_until_asked(campaign, 10, drafting)
            leaving.send_signal(signal.SIGTERM)
            assert leaving.wait(PATIENCE_S) == 0
        left = counts_of(campaign)
        with campaign.database() as (database, campaign_id), database.read() as session:
            outcomes = attempts_by_outcome(session, campaign_id)
        assert WorkState.DRAFTING not in left
        assert left[WorkState.NEW] > 0
        assert outcomes == {AttemptOutcome.REPLIED: left[WorkState.DRAFTED]}
        with worker(campaign):
            finish(drafting)
        assert_all_settled(campaign, IMAGES)


@pytest.mark.full
def test_a_broker_that_forgets_everything_loses_nothing(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        faulty_campaign(
            tmp_path, images=IMAGES, faults=SLOW, CELERY_BROKER_URL=server.address
        ) as campaign,
    ):
        drafting = campaign.start("--budget", 100)
        wait_until_waiting(server, f"fakescope.{teacher_of(campaign)}")
        server.kill()
        server.start()
        with worker(campaign):
            finish(drafting)
        assert_all_settled(campaign, IMAGES)


@pytest.mark.full
def test_a_worker_for_other_teachers_leaves_the_work_alone(tmp_path: Path) -> None:
    with (
        RedisServer(tmp_path) as server,
        faulty_campaign(
            tmp_path, images=20, faults=Faults(), CELERY_BROKER_URL=server.address
        ) as campaign,
    ):
        with worker(campaign, "--queues", "elsewhere.example"):
            drafting = campaign.start("--budget", 100)
            wait_until_waiting(server, f"fakescope.{teacher_of(campaign)}")
            assert counts_of(campaign) == {WorkState.NEW: 20}
            with worker(campaign, "--queues", f"elsewhere.example,{teacher_of(campaign)}"):
                finish(drafting)
        assert_all_settled(campaign, 20)


def teacher_of(campaign: Campaign) -> str:
    return urlsplit(campaign.project.environment["OPENAI_BASE_URL"]).netloc
