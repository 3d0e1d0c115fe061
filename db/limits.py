"""The limiter that counts in the database, where workers share no Redis."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.orm import Session

from core.limits import Limits, Slot, Window, forgetful, refund, reserve
from db.engine import Database
from db.ledger import CEILING_RANK
from db.statements import insert_missing
from db.tables import LimitRow, table_of

LIMITS = table_of(LimitRow)

_THIS_TEACHER = (
    LIMITS.c.teacher == bindparam("of_teacher"),
    LIMITS.c.model == bindparam("of_model"),
)
RECALL = select(LIMITS.c.memory).where(*_THIS_TEACHER).with_for_update()
KEEP = update(LIMITS).where(*_THIS_TEACHER).values(memory=bindparam("remembered"))
SERVER_CLOCK = select(func.extract("epoch", func.clock_timestamp()))

LIMITS_RANK = CEILING_RANK + 1
"""in a transaction that threads share, the row is locked last"""

Clock = Callable[[Session], float]


def database_clock(session: Session) -> float:
    """Seconds since 1970: of the PostgreSQL server, or of the machine that an SQLite file is on."""
    if session.get_bind().dialect.name == "sqlite":
        return time.time()
    return float(session.connection().execute(SERVER_CLOCK).scalar_one())


class DatabaseLimiter:
    """One row per teacher and model, locked for each reservation; all campaigns share it.

    A limiter of `teacher.limits.Limiter`: safe from any thread and process.
    """

    def __init__(
        self,
        database: Database,
        limits: Limits,
        *,
        teacher: str,
        model: str,
        clock: Clock = database_clock,
    ) -> None:
        self._database = database
        self._limits = limits
        self._row = {"teacher": teacher, "model": model}
        self._key = {"of_teacher": teacher, "of_model": model}
        self._clock = clock

    def reserve(self, *, requests: int, tokens: int) -> float:
        """Seconds to wait before trying again; 0.0 when reserved."""
        self._limits.check(requests=requests, tokens=tokens)
        call = (requests, tokens)
        return self._database.write_together(self._reserve_each, call, rank=LIMITS_RANK)

    def refund(self, *, tokens: int) -> None:
        """Give back what was reserved and not used."""
        self._database.write_together(self._refund_each, tokens, rank=LIMITS_RANK)

    def _reserve_each(self, session: Session, calls: Sequence[tuple[int, int]]) -> list[float]:
        window, now = self._recall(session)
        waits = []
        for requests, tokens in calls:
            window, wait = reserve(window, self._limits, now, requests=requests, tokens=tokens)
            waits.append(wait)
        self._keep(session, window)
        return waits

    def _refund_each(self, session: Session, amounts: Sequence[int]) -> list[None]:
        window, now = self._recall(session)
        self._keep(session, refund(window, self._limits, now, tokens=sum(amounts)))
        return [None] * len(amounts)

    def _recall(self, session: Session) -> tuple[Window, float]:
        """Lock the row, make it where it is missing, and only then look at the clock."""
        memory = session.connection().execute(RECALL, self._key).scalar_one_or_none()
        if memory is None:
            new = {**self._row, "memory": _written(forgetful(self._clock(session)))}
            insert_missing(session, LIMITS, [new])
            memory = session.connection().execute(RECALL, self._key).scalar_one()
        return _read(memory), self._clock(session)

    def _keep(self, session: Session, window: Window) -> None:
        session.connection().execute(KEEP, self._key | {"remembered": _written(window)})


def _written(window: Window) -> str:
    return json.dumps(asdict(window))


def _read(memory: str) -> Window:
    values: dict[str, Any] = json.loads(memory)
    return Window(**{**values, "slots": tuple(Slot(*slot) for slot in values["slots"])})
