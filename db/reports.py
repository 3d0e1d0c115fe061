"""The one read model: where everything stands, and what it cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Exists, case, exists, func, null, select, union_all
from sqlalchemy.orm import Session

from core.quality import ReviewedDraft
from core.recipe import REHEARSAL, Arm, is_simulated
from core.records import AttemptOutcome, Authenticity, Correction, ReviewLevel, WorkState
from db.batches import WaitingBatch, waiting_batches
from db.chains import count_chains_by_level
from db.columns import exact_sum
from db.days import committed_on_day, day_of
from db.images import IMAGE_COLUMNS, ImageCounts, count_images, image_of
from db.ledger import CallCount, Spending, count_calls, outcomes_of, spending_of
from db.reviews import corrections
from db.statements import stream
from db.studio import drafts_by_id, lead_times
from db.tables import (
    CorrectionRow,
    DraftRow,
    FindingRow,
    ImageRow,
    ReasoningRow,
    WorkRow,
)
from db.tombstones import is_withdrawn
from db.work import (
    UNDRAFTED,
    WAITS_FOR_BATCH,
    campaign_ceiling,
    count_quarantined,
    stopped_because,
    work_counts,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where the images of a campaign stand, over all its arms."""

    campaign_id: str
    images: ImageCounts
    work: dict[WorkState, int]
    drafts: dict[Authenticity, int]
    """newest drafts by the label of their image"""
    fakes_without_trace: int
    """drafts of fakes with no finding that points to a fake"""
    photographs_with_trace: int
    """drafts of photographs with a finding that points to a fake"""
    chains: dict[ReviewLevel, int]
    quarantined: dict[str, int]
    """by reason"""
    batches: dict[str, WaitingBatch]
    """that images wait for"""
    stopped_because: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmCosts:
    """What one arm of a campaign, or its rewriting, came to, in US dollars."""

    arm: str
    model: str
    is_simulated: bool
    """asks the rehearsal teacher, which costs nothing"""
    calls: int
    drafts: int
    due: int
    """images of the arm without a draft, that wait for no batch"""
    spent_usd: float
    reserved_usd: float
    """worst case of the calls whose cost is not known"""
    usd_per_draft: float | None
    """all that was spent, by the drafts that could be read; None before the first"""
    forecast_usd: float | None
    """at the end of the campaign: spent, reserved, and the mean of a draft for each that is due"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DayCosts:
    """What a campaign came to on one day of UTC."""

    day: str
    """YYYY-MM-DD, of the start of the calls"""
    calls: int
    spent_usd: float
    reserved_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class InventedTraces:
    """Photographs of which drafts say what they say of fakes."""

    arm: str
    teacher: str
    photographs: int
    """with a draft"""
    called_fake: int
    with_traces: int
    """at least one finding points to `fake`, whatever the verdict"""
    by_category: dict[str, int]
    """photographs by trace category, the most frequent first"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a campaign has spent, set aside and may spend, and what it will have cost in the end."""

    campaign_id: str
    ceiling_usd: float | None
    today: str
    today_usd: float
    """spent or set aside today by all campaigns together"""
    usd_per_day: float | None
    """ceiling of all campaigns together"""
    spending: Spending
    usd_per_draft: float | None
    forecast_usd: float | None
    """None while an arm with work has no draft to go by"""
    arms: list[ArmCosts]
    days: list[DayCosts]
    by_outcome: dict[AttemptOutcome, int]


def status(session: Session, campaign_id: str) -> Status:
    """Where everything stands; a campaign that does not exist has nothing but images."""
    fakes, photographs = Authenticity.FAKE, Authenticity.REAL
    return Status(
        campaign_id=campaign_id,
        images=count_images(session),
        work=work_counts(session, campaign_id),
        drafts={label: _count_drafts(session, campaign_id, label) for label in Authenticity},
        fakes_without_trace=_count_drafts(session, campaign_id, fakes, ~_HAS_TRACE),
        photographs_with_trace=_count_drafts(session, campaign_id, photographs, _HAS_TRACE),
        chains=count_chains_by_level(session, campaign_id),
        quarantined=count_quarantined(session, campaign_id),
        batches=waiting_batches(session, campaign_id),
        stopped_because=stopped_because(session, campaign_id),
    )


def costs(
    session: Session,
    campaign_id: str,
    arms: Sequence[Arm],
    *,
    now: datetime,
    usd_per_day: float | None = None,
) -> Costs:
    """What a campaign with these arms cost so far, and what it will have cost."""
    counted = count_calls(session, campaign_id)
    by_arm = _costs_by_arm(session, campaign_id, arms, counted)
    spending = spending_of(counted)
    forecasts = [arm.forecast_usd for arm in by_arm if arm.forecast_usd is not None]
    return Costs(
        campaign_id=campaign_id,
        ceiling_usd=campaign_ceiling(session, campaign_id),
        today=day_of(now),
        today_usd=committed_on_day(session, day_of(now)),
        usd_per_day=usd_per_day,
        spending=spending,
        usd_per_draft=_ratio(spending.spent_usd, sum(arm.drafts for arm in by_arm)),
        forecast_usd=exact_sum(forecasts) if len(forecasts) == len(by_arm) else None,
        arms=by_arm,
        days=_costs_by_day(counted),
        by_outcome=outcomes_of(counted),
    )


def invented_traces(session: Session, campaign_id: str) -> list[InventedTraces]:
    """What the newest drafts of photographs say of generation, by arm and teacher."""
    drafts = (
        select(DraftRow.draft_id, DraftRow.arm, DraftRow.teacher)
        .join(ImageRow, ImageRow.image_id == DraftRow.image_id)
        .where(
            DraftRow.campaign_id == campaign_id,
            DraftRow.superseded_by.is_(None),
            ImageRow.label == Authenticity.REAL,
            ~is_withdrawn(DraftRow.image_id),
        )
        .cte("of_photographs")
        .prefix_with("MATERIALIZED")  # or SQLite goes through the findings of fakes as well
    )
    keys: list[Any] = [drafts.c.arm, drafts.c.teacher]
    traced = (
        select(*keys, drafts.c.draft_id, FindingRow.category)
        .join(FindingRow, FindingRow.reasoning_id == drafts.c.draft_id)
        .where(FindingRow.points_to == Authenticity.FAKE)
        .cte("traced")
        .prefix_with("MATERIALIZED")  # looked up once for both counts
    )
    called_fake = exists().where(
        ReasoningRow.reasoning_id == drafts.c.draft_id, ReasoningRow.verdict == Authenticity.FAKE
    )
    has_trace = drafts.c.draft_id.in_(select(traced.c.draft_id))
    whole = select(
        *keys,
        null(),
        func.count(),
        func.count(case((called_fake, 1))),
        func.count(case((has_trace, 1))),
    ).group_by(*keys)
    of_category = (traced.c.arm, traced.c.teacher, traced.c.category)
    by_category = select(
        *of_category, func.count(traced.c.draft_id.distinct()), null(), null()
    ).group_by(*of_category)
    wholes: dict[tuple[str, str], tuple[int, int, int]] = {}
    traces: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for arm, teacher, category, *numbers in session.execute(union_all(whole, by_category)):
        if category is None:
            wholes[arm, teacher] = numbers[0], numbers[1], numbers[2]
        else:
            traces[arm, teacher][category] = numbers[0]
    return [
        InventedTraces(
            arm=arm,
            teacher=teacher,
            photographs=photographs,
            called_fake=called_fake_of,
            with_traces=with_traces,
            by_category=_most_frequent_first(traces[arm, teacher]),
        )
        for (arm, teacher), (photographs, called_fake_of, with_traces) in sorted(wholes.items())
    ]


def _most_frequent_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def reviewed_drafts(
    session: Session, campaign_id: str, arms: Sequence[str]
) -> Iterator[ReviewedDraft]:
    """The drafts of these arms that experts have corrected, with what counts, by image id."""
    # not `exists`: all images would be gone through for the few that experts have seen
    is_corrected = ImageRow.image_id.in_(
        select(CorrectionRow.image_id)
        .join(DraftRow, DraftRow.draft_id == CorrectionRow.draft_id)
        .where(DraftRow.campaign_id == campaign_id, DraftRow.arm.in_(arms))
    )
    statement = select(*IMAGE_COLUMNS).where(is_corrected, ~is_withdrawn(ImageRow.image_id))
    for rows in stream(session, statement, ImageRow.image_id):
        images = {row["image_id"]: image_of(row) for row in rows}
        said = corrections(session, list(images))
        all_said = [correction for image_id in said for correction in said[image_id]]
        drafts = drafts_by_id(session, [correction.draft_id for correction in all_said])
        seconds = lead_times(session, [correction.correction_id for correction in all_said])
        for draft_id, about in _by_draft(all_said).items():
            draft = drafts[draft_id]
            if draft.campaign_id == campaign_id and draft.arm in arms:
                rulings = [correction for correction in about if correction.is_adjudication]
                yield ReviewedDraft(
                    image=images[draft.image_id],
                    draft=draft,
                    corrections=tuple(c for c in about if not c.is_adjudication),
                    ruling=rulings[-1] if rulings else None,
                    seconds=seconds,
                )


def _by_draft(said: Sequence[Correction]) -> dict[str, list[Correction]]:
    found: dict[str, list[Correction]] = defaultdict(list)
    for correction in said:
        found[correction.draft_id].append(correction)
    return found


def _costs_by_arm(
    session: Session, campaign_id: str, arms: Sequence[Arm], counted: Sequence[CallCount]
) -> list[ArmCosts]:
    calls = _grouped(counted, lambda each: each.arm)
    drafts = _count_by_arm(
        session, DraftRow, DraftRow.campaign_id == campaign_id, DraftRow.superseded_by.is_(None)
    )
    undrafted = (WorkRow.state.in_(UNDRAFTED), ~WAITS_FOR_BATCH)  # those are in the reservations
    due = _count_by_arm(session, WorkRow, WorkRow.campaign_id == campaign_id, *undrafted)
    drafting = [
        _costs_of(arm, calls.pop(arm.name, []), drafts.get(arm.name, 0), due.get(arm.name, 0))
        for arm in arms
    ]
    return drafting + [_costs_beside(name, calls[name]) for name in sorted(calls)]


def _costs_of(arm: Arm, calls: Sequence[CallCount], drafts: int, due: int) -> ArmCosts:
    spending = spending_of(calls)
    spent_usd, reserved_usd = spending.spent_usd, spending.reserved_usd
    per_draft = _ratio(spent_usd, drafts)
    to_come = 0.0 if due == 0 else None if per_draft is None else per_draft * due
    return ArmCosts(
        arm=arm.name,
        model=arm.model,
        is_simulated=arm.teacher == REHEARSAL,
        calls=spending.attempts,
        drafts=drafts,
        due=due,
        spent_usd=spent_usd,
        reserved_usd=reserved_usd,
        usd_per_draft=per_draft,
        forecast_usd=None if to_come is None else exact_sum([spent_usd, reserved_usd, to_come]),
    )


def _costs_beside(name: str, calls: Sequence[CallCount]) -> ArmCosts:
    """Calls of a campaign that draft nothing, such as those for rewordings."""
    spending = spending_of(calls)
    model = max(each.model for each in calls)
    return ArmCosts(
        arm=name,
        model=model,
        is_simulated=is_simulated(model),
        calls=spending.attempts,
        drafts=0,
        due=0,
        spent_usd=spending.spent_usd,
        reserved_usd=spending.reserved_usd,
        usd_per_draft=None,
        forecast_usd=exact_sum([spending.spent_usd, spending.reserved_usd]),
    )


def _costs_by_day(counted: Sequence[CallCount]) -> list[DayCosts]:
    by_day = {day: spending_of(calls) for day, calls in _grouped(counted, lambda c: c.day).items()}
    return [
        DayCosts(
            day=day,
            calls=spending.attempts,
            spent_usd=spending.spent_usd,
            reserved_usd=spending.reserved_usd,
        )
        for day, spending in sorted(by_day.items())
    ]


def _grouped(
    counted: Sequence[CallCount], key: Callable[[CallCount], str]
) -> dict[str, list[CallCount]]:
    found: dict[str, list[CallCount]] = defaultdict(list)
    for each in counted:
        found[key(each)].append(each)
    return found


def _count_by_arm(session: Session, row: Any, *conditions: Any) -> dict[str, int]:
    arm = row.arm.concat("")  # or SQLite goes through all rows in the order of their arms
    statement = select(arm, func.count()).where(*conditions).group_by(arm)
    return dict(session.execute(statement).all())


def _ratio(usd: float, count: int) -> float | None:
    return exact_sum([usd / count]) if count else None


_HAS_TRACE: Exists = exists().where(
    FindingRow.reasoning_id == DraftRow.draft_id, FindingRow.points_to == Authenticity.FAKE
)


def _count_drafts(session: Session, campaign_id: str, label: Authenticity, *conditions: Any) -> int:
    statement = (
        select(func.count())
        .select_from(DraftRow)
        .join(ImageRow, ImageRow.image_id == DraftRow.image_id)
        .where(
            DraftRow.campaign_id == campaign_id,
            DraftRow.superseded_by.is_(None),
            ImageRow.label == label,
            ~is_withdrawn(DraftRow.image_id),
            *conditions,
        )
    )
    return session.execute(statement).scalar_one()
