"""The janitor: gives back what expired claims and dead workers of this machine still hold."""

from __future__ import annotations

from datetime import UTC, datetime

from db.engine import Database
from db.work import claiming_workers, free_expired, release
from generation.liveness import is_dead


def tidy(database: Database, campaign_id: str) -> int:
    """Free claims that nobody works on any more; returns how many."""
    with database.write() as session:
        freed = free_expired(session, campaign_id, datetime.now(UTC))
        dead = [name for name in claiming_workers(session, campaign_id) if is_dead(name)]
        return freed + sum(release(session, worker) for worker in dead)
