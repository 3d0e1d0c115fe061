"""The ledger: every call to a teacher, every reply, and the drafts that were read from them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Date,
    RowMapping,
    Select,
    String,
    bindparam,
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
from core.servers import server_of
from db.columns import Dollars, exact_sum, storable
from db.days import correct_days, day_of, reserve_on_day
from db.engine import Database
from db.newest import runs, take_places
from db.reasonings import reasonings_of, save_reasonings
from db.statements import batches, insert_missing, stream
from db.tables import AttemptRow, CampaignRow, DraftRow, ReplyRow, table_of
from db.tombstones import is_withdrawn, withdrawn_among

ATTEMPTS = table_of(AttemptRow)
CAMPAIGNS = table_of(CampaignRow)
DRAFTS = table_of(DraftRow)
REPLIES = table_of(ReplyRow)
TOKENS = tuple(field.name for field in fields(Usage))
DOLLARS = ("cost_usd", "reserved_usd")
DRAFT_FIELDS = tuple(field.name for field in fields(Draft) if field.name in DRAFTS.columns)
REPLY_FIELDS = tuple(column.key for column in REPLIES.columns)
UNSETTLED = (AttemptOutcome.UNKNOWN, AttemptOutcome.TIMED_OUT)
"""may have been billed without our knowing: they keep their worst-case reservation"""

# The statements around every call, built once: building them anew takes longer than SQLite does.
_CEILING = func.coalesce(bindparam("own_ceiling", type_=Dollars()), CAMPAIGNS.c.ceiling_usd)
_COMMITTED = CAMPAIGNS.c.committed_usd + bindparam("amount", type_=Dollars())
_THIS_CAMPAIGN = CAMPAIGNS.c.campaign_id == bindparam("of_campaign")
RESERVE = (
    update(CAMPAIGNS)
    .where(_THIS_CAMPAIGN, or_(_CEILING.is_(None), _COMMITTED <= _CEILING))
    .values(committed_usd=_COMMITTED)
)
CORRECT_COMMITTED = update(CAMPAIGNS).where(_THIS_CAMPAIGN).values(committed_usd=_COMMITTED)
LAST_NUMBERS = (
    select(ATTEMPTS.c.request_hash, func.max(ATTEMPTS.c.number))
    .where(ATTEMPTS.c.request_hash.in_(bindparam("of_requests", expanding=True)))
    .group_by(ATTEMPTS.c.request_hash)
)
OPEN_ATTEMPTS = (
    select(
        ATTEMPTS.c.attempt_id,
        ATTEMPTS.c.image_id,
        ATTEMPTS.c.campaign_id,
        ATTEMPTS.c.reserved_usd,
        ATTEMPTS.c.started_at,
    )
    .where(
        ATTEMPTS.c.attempt_id.in_(bindparam("of_attempts", expanding=True)),
        ATTEMPTS.c.outcome == AttemptOutcome.UNKNOWN,
    )
    .with_for_update()
)
SETTLE = (
    update(ATTEMPTS)
    .where(ATTEMPTS.c.attempt_id == bindparam("of_attempt"))
    .values(
        outcome=bindparam("ended"),
        cost_usd=bindparam("cost"),
        reason=bindparam("why"),
        finished_at=bindparam("at"),
        **{name: bindparam(f"its_{name}") for name in TOKENS},
    )
)
STORED_REPLIES = (
    select(*REPLIES.columns, *(ATTEMPTS.c[name] for name in TOKENS))
    .join(ATTEMPTS, ATTEMPTS.c.attempt_id == REPLIES.c.attempt_id)
    .where(
        REPLIES.c.request_hash.in_(bindparam("of_requests", expanding=True)),
        or_(ATTEMPTS.c.server == bindparam("of_server"), ATTEMPTS.c.server.is_(None)),
    )
    .order_by(ATTEMPTS.c.number)
)
STORE_REPLY = insert(REPLIES)
STORE_DRAFT = insert(DRAFTS)

DRAFTS_RANK, ATTEMPTS_RANK, CEILING_RANK = range(3)
"""the order in which one transaction locks rows: of images and work, of attempts, of campaigns
and then of days"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCount:
    """The calls of one arm that began on one day and ended in one way."""

    arm: str
    day: str
    """of UTC, YYYY-MM-DD"""
    outcome: AttemptOutcome
    model: str
    calls: int
    spent_usd: float
    reserved_usd: float
    """worst case of the calls whose cost is not known"""
    usage: Usage
    """of all of them"""


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
    """The ledger of a campaign's calls to one server, for any number of threads.

    What they write shares transactions.
    """

    def __init__(
        self,
        database: Database,
        campaign_id: str,
        *,
        teacher: str,
        ceiling_usd: float | None = None,
        usd_per_day: float | None = None,
    ) -> None:
        """`teacher` is an address, or `rehearsal`: only its own replies are used again.

        `ceiling_usd` takes the place of the campaign's own; `usd_per_day` holds for all.
        """
        self._database = database
        self._campaign_id = campaign_id
        self._server = server_of(teacher)
        self._ceiling_usd = ceiling_usd
        self._usd_per_day = usd_per_day

    def stored_reply(self, request_hash: str) -> TeacherReply | None:
        """The server's newest reply to this very request, in whichever campaign it was paid for."""
        return self._database.write_together(self.find_replies, request_hash)

    def find_replies(
        self, session: Session, request_hashes: Sequence[str]
    ) -> list[TeacherReply | None]:
        """Within a transaction of the caller's: what `stored_reply` returns for each."""
        return stored_replies(session, request_hashes, server=self._server)

    def open_attempt(
        self, *, request_hash: str, image_id: str, arm: str, model: str, reserved_usd: float
    ) -> str:
        """Write down a call before it is made; returns the attempt's id.

        Raises PermanentError when what is spent and set aside, with this call's worst case, would
        pass the ceiling of the campaign or of the day; two processes never pass it together. Raises
        StateError when the image was withdrawn.
        """
        attempt = {
            "request_hash": request_hash,
            "image_id": image_id,
            "campaign_id": self._campaign_id,
            "arm": arm,
            "model": model,
            "outcome": AttemptOutcome.UNKNOWN,
            "reserved_usd": reserved_usd,
        }
        return self._database.write_together(self.open_attempts, attempt, rank=CEILING_RANK)

    def open_attempts(
        self, session: Session, attempts: Sequence[Mapping[str, Any]]
    ) -> list[str | PermanentError | StateError]:
        """Within a transaction of the caller's: the id of each, or why it may not be made."""
        now = datetime.now(UTC)
        refusals = self._refuse_each(session, attempts, now)
        started = [{**row, "server": self._server, "started_at": now} for row in attempts]
        allowed = [row for row, no in zip(started, refusals, strict=True) if no is None]
        ids = iter(_insert_attempts(session, allowed))
        return [next(ids) if no is None else no for no in refusals]

    def store_reply(self, attempt_id: str, reply: TeacherReply, cost_usd: float) -> TeacherReply:
        """Store a reply and what it cost; returns it exactly as it will be read back."""
        end = End.with_reply(attempt_id, reply, cost_usd)
        self._database.write_together(end_attempts, end, rank=ATTEMPTS_RANK)
        assert end.reply is not None
        return end.reply

    def fail_attempt(self, attempt_id: str, outcome: AttemptOutcome, reason: str) -> None:
        """A call ended without a reply; one that may have been billed keeps its reservation."""
        end = End.with_failure(attempt_id, outcome, reason)
        self._database.write_together(end_attempts, end, rank=ATTEMPTS_RANK)

    def _refuse_each(
        self, session: Session, attempts: Sequence[Mapping[str, Any]], now: datetime
    ) -> list[PermanentError | StateError | None]:
        """Why a call may not be made: its image was withdrawn, or there is no money for it."""
        withdrawn = withdrawn_among(session, {row["image_id"] for row in attempts})
        standing = [row["reserved_usd"] for row in attempts if row["image_id"] not in withdrawn]
        reserved = iter(self._reserve_each(session, standing, now) if standing else ())
        return [
            StateError(f"image {row['image_id']} was withdrawn: nothing is asked about it")
            if row["image_id"] in withdrawn
            else next(reserved)
            for row in attempts
        ]

    def _reserve_each(
        self, session: Session, amounts: Sequence[float], now: datetime
    ) -> list[PermanentError | None]:
        """Reserve the sum; where that is too much, one amount after the other."""
        try:
            self.reserve(session, exact_sum(amounts), now)
        except PermanentError as error:
            if len(amounts) == 1:
                return [error]
            return [no for amount in amounts for no in self._reserve_each(session, [amount], now)]
        return [None] * len(amounts)

    def reserve(self, session: Session, amount_usd: float, started_at: datetime) -> None:
        """Set money aside for attempts that start now, within a transaction of the caller's.

        The conditions of its updates are the ceilings of the campaign and of the day:
        PermanentError when one of them would be passed, and nothing changed.
        """
        values = {
            "of_campaign": self._campaign_id,
            "amount": amount_usd,
            "own_ceiling": self._ceiling_usd,
        }
        connection = session.connection()
        if not connection.execute(RESERVE, values).rowcount:
            raise PermanentError(self._refusal(session, amount_usd))
        day, ceiling = day_of(started_at), self._usd_per_day
        try:
            reserve_on_day(session, day, amount_usd, ceiling_usd=ceiling)
        except PermanentError:
            connection.execute(CORRECT_COMMITTED, values | {"amount": -amount_usd})
            raise

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


class End(NamedTuple):
    """How an attempt ended."""

    attempt_id: str
    outcome: AttemptOutcome
    cost_usd: float | None
    """None: not known, the reservation stays"""
    reason: str | None = None
    reply: TeacherReply | None = None
    """as it is stored"""

    @classmethod
    def with_reply(cls, attempt_id: str, reply: TeacherReply, cost_usd: float) -> End:
        stored = _as_stored(reply, attempt_id)
        return cls(attempt_id, AttemptOutcome.REPLIED, cost_usd, reply=stored)

    @classmethod
    def with_failure(cls, attempt_id: str, outcome: AttemptOutcome, reason: str) -> End:
        return cls(attempt_id, outcome, None if outcome in UNSETTLED else 0.0, reason)


def end_attempts(session: Session, ends: Sequence[End]) -> list[StateError | None]:
    """Write down how open attempts ended, with their replies, and correct what is committed.

    An attempt that is not open has a StateError instead. What was said of an image that was
    withdrawn meanwhile is paid for and not stored.
    """
    connection = session.connection()
    ids = sorted(end.attempt_id for end in ends)
    found = connection.execute(OPEN_ATTEMPTS, {"of_attempts": ids}).mappings()
    still_open = {row["attempt_id"]: row for row in found}
    # asked once the attempts are locked: a takedown deletes what was stored before, or is seen
    withdrawn = withdrawn_among(session, {row["image_id"] for row in still_open.values()})
    results: list[StateError | None] = []
    settled: list[Mapping[str, Any]] = []
    replies: list[Mapping[str, Any]] = []
    corrections: dict[str, list[float]] = defaultdict(list)
    by_day: dict[str, list[float]] = defaultdict(list)
    for end in ends:
        row = still_open.pop(end.attempt_id, None)
        if row is None:
            results.append(StateError(f"attempt {end.attempt_id} is not open"))
            continue
        results.append(None)
        settled.append(_settling(end))
        if end.reply is not None and row["image_id"] not in withdrawn:
            replies.append({name: getattr(end.reply, name) for name in REPLY_FIELDS})
        if end.cost_usd is not None:
            amounts = [end.cost_usd, -row["reserved_usd"]]
            corrections[row["campaign_id"]] += amounts
            by_day[day_of(row["started_at"])] += amounts
    if settled:
        connection.execute(SETTLE, settled)
    if replies:
        connection.execute(STORE_REPLY, replies)
    for campaign_id, amounts in sorted(corrections.items()):
        values = {"of_campaign": campaign_id, "amount": exact_sum(amounts)}
        connection.execute(CORRECT_COMMITTED, values)
    correct_days(session, {day: exact_sum(amounts) for day, amounts in by_day.items()})
    return results


def _settling(end: End) -> dict[str, Any]:
    usage = None if end.reply is None else end.reply.usage
    return {
        "of_attempt": end.attempt_id,
        "ended": end.outcome,
        "cost": end.cost_usd,
        "why": end.reason,
        "at": datetime.now(UTC),
        **{f"its_{name}": getattr(usage, name, None) for name in TOKENS},
    }


def stored_replies(
    session: Session, request_hashes: Sequence[str], *, server: str
) -> list[TeacherReply | None]:
    """The newest reply of a server to each of these requests, where there is one.

    One of which no server was written down, before there was a place for it, counts for all.
    """
    values = {"of_requests": list(request_hashes), "of_server": server}
    rows = session.connection().execute(STORED_REPLIES, values)
    newest = {row["request_hash"]: row for row in rows.mappings()}
    return [_reply_of(newest[name]) if name in newest else None for name in request_hashes]


def replies_of_attempts(session: Session, attempt_ids: Sequence[str]) -> dict[str, TeacherReply]:
    """The replies that these attempts brought, by attempt."""
    rows = _rows_of_replies(session, ATTEMPTS.c.attempt_id, attempt_ids)
    return {row["attempt_id"]: _reply_of(row) for row in rows}


def replies_about(
    session: Session, campaign_id: str, arm: str, image_ids: Sequence[str]
) -> dict[str, list[TeacherReply]]:
    """What an arm was told about each of these images, in the order of the calls."""
    found: dict[str, list[TeacherReply]] = {}
    for row in _rows_of_replies(session, ATTEMPTS.c.image_id, image_ids):
        if (row["campaign_id"], row["arm"]) == (campaign_id, arm):
            found.setdefault(row["image_id"], []).append(_reply_of(row))
    return found


def _rows_of_replies(
    session: Session, column: ColumnElement[str], values: Sequence[str]
) -> Iterator[RowMapping]:
    whose = (ATTEMPTS.c.image_id, ATTEMPTS.c.campaign_id, ATTEMPTS.c.arm)
    statement = (
        select(*REPLIES.columns, *whose, *(ATTEMPTS.c[name] for name in TOKENS))
        .join(ATTEMPTS, ATTEMPTS.c.attempt_id == REPLIES.c.attempt_id)
        .order_by(ATTEMPTS.c.started_at, ATTEMPTS.c.number)
    )
    for batch in batches(values):
        yield from session.execute(statement.where(column.in_(batch))).mappings()


def _reply_of(row: RowMapping) -> TeacherReply:
    said = {name: row[name] for name in REPLY_FIELDS}
    return TeacherReply(**said, usage=_usage_of(row))


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


def count_calls(session: Session, campaign_id: str) -> list[CallCount]:
    """The calls of a campaign by arm, day and outcome: in one pass, for there may be millions."""
    keys = (AttemptRow.arm, _DAY[session.get_bind().dialect.name], AttemptRow.outcome)
    sums = [func.coalesce(func.sum(ATTEMPTS.c[name]), 0) for name in (*DOLLARS, *TOKENS)]
    rows = session.execute(
        select(*keys, func.max(AttemptRow.model), func.count(), *sums)
        .where(AttemptRow.campaign_id == campaign_id)
        .group_by(*keys)
        .order_by(*keys)
    )
    return [
        CallCount(
            arm=arm,
            day=str(day),
            outcome=outcome,
            model=model,
            calls=calls,
            spent_usd=cost,
            reserved_usd=reserved if outcome in UNSETTLED else 0.0,
            usage=Usage(**dict(zip(TOKENS, map(int, tokens), strict=True))),
        )
        for arm, day, outcome, model, calls, cost, reserved, *tokens in rows
    ]


def spending_of(counted: Sequence[CallCount]) -> Spending:
    """What some calls came to."""

    def calls(*outcomes: AttemptOutcome) -> int:
        return sum(each.calls for each in counted if each.outcome in outcomes)

    return Spending(
        spent_usd=exact_sum(each.spent_usd for each in counted),
        reserved_usd=exact_sum(each.reserved_usd for each in counted),
        attempts=calls(*AttemptOutcome),
        replies=calls(AttemptOutcome.REPLIED),
        unknown=calls(AttemptOutcome.UNKNOWN),
        **{name: sum(getattr(each.usage, name) for each in counted) for name in TOKENS},
    )


def outcomes_of(counted: Sequence[CallCount]) -> dict[AttemptOutcome, int]:
    """How many calls ended in which way, by outcome."""
    found: Counter[AttemptOutcome] = Counter()
    for each in sorted(counted, key=lambda each: each.outcome):
        found[each.outcome] += each.calls
    return dict(found)


def spent(session: Session, campaign_id: str) -> Spending:
    """What a campaign has spent and set aside, and its tokens."""
    return spending_of(count_calls(session, campaign_id))


def attempts_by_outcome(session: Session, campaign_id: str) -> dict[AttemptOutcome, int]:
    """How many attempts of a campaign ended in which way."""
    return outcomes_of(count_calls(session, campaign_id))


_DAY: dict[str, Any] = {
    "sqlite": func.date(AttemptRow.started_at, type_=String),
    "postgresql": func.date(func.timezone("UTC", AttemptRow.started_at), type_=Date),
}
"""the day of an attempt in UTC"""


def save_drafts(session: Session, drafts: Sequence[Draft]) -> set[str]:
    """Store drafts, each as the newest of its campaign, arm and image.

    Returns the ids of those that were not that before.
    """
    moved_ids: set[str] = set()
    for run in runs(drafts):
        moved = take_places(session, DRAFTS, {draft.draft_id: draft for draft in run})
        new = [draft for draft in run if draft.draft_id in moved.new]
        save_reasonings(session, {draft.draft_id: draft.reasoning for draft in new})
        if new:
            session.connection().execute(STORE_DRAFT, [_draft_values(draft) for draft in new])
        moved_ids |= moved.new | moved.again
    return moved_ids


def _draft_values(draft: Draft) -> dict[str, Any]:
    return {name: getattr(draft, name) for name in DRAFT_FIELDS}


def drafts(
    session: Session, campaign_id: str, arm: str, *, image_ids: Sequence[str] | None = None
) -> Iterator[Draft]:
    """The newest draft of each image (None: of all that have one), by image id.

    Withdrawn images are left out.
    """
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


def _as_stored(reply: TeacherReply, attempt_id: str) -> TeacherReply:
    return replace(
        reply,
        attempt_id=attempt_id,
        raw=storable(reply.raw),
        content=None if reply.content is None else storable(reply.content),
        refusal=None if reply.refusal is None else storable(reply.refusal),
    )


def _insert_attempts(session: Session, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Insert under the next free numbers; where another process takes one first, one by one."""
    if not rows:
        return []
    numbered = list(_numbered(session, rows))
    attempt = session.begin_nested()
    if insert_missing(session, ATTEMPTS, numbered) == len(numbered):
        attempt.commit()
        return [row["attempt_id"] for row in numbered]
    attempt.rollback()
    return [attempt_id for row in rows for attempt_id in _insert_attempts(session, [row])]


def _numbered(session: Session, rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows with their numbers and ids."""
    asked = sorted({row["request_hash"] for row in rows})
    found = session.connection().execute(LAST_NUMBERS, {"of_requests": asked})
    last: dict[str, int] = {row[0]: row[1] for row in found}
    for row in rows:
        request_hash = row["request_hash"]
        last[request_hash] = last.get(request_hash, 0) + 1
        attempt_id = content_id("attempt", request_hash, last[request_hash])
        yield {**row, "number": last[request_hash], "attempt_id": attempt_id}


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


def _newest_drafts(columns: Sequence[Any], campaign_id: str, arm: str) -> Select[Any]:
    return select(*columns).where(
        DraftRow.campaign_id == campaign_id,
        DraftRow.arm == arm,
        DraftRow.superseded_by.is_(None),
        ~is_withdrawn(DraftRow.image_id),
    )
