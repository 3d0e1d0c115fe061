"""What all campaigns together have spent or set aside on each day, and the ceiling of a day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from sqlalchemy import bindparam, or_, select, update
from sqlalchemy.orm import Session

from core.errors import PermanentError
from db.columns import Dollars
from db.statements import insert_missing
from db.tables import DayRow, table_of

DAYS = table_of(DayRow)

_COMMITTED = DAYS.c.committed_usd + bindparam("amount", type_=Dollars())
_CEILING = bindparam("ceiling", type_=Dollars())
_THIS_DAY = DAYS.c.day == bindparam("of_day")
RESERVE = (
    update(DAYS)
    .where(_THIS_DAY, or_(_CEILING.is_(None), _COMMITTED <= _CEILING))
    .values(committed_usd=_COMMITTED)
)
CORRECT = update(DAYS).where(_THIS_DAY).values(committed_usd=_COMMITTED)


def day_of(moment: datetime) -> str:
    """The day of a moment in UTC, as YYYY-MM-DD."""
    return moment.astimezone(UTC).date().isoformat()


def reserve_on_day(
    session: Session, day: str, amount_usd: float, *, ceiling_usd: float | None
) -> None:
    """Set money aside in one conditional update; PermanentError when the ceiling would be passed.

    What costs nothing is not counted, and goes on above the ceiling.
    """
    if amount_usd == 0:
        return
    values = {"of_day": day, "amount": amount_usd, "ceiling": ceiling_usd}
    connection = session.connection()
    if connection.execute(RESERVE, values).rowcount:
        return
    insert_missing(session, DAYS, [{"day": day, "committed_usd": 0.0}])
    if not connection.execute(RESERVE, values).rowcount:
        assert ceiling_usd is not None
        committed = committed_on_day(session, day)
        raise PermanentError(
            f"the ceiling of ${ceiling_usd:.2f} a day is reached: on {day} all campaigns together "
            f"have spent or set aside ${committed:.4f}, and the next call may cost "
            f"${amount_usd:.4f}; go on after midnight UTC, or raise USD_PER_DAY"
        )


def correct_days(session: Session, amounts_usd: Mapping[str, float]) -> None:
    """Add to what is committed on these days, in their order: so two processes cannot deadlock."""
    for day, amount in sorted(amounts_usd.items()):
        if amount:
            session.connection().execute(CORRECT, {"of_day": day, "amount": amount})


def committed_on_day(session: Session, day: str) -> float:
    """Spent or set aside on a day, by all campaigns."""
    return session.scalar(select(DayRow.committed_usd).where(DayRow.day == day)) or 0.0
