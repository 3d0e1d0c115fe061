"""The ledger: every call to a teacher, every reply, and the drafts that were read from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    RowMapping,
    Select,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from core.errors import PermanentError, StateError
from core.ids import content_id
from core.records import Attempt, AttemptOutcome, Draft, TeacherReply, Usage
from db.columns import Dollars, storable
from db.engine import Database
from db.newest import take_places
from db.reasonings import reasonings_of, save_reasonings
from db.statements import batches, insert_missing, stream
from db.tables import AttemptRow, CampaignRow, DraftRow, ReplyRow, table_of

ATTEMPTS = table_of(AttemptRow)
CAMPAIGNS = table_of(CampaignRow)
DRAFTS = table_of(DraftRow)
REPLIES = table_of(ReplyRow)
TOKENS = tuple(field.name for field in fields(Usage))
DRAFT_FIELDS = tuple(field.name for field in fields(Draft) if field.name in DRAFTS.columns)
UNSETTLED = (AttemptOutcome.UNKNOWN, AttemptOutcome.TIMED_OUT)
"""may have been billed without our knowing: they keep their worst-case reservation"""

# The statements around every call, built once: building them anew takes longer than SQLite does.
_CEILING = func.coalesce(bindparam("own_ceiling", type_=Dollars()), CAMPAIGNS.c.ceiling_usd)
_COMMITTED = CAMPAIGNS.c.committed_usd + bindparam("amount", type_=Dollars())
RESERVE = (
    update(CAMPAIGNS)
    .where(CAMPAIGNS.c.campaign_id == bindparam("of_campaign"))
    .where(or_(_CEILING.is_(None), _COMMITTED <= _CEILING))
    .values(committed_usd=_COMMITTED)
)
LAST_NUMBER = select(func.coalesce(func.max(ATTEMPTS.c.number), 0)).where(
    ATTEMPTS.c.request_hash == bindparam("of_request")
)
_THIS_ATTEMPT = ATTEMPTS.c.attempt_id == bindparam("of_attempt")
SETTLE = (
    update(ATTEMPTS)
    .where(_THIS_ATTEMPT, ATTEMPTS.c.outcome == AttemptOutcome.UNKNOWN)
    .values(
        outcome=bindparam("ended"),
        cost_usd=bindparam("cost"),
        reason=bindparam("why"),
        finished_at=bindparam("at"),
        **{name: bindparam(f"its_{name}") for name in TOKENS},
    )
)
_RESERVED = select(ATTEMPTS.c.reserved_usd).where(_THIS_ATTEMPT).scalar_subquery()
CORRECT_COMMITTED = (
    update(CAMPAIGNS)
    .where(
        CAMPAIGNS.c.campaign_id
        == select(ATTEMPTS.c.campaign_id).where(_THIS_ATTEMPT).scalar_subquery()
    )
    .values(
        committed_usd=CAMPAIGNS.c.committed_usd - _RESERVED + bindparam("cost", type_=Dollars())
    )
)
STORE_REPLY = insert(REPLIES)
STORE_DRAFT = insert(DRAFTS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """What the calls of a campaign came to."""

    spent_usd: float
    reserved_usd: float
    """worst case of the calls whose cost is not known"""
    attempts: int
    replies: int
    unknown: int
    """calls that nobody lived to see the end of"""
    prompt_tokens: int
    cached_tokens: int
    image_tokens: int
    completion_tokens: int
    reasoning_tokens: int


class DatabaseLedger:
    """The ledger of a campaign; each call is one short transaction, safe from any thread."""

    def __init__(
        self, database: Database, campaign_id: str, *, ceiling_usd: float | None = None
    ) -> None:
        """`ceiling_usd` takes the place of the campaign's own ceiling."""
        self._database = database
        self._campaign_id = campaign_id
        self._ceiling_usd = ceiling_usd

    def stored_reply(self, request_hash: str) -> TeacherReply | None:
        """The newest reply to this very request, in whichever campaign it was paid for."""
        with self._database.read() as session:
            return _stored_reply(session, request_hash)

    def open_attempt(
        self, *, request_hash: str, image_id: str, arm: str, model: str, reserved_usd: float
    ) -> str:
        """Write down a call before it is made; returns the attempt's id.

        Raises PermanentError when what is spent and set aside, with this call's worst case, would
        pass the ceiling; two processes never pass it together.
        """
        attempt = {
            "request_hash": request_hash,
            "image_id": image_id,
            "campaign_id": self._campaign_id,
            "arm": arm,
            "model": model,
            "outcome": AttemptOutcome.UNKNOWN,
            "reserved_usd": reserved_usd,
            "started_at": datetime.now(UTC),
        }
        with self._database.write() as session:
            self._reserve(session, reserved_usd)
            return _insert_attempt(session, attempt)

    def store_reply(self, attempt_id: str, reply: TeacherReply, cost_usd: float) -> TeacherReply:
        """Store a reply and what it cost; returns it exactly as it will be read back."""
        stored = _as_stored(reply, attempt_id)
        with self._database.write() as session:
            _settle(
                session,
                attempt_id,
                outcome=AttemptOutcome.REPLIED,
                cost_usd=cost_usd,
                usage=reply.usage,
            )
            said = {column.key: getattr(stored, column.key) for column in REPLIES.columns}
            session.connection().execute(STORE_REPLY, said)
        return stored

    def fail_attempt(self, attempt_id: str, outcome: AttemptOutcome, reason: str) -> None:
        """A call ended without a reply; one that may have been billed keeps its reservation."""
        cost = None if outcome in UNSETTLED else 0.0
        with self._database.write() as session:
            _settle(session, attempt_id, outcome=outcome, cost_usd=cost, reason=reason)

    def _reserve(self, session: Session, amount_usd: float) -> None:
        """Set money aside in one conditional update: the condition is the ceiling."""
        values = {
            "of_campaign": self._campaign_id,
            "amount": amount_usd,
            "own_ceiling": self._ceiling_usd,
        }
        if not session.connection().execute(RESERVE, values).rowcount:
            raise PermanentError(self._refusal(session, amount_usd))

    def _refusal(self, session: Session, amount_usd: float) -> str:
        row = session.execute(
            select(CampaignRow.committed_usd, CampaignRow.ceiling_usd).where(
                CampaignRow.campaign_id == self._campaign_id
            )
        ).one_or_none()
        if row is None:
            return f"there is no campaign {self._campaign_id}"
        ceiling = row.ceiling_usd if self._ceiling_usd is None else self._ceiling_usd
        return (
            f"the ceiling of ${ceiling:.2f} is reached: ${row.committed_usd:.4f} are spent or set "
            f"aside and the next call may cost ${amount_usd:.4f}; raise it with --budget"
        )


def attempts(
    session: Session,
    *,
    campaign_id: str | None = None,
    image_id: str | None = None,
    request_hash: str | None = None,
) -> Iterator[Attempt]:
    """The attempts that fit all that is given, in the order in which they were made."""
    statement = select(*ATTEMPTS.columns)
    if campaign_id is not None:
        statement = statement.where(AttemptRow.campaign_id == campaign_id)
    if image_id is not None:
        statement = statement.where(AttemptRow.image_id == image_id)
    if request_hash is not None:
        statement = statement.where(AttemptRow.request_hash == request_hash)
    ordered = statement.order_by(AttemptRow.started_at, AttemptRow.attempt_id)
    yield from map(_attempt_of, session.execute(ordered).mappings().yield_per(500))


def spent(session: Session, campaign_id: str) -> Spending:
    """What a campaign has spent and set aside, and its tokens."""
    reserved = case((AttemptRow.outcome.in_(UNSETTLED), AttemptRow.reserved_usd))
    sums = {name: func.coalesce(func.sum(ATTEMPTS.c[name]), 0).label(name) for name in TOKENS}
    row = (
        session.execute(
            select(
                func.sum(AttemptRow.cost_usd).label("spent_usd"),
                func.sum(reserved).label("reserved_usd"),
                func.count().label("attempts"),
                _count_of(AttemptOutcome.REPLIED).label("replies"),
                _count_of(AttemptOutcome.UNKNOWN).label("unknown"),
                *sums.values(),
            ).where(AttemptRow.campaign_id == campaign_id)
        )
        .mappings()
        .one()
    )
    return Spending(
        spent_usd=row["spent_usd"] or 0.0,
        reserved_usd=row["reserved_usd"] or 0.0,
        attempts=row["attempts"],
        replies=row["replies"],
        unknown=row["unknown"],
        **{name: int(row[name]) for name in TOKENS},
    )


def attempts_by_outcome(session: Session, campaign_id: str) -> dict[AttemptOutcome, int]:
    """How many attempts of a campaign ended in which way."""
    rows = session.execute(
        select(AttemptRow.outcome, func.count())
        .where(AttemptRow.campaign_id == campaign_id)
        .group_by(AttemptRow.outcome)
        .order_by(AttemptRow.outcome)
    )
    return dict(rows.all())


def save_draft(session: Session, draft: Draft) -> bool:
    """Store a draft as the newest of its campaign, arm and image; False when it is that already."""
    moved = take_places(session, DRAFTS, {draft.draft_id: draft})
    if moved.new:
        save_reasonings(session, {draft.draft_id: draft.reasoning})
        session.connection().execute(STORE_DRAFT, {n: getattr(draft, n) for n in DRAFT_FIELDS})
    return bool(moved.new or moved.again)


def drafts(
    session: Session, campaign_id: str, arm: str, *, image_ids: Sequence[str] | None = None
) -> Iterator[Draft]:
    """The newest draft of each image (None: of all that have one), by image id."""
    statement = _newest_drafts([DRAFTS.c[name] for name in DRAFT_FIELDS], campaign_id, arm)
    if image_ids is None:
        narrowed = [statement]
    else:
        chosen = batches(sorted(set(image_ids)))
        narrowed = [statement.where(DraftRow.image_id.in_(batch)) for batch in chosen]
    for part in narrowed:
        for rows in stream(session, part, DraftRow.image_id):
            reasonings = reasonings_of(session, [row["draft_id"] for row in rows])
            for row in rows:
                yield Draft(**row, reasoning=reasonings[row["draft_id"]])


def drafted_image_ids(session: Session, campaign_id: str, arm: str) -> set[str]:
    """The images that have a draft in this arm."""
    return set(session.scalars(_newest_drafts([DRAFTS.c.image_id], campaign_id, arm)))


def _stored_reply(session: Session, request_hash: str) -> TeacherReply | None:
    row = (
        session.execute(
            select(*REPLIES.columns, *(ATTEMPTS.c[name] for name in TOKENS))
            .join(AttemptRow, AttemptRow.attempt_id == ReplyRow.attempt_id)
            .where(ReplyRow.request_hash == request_hash)
            .order_by(AttemptRow.number.desc())
            .limit(1)
        )
        .mappings()
        .one_or_none()
    )
    if row is None:
        return None
    said = {column.key: row[column.key] for column in REPLIES.columns}
    return TeacherReply(**said, usage=_usage_of(row))


def _as_stored(reply: TeacherReply, attempt_id: str) -> TeacherReply:
    return replace(
        reply,
        attempt_id=attempt_id,
        raw=storable(reply.raw),
        content=None if reply.content is None else storable(reply.content),
        refusal=None if reply.refusal is None else storable(reply.refusal),
    )


def _insert_attempt(session: Session, values: dict[str, Any]) -> str:
    """Insert under the next free number; another process may take it first, then one more."""
    asked = {"of_request": values["request_hash"]}
    number = session.connection().execute(LAST_NUMBER, asked).scalar_one() + 1
    attempt_id = content_id("attempt", values["request_hash"], number)
    if insert_missing(session, ATTEMPTS, [{**values, "number": number, "attempt_id": attempt_id}]):
        return attempt_id
    return _insert_attempt(session, values)


def _settle(
    session: Session,
    attempt_id: str,
    *,
    outcome: AttemptOutcome,
    cost_usd: float | None,
    usage: Usage | None = None,
    reason: str | None = None,
) -> None:
    """Write down how an open attempt ended, and correct what its campaign has committed."""
    this = {"of_attempt": attempt_id}
    ended = {"ended": outcome, "cost": cost_usd, "why": reason, "at": datetime.now(UTC)}
    tokens = {f"its_{name}": getattr(usage, name, None) for name in TOKENS}
    connection = session.connection()
    if not connection.execute(SETTLE, this | ended | tokens).rowcount:
        raise StateError(f"attempt {attempt_id} is not open")
    if cost_usd is not None:
        connection.execute(CORRECT_COMMITTED, this | {"cost": cost_usd})


def _attempt_of(row: RowMapping) -> Attempt:
    return Attempt(
        attempt_id=row["attempt_id"],
        request_hash=row["request_hash"],
        image_id=row["image_id"],
        campaign_id=row["campaign_id"],
        arm=row["arm"],
        model=row["model"],
        outcome=row["outcome"],
        reserved_usd=row["reserved_usd"],
        cost_usd=row["cost_usd"],
        usage=None if row["prompt_tokens"] is None else _usage_of(row),
        reason=row["reason"],
    )


def _usage_of(row: RowMapping) -> Usage:
    return Usage(**{name: row[name] for name in TOKENS})


def _count_of(outcome: AttemptOutcome) -> Any:
    return func.count(case((AttemptRow.outcome == outcome, 1)))


def _newest_drafts(columns: Sequence[Any], campaign_id: str, arm: str) -> Select[Any]:
    return select(*columns).where(
        DraftRow.campaign_id == campaign_id, DraftRow.arm == arm, DraftRow.superseded_by.is_(None)
    )
