"""Campaigns, and the state of the work on each image in each arm; moved by conditional updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, bindparam, exists, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.errors import StateError
from core.ids import content_id
from core.recipe import Recipe
from core.records import Claim, WorkState
from db.statements import batches, change, insert_missing
from db.tables import DUE_STATES, CampaignRow, GuidanceRow, TombstoneRow, WorkRow, table_of

UNDRAFTED = (*DUE_STATES, WorkState.WAITING, WorkState.DRAFTING)
IN_HAND = (WorkState.DRAFTED, WorkState.IN_REVIEW)
# written into the SQL as it stands, or neither database would see that its partial index fits
IS_DUE = WorkRow.state.in_(bindparam("due", DUE_STATES, expanding=True, literal_execute=True))
WAITS_FOR_BATCH = (WorkRow.state == WorkState.DRAFTING) & WorkRow.claimed_until.is_(None)
"""no time is set to a batch's claims: they last until it was read (`db.batches`)"""
UNCLAIMED: dict[str, Any] = {"came_from": None, "worker": None, "claimed_until": None}
GIVEN_BACK: dict[str, Any] = {**UNCLAIMED, "state": WorkRow.came_from}
_THESE = WorkRow.work_id.in_(bindparam("of_work", expanding=True))
HELD_CLAIMS = (
    select(WorkRow.work_id, WorkRow.worker, WorkRow.tries)
    .where(_THESE, WorkRow.state == WorkState.DRAFTING)
    .order_by(WorkRow.work_id)
    .with_for_update()
)
MARK_DRAFTED = update(WorkRow).where(_THESE).values(UNCLAIMED | {"state": WorkState.DRAFTED})


def campaign_id_of(recipe: Recipe) -> str:
    """The id of this recipe version's campaign, whether it was opened or not."""
    return content_id("campaign", recipe.name, recipe.drafting_digest)


def open_campaign(session: Session, recipe: Recipe, *, ceiling_usd: float | None) -> str:
    """The id of this recipe version's campaign, made when new; a ceiling replaces the old one."""
    campaign_id = campaign_id_of(recipe)
    campaign = {
        "campaign_id": campaign_id,
        "recipe": recipe.name,
        "drafting_digest": recipe.drafting_digest,
    }
    insert_missing(session, table_of(CampaignRow), [campaign])
    if ceiling_usd is not None:
        _set_campaign(session, campaign_id, ceiling_usd=ceiling_usd)
    return campaign_id


def campaign_ceiling(session: Session, campaign_id: str) -> float | None:
    """The most that a campaign may spend; None when nobody set a ceiling."""
    return session.scalar(
        select(CampaignRow.ceiling_usd).where(CampaignRow.campaign_id == campaign_id)
    )


def stop_campaign(session: Session, campaign_id: str, reason: str) -> None:
    """Tell every worker to end, and why; the first reason stands."""
    change(
        session,
        update(CampaignRow)
        .where(CampaignRow.campaign_id == campaign_id, CampaignRow.stopped_reason.is_(None))
        .values(stopped_reason=reason),
    )


def resume_campaign(session: Session, campaign_id: str) -> None:
    """Let workers go on with a stopped campaign."""
    _set_campaign(session, campaign_id, stopped_reason=None)


def stopped_because(session: Session, campaign_id: str) -> str | None:
    """Why a campaign was stopped; None while it may go on."""
    return session.scalar(
        select(CampaignRow.stopped_reason).where(CampaignRow.campaign_id == campaign_id)
    )


def employ(
    session: Session, campaign_id: str, *, recipe_folder: str, rehearsal_url: str | None
) -> None:
    """Say what workers need to know to take part in a campaign."""
    _set_campaign(session, campaign_id, recipe_folder=recipe_folder, rehearsal_url=rehearsal_url)


class Running(NamedTuple):
    """A campaign that workers may take part in."""

    campaign_id: str
    recipe_folder: str
    rehearsal_url: str | None


def running_campaigns(session: Session) -> list[Running]:
    """The campaigns that were started, not stopped, and not finished; in the order of their ids."""
    undrafted = exists().where(
        WorkRow.campaign_id == CampaignRow.campaign_id, WorkRow.state.in_(UNDRAFTED)
    )
    rows = session.execute(
        select(CampaignRow.campaign_id, CampaignRow.recipe_folder, CampaignRow.rehearsal_url)
        .where(CampaignRow.recipe_folder.is_not(None), CampaignRow.stopped_reason.is_(None))
        .where(undrafted)
        .order_by(CampaignRow.campaign_id)
    )
    return [Running(campaign_id, folder or "", url) for campaign_id, folder, url in rows]


def take_turn(session: Session, campaign_id: str, *, now: datetime, every: timedelta) -> bool:
    """Whether the caller alone may tend a campaign now: nobody has for so long."""
    is_time = or_(CampaignRow.tended_at.is_(None), CampaignRow.tended_at <= now - every)
    return bool(
        change(
            session,
            update(CampaignRow)
            .where(CampaignRow.campaign_id == campaign_id, is_time)
            .values(tended_at=now),
        )
    )


def add_work(
    session: Session,
    campaign_id: str,
    arm: str,
    image_ids: Sequence[str],
    *,
    state: WorkState = WorkState.NEW,
) -> int:
    """Put these images before an arm, those that it has not seen; returns how many.

    One that is withdrawn at this moment is not due.
    """
    rows = [
        {
            "work_id": content_id("work", campaign_id, arm, image_id),
            "campaign_id": campaign_id,
            "arm": arm,
            "image_id": image_id,
            "state": state,
            "tries": 0,
        }
        for image_id in image_ids
    ]
    added = insert_missing(session, table_of(WorkRow), rows)
    # a statement of its own: the insert has waited for a takedown that was under way
    withdrawn = update(WorkRow).where(
        WorkRow.image_id.in_(select(TombstoneRow.image_id)),
        WorkRow.campaign_id == campaign_id,
        WorkRow.arm == arm,
        WorkRow.state == state,
    )
    return added - change(session, withdrawn.values(state=WorkState.WITHDRAWN))


def release_waiting(
    session: Session, campaign_id: str, arm: str, *, waits_for: Sequence[str]
) -> int:
    """Work whose image all arms in `waits_for` have drafted or set aside is due; returns how much.

    An arm that was never given the image holds nothing up.
    """
    other = aliased(WorkRow)
    is_awaited = exists().where(
        other.campaign_id == campaign_id,
        other.arm.in_(waits_for),
        other.image_id == WorkRow.image_id,
        other.state.in_(UNDRAFTED),
    )
    ready = update(WorkRow).where(
        WorkRow.campaign_id == campaign_id,
        WorkRow.arm == arm,
        WorkRow.state == WorkState.WAITING,
        ~is_awaited,
    )
    return change(session, ready.values(state=WorkState.NEW))


def release_guided(session: Session, campaign_id: str, arm: str) -> int:
    """New work on images that blind experts have settled is guided now."""
    return _settle_new(session, campaign_id, arm, GuidanceRow.hard.is_(None), WorkState.GUIDED)


def quarantine_hard(session: Session, campaign_id: str, arm: str) -> int:
    """New work on images that blind experts took for what they are not is set aside."""
    is_hard = GuidanceRow.hard.is_not(None)
    reason = select("hard: " + GuidanceRow.hard).where(GuidanceRow.image_id == WorkRow.image_id)
    return _settle_new(
        session,
        campaign_id,
        arm,
        is_hard,
        WorkState.QUARANTINED,
        reason=reason.scalar_subquery(),
    )


def _settle_new(
    session: Session,
    campaign_id: str,
    arm: str,
    settled: ColumnElement[bool],
    state: WorkState,
    **values: Any,
) -> int:
    statement = update(WorkRow).where(
        WorkRow.campaign_id == campaign_id,
        WorkRow.arm == arm,
        WorkRow.state == WorkState.NEW,
        WorkRow.image_id.in_(select(GuidanceRow.image_id).where(settled)),
    )
    return change(session, statement.values(state=state, **values))


def claim(
    session: Session,
    campaign_id: str,
    *,
    arms: Sequence[str],
    worker: str,
    limit: int,
    seconds: int,
    now: datetime,
) -> list[Claim]:
    """Take up to `limit` due images for `worker`, until `seconds` from `now`.

    The first of these arms goes first, in it the lowest work id. No two claims ever hold the same
    row at the same time, however many processes claim.
    """
    rows: list[Any] = []
    for arm in arms:
        rows += session.execute(
            select(WorkRow.work_id, WorkRow.image_id, WorkRow.arm, WorkRow.tries)
            .where(WorkRow.campaign_id == campaign_id, WorkRow.arm == arm, IS_DUE, _may_start(now))
            .order_by(WorkRow.work_id)
            .limit(limit - len(rows))
            .with_for_update(skip_locked=True)
        ).all()
    for batch in batches(rows):
        change(
            session,
            update(WorkRow)
            .where(WorkRow.work_id.in_([row.work_id for row in batch]), IS_DUE)
            .values(
                came_from=WorkRow.state,
                state=WorkState.DRAFTING,
                tries=WorkRow.tries + 1,
                worker=worker,
                claimed_until=now + timedelta(seconds=seconds),
                due_at=None,
            ),
        )
    return [
        Claim(
            work_id=row.work_id,
            campaign_id=campaign_id,
            image_id=row.image_id,
            arm=row.arm,
            tries=row.tries + 1,
            worker=worker,
        )
        for row in rows
    ]


def extend_claims(
    session: Session, worker: str, work_ids: Sequence[str], *, seconds: int, now: datetime
) -> int:
    """Let the claims that `worker` still holds run until `seconds` from `now`; returns how many."""
    return _change_held(
        session, worker, work_ids, {"claimed_until": now + timedelta(seconds=seconds)}
    )


def release(
    session: Session,
    worker: str,
    work_ids: Sequence[str] | None = None,
    *,
    due_at: datetime | None = None,
    untried: bool = False,
) -> int:
    """Give back what `worker` still holds of these (None: of all), to the state it came from.

    With `due_at` nobody claims it before that moment. `untried`: nobody was asked about it, so the
    claim does not count as a try.
    """
    if work_ids is None:
        work_ids = list(session.scalars(select(WorkRow.work_id).where(_held_by(worker))))
    tries = WorkRow.tries - 1 if untried else WorkRow.tries
    return _change_held(session, worker, work_ids, GIVEN_BACK | {"due_at": due_at, "tries": tries})


def free_expired(session: Session, campaign_id: str, now: datetime) -> int:
    """Return expired claims to the state that they came from; returns how many."""
    expired = session.scalars(
        select(WorkRow.work_id)
        .where(
            WorkRow.campaign_id == campaign_id,
            WorkRow.state == WorkState.DRAFTING,
            WorkRow.claimed_until <= now,
        )
        .order_by(WorkRow.work_id)
        .with_for_update(skip_locked=True)
    ).all()
    return sum(
        change(
            session,
            update(WorkRow)
            .where(WorkRow.work_id.in_(batch), WorkRow.state == WorkState.DRAFTING)
            .values(GIVEN_BACK),
        )
        for batch in batches(expired)
    )


def claiming_workers(session: Session, campaign_id: str) -> list[str]:
    """The workers that hold claims of a campaign, in the order of their names."""
    statement = select(WorkRow.worker).where(
        WorkRow.campaign_id == campaign_id,
        WorkRow.state == WorkState.DRAFTING,
        WorkRow.worker.is_not(None),
    )
    return [str(name) for name in session.scalars(statement.distinct().order_by(WorkRow.worker))]


def drafted_or_lost(session: Session, claims: Sequence[Claim]) -> list[StateError | None]:
    """These claims have their drafts; StateError for each whose row was taken away in between."""
    connection = session.connection()
    ids = sorted(claim.work_id for claim in claims)
    # with tries: the same worker may have lost a row and claimed it again
    held = {tuple(row) for row in connection.execute(HELD_CLAIMS, {"of_work": ids})}
    kept = [claim for claim in claims if (claim.work_id, claim.worker, claim.tries) in held]
    if kept:
        connection.execute(MARK_DRAFTED, {"of_work": [claim.work_id for claim in kept]})
    return [None if claim in kept else _lost(claim) for claim in claims]


def _lost(claim: Claim) -> StateError:
    return StateError(f"image {claim.image_id}, arm {claim.arm}: the claim was lost")


def quarantine(session: Session, work_id: str, reason: str) -> None:
    """Set an image that has no draft yet aside, with the reason. Raises StateError otherwise."""
    undrafted = update(WorkRow).where(WorkRow.work_id == work_id, WorkRow.state.in_(UNDRAFTED))
    aside = UNCLAIMED | {"state": WorkState.QUARANTINED, "reason": reason}
    if not change(session, undrafted.values(aside)):
        raise StateError(f"{work_id} is done already and cannot be set aside")


def rescue(session: Session, work_id: str) -> bool:
    """An image that was set aside has its draft after all; False when it is aside no longer."""
    aside = update(WorkRow).where(
        WorkRow.work_id == work_id, WorkRow.state == WorkState.QUARANTINED
    )
    return bool(change(session, aside.values(state=WorkState.DRAFTED, reason=None)))


def renew(session: Session, campaign_id: str, arm: str, image_ids: Sequence[str]) -> int:
    """What an arm drafted or set aside of these images is due again; returns how many moved."""
    done = (*IN_HAND, WorkState.CHAINED, WorkState.QUARANTINED)
    due = {"state": WorkState.NEW, "reason": None, "tries": 0}
    return _move(session, campaign_id, arm, image_ids, among=done, to=due)


def mark_chained(session: Session, campaign_id: str, arm: str, image_ids: Sequence[str]) -> int:
    """Drafted and reviewed images of an arm have their chain; returns how many moved."""
    chained = {"state": WorkState.CHAINED}
    return _move(session, campaign_id, arm, image_ids, among=IN_HAND, to=chained)


def _move(
    session: Session,
    campaign_id: str,
    arm: str,
    image_ids: Sequence[str],
    *,
    among: Sequence[WorkState],
    to: Mapping[str, Any],
) -> int:
    """Change the work on these images that is in one of some states; returns how many moved."""
    return sum(
        change(
            session,
            update(WorkRow)
            .where(
                WorkRow.campaign_id == campaign_id,
                WorkRow.arm == arm,
                WorkRow.image_id.in_(batch),
                WorkRow.state.in_(among),
            )
            .values(**to),
        )
        for batch in batches(sorted(image_ids))
    )


def work_counts(session: Session, campaign_id: str) -> dict[WorkState, int]:
    """How many rows of a campaign, over all arms, are in each state that occurs."""
    rows = session.execute(
        select(WorkRow.state, func.count())
        .where(WorkRow.campaign_id == campaign_id)
        .group_by(WorkRow.state)
        .order_by(WorkRow.state)
    )
    return dict(rows.all())


def is_due(
    session: Session, campaign_id: str, now: datetime, *, arms: Sequence[str] | None = None
) -> bool:
    """Whether anything in these arms (None: in all) could be claimed now.

    It was never claimed, or given back and not for later, or is held past its time.
    """
    expired = (WorkRow.state == WorkState.DRAFTING) & (WorkRow.claimed_until <= now)
    waiting = [IS_DUE & _may_start(now), expired]
    statements = [
        select(WorkRow.work_id).where(WorkRow.campaign_id == campaign_id, w).limit(1)
        for w in waiting
    ]
    if arms is not None:
        statements = [statement.where(WorkRow.arm.in_(arms)) for statement in statements]
    return any(session.scalar(statement) is not None for statement in statements)


def given_image_ids(session: Session, campaign_id: str, arm: str) -> set[str]:
    """The images that were ever put before an arm."""
    statement = select(WorkRow.image_id).where(
        WorkRow.campaign_id == campaign_id, WorkRow.arm == arm
    )
    return set(session.scalars(statement))


def undrafted_image_ids(session: Session, campaign_id: str, arm: str) -> set[str]:
    """The images that an arm still has to draft, claimed ones too.

    Left out are quarantined ones, and those that wait for a batch: their claims have no end.
    """
    statement = select(WorkRow.image_id).where(
        WorkRow.campaign_id == campaign_id,
        WorkRow.arm == arm,
        WorkRow.state.in_(UNDRAFTED),
        ~WAITS_FOR_BATCH,
    )
    return set(session.scalars(statement))


def set_aside(session: Session, campaign_id: str, arm: str) -> list[Claim]:
    """The quarantined work of an arm, by image; each as the claim under which it was set aside."""
    rows = session.execute(
        select(WorkRow.work_id, WorkRow.image_id, WorkRow.tries)
        .where(
            WorkRow.campaign_id == campaign_id,
            WorkRow.arm == arm,
            WorkRow.state == WorkState.QUARANTINED,
        )
        .order_by(WorkRow.image_id)
    )
    return [
        Claim(
            work_id=row.work_id,
            campaign_id=campaign_id,
            image_id=row.image_id,
            arm=arm,
            tries=row.tries,
            worker="",
        )
        for row in rows
    ]


def count_quarantined(session: Session, campaign_id: str) -> dict[str, int]:
    """How much was set aside for each reason, by reason."""
    reason = func.coalesce(WorkRow.reason, "")
    rows = session.execute(
        select(reason, func.count())
        .where(WorkRow.campaign_id == campaign_id, WorkRow.state == WorkState.QUARANTINED)
        .group_by(reason)
        .order_by(reason)
    )
    return dict(rows.all())


def _set_campaign(session: Session, campaign_id: str, **values: object) -> None:
    change(
        session,
        update(CampaignRow).where(CampaignRow.campaign_id == campaign_id).values(**values),
    )


def _may_start(now: datetime) -> Any:
    return or_(WorkRow.due_at.is_(None), WorkRow.due_at <= now)


def _held_by(worker: str) -> Any:
    return (WorkRow.state == WorkState.DRAFTING) & (WorkRow.worker == worker)


def _change_held(
    session: Session, worker: str, work_ids: Sequence[str], values: dict[str, Any]
) -> int:
    return sum(
        change(
            session,
            update(WorkRow).where(WorkRow.work_id.in_(batch), _held_by(worker)).values(values),
        )
        for batch in batches(sorted(work_ids))
    )
