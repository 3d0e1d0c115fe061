"""Which limiter stands before the calls of an arm."""

from __future__ import annotations

from core.recipe import Arm
from core.servers import server_of
from core.settings import Settings
from db.engine import Database
from db.limits import DatabaseLimiter
from teacher.limits import Limiter


def open_limiter(settings: Settings, database: Database, arm: Arm) -> Limiter | None:
    """The limiter that all workers share for the teacher and model of `arm`; None without limits.

    It counts in Redis where there is one, otherwise in the database.
    """
    if arm.limits is None:
        return None
    teacher, model = server_of(arm.teacher), arm.model
    address = settings.limits_redis_address
    if address is not None:
        from teacher.redis_limits import RedisLimiter

        return RedisLimiter(address, arm.limits, teacher=teacher, model=model)
    return DatabaseLimiter(database, arm.limits, teacher=teacher, model=model)
