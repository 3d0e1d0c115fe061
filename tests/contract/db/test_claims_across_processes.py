"""Four processes claim at once: nobody fails, and nothing is claimed twice."""

from __future__ import annotations

import multiprocessing
import threading
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from core.records import WorkState
from core.settings import Settings
from db.engine import Database, open_database
from db.work import claim, work_counts
from tests.campaigns import NOON, mark_drafted, start_campaign, store_images

PROCESSES = 4
CLAIMS = 300


def claim_one_by_one(settings: Settings, campaign_id: str, worker: str) -> list[str]:
    """What a worker process does: claims of one row, each in a transaction."""
    database = open_database(settings)
    claimed = []
    for _ in range(CLAIMS):
        with database.write() as session:
            found = claim(
                session, campaign_id, arms=["main"], worker=worker, limit=1, seconds=60, now=NOON
            )
        claimed += [item.work_id for item in found]
    database.dispose()
    return claimed


def test_four_processes_claim_again_and_again(settings: Settings, database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, PROCESSES * CLAIMS))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawn) as pool:
        jobs = [
            pool.submit(claim_one_by_one, settings, campaign_id, f"worker-{number}")
            for number in range(PROCESSES)
        ]
        claimed = [work_id for job in jobs for work_id in job.result()]
    assert max(Counter(claimed).values()) == 1
    assert len(claimed) == PROCESSES * CLAIMS
    with database.read() as session:
        assert work_counts(session, campaign_id) == {WorkState.DRAFTING: PROCESSES * CLAIMS}


def test_threads_share_one_database(database: Database) -> None:
    campaign_id = start_campaign(database, store_images(database, 200))
    ready = threading.Barrier(16)

    def work(number: int) -> list[str]:
        ready.wait(30)
        done = []
        while True:
            with database.write() as session:
                found = claim(
                    session,
                    campaign_id,
                    arms=["main"],
                    worker=str(number),
                    limit=3,
                    seconds=60,
                    now=NOON,
                )
            for item in found:
                with database.write() as session:
                    mark_drafted(session, item)
                done.append(item.work_id)
            if not found:
                return done

    with ThreadPoolExecutor(16) as pool:
        done = [work_id for ids in pool.map(work, range(16)) for work_id in ids]
    assert len(done) == len(set(done))
    with database.read() as session:
        drafted = work_counts(session, campaign_id)[WorkState.DRAFTED]
    assert drafted == len(done)
    assert drafted == 200 or database.dialect == "postgresql"
