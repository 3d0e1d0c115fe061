"""Progress: the funnel, what is set aside and why, the pace, live while work goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from core.errors import ConfigError
from core.quality import PHOTOGRAPHS
from core.records import WorkState
from dashboard import charts, pictures, show
from dashboard.place import FRESH_SECONDS, Place, recipe_of
from db.images import ImageCounts, count_images
from db.progress import (
    CampaignSummary,
    FunnelCount,
    Pace,
    Wait,
    count_held_up,
    funnel,
    held_up_images,
    pace,
    set_aside_images,
)
from db.reports import Costs, costs
from db.work import count_quarantined, stopped_because, work_counts

DRAFTED = (WorkState.DRAFTED, WorkState.IN_REVIEW, WorkState.CHAINED, WorkState.REJECTED)
"""states that only an image with a draft can be in"""
PACE_MINUTES = 15
WAITS = {
    Wait.EXPIRED: "held by a worker that went silent: the next one frees it",
    Wait.LATER: "to be tried again later",
    Wait.IN_BATCH: "in a batch that the teacher has not answered",
}
IMAGES_PER_PAGE = 12


def show_page(place: Place) -> None:
    """The page."""
    campaign = show.header(place, "Progress")
    if campaign is None:
        return
    is_live = bool(place.ask(work_counts, campaign.campaign_id)) and st.toggle(
        "Live", value=True, help=f"Looks again every {FRESH_SECONDS} seconds", key="live"
    )
    st.fragment(_figures, run_every=FRESH_SECONDS if is_live else None)(place, campaign)
    _show_held_up(place, campaign)
    _show_set_aside(place, campaign, place.ask(count_quarantined, campaign.campaign_id))


def _figures(place: Place, campaign: CampaignSummary) -> None:
    now = _this_minute()
    work = place.ask(work_counts, campaign.campaign_id)
    counts = place.ask(funnel, campaign.campaign_id)
    recent = place.ask(pace, campaign.campaign_id, now=now, minutes=PACE_MINUTES)
    reason = place.ask(stopped_because, campaign.campaign_id)
    if reason:
        show.problem("The campaign was stopped; `draft` goes on with it.", reason)
    money = _costs(place, campaign, now.replace(hour=0, minute=0))  # kept for the day
    _show_headline(place.ask(count_images), Counter(work), recent, money)
    if money is not None and any(arm.is_simulated for arm in money.arms):
        st.caption("Simulated: the rehearsal teacher answers, a program that measures pixels.")
    if not counts:
        show.empty("No image of this campaign is to be drafted yet.", "python -m generation draft")
        return
    left, right = st.columns(2, gap="large")
    with left:
        _draw_funnel(work)
    with right:
        _draw_origins(counts)
    waits = place.ask(count_held_up, campaign.campaign_id, now=now)
    said = [f"{waits[wait]:,} {words}" for wait, words in WAITS.items() if waits[wait]]
    if said:
        st.warning("Waiting: " + "; ".join(said) + ".", icon=":material/hourglass_top:")
    with st.expander("By source, generator and arm", icon=":material/table_rows:"):
        show.table(_by_origin(counts), name="progress", columns=_ORIGIN_COLUMNS)


def _show_headline(
    images: ImageCounts, work: Counter[WorkState], recent: Pace, money: Costs | None
) -> None:
    drafted = sum(work[state] for state in DRAFTED)
    total = work.total() - work[WorkState.WITHDRAWN]
    cells = st.columns(6)
    show.figure(cells[0], "Images", f"{images.total:,}", f"{images.labelled:,} labelled")
    show.figure(cells[1], "Drafted", _share(drafted, total), f"{drafted:,} of {total:,}")
    chained = work[WorkState.CHAINED]
    show.figure(cells[2], "Chained", _share(chained, total), f"{chained:,} in FakeChain")
    aside = f"{work[WorkState.QUARANTINED]:,}"
    show.figure(cells[3], "Set aside", aside, f"{work[WorkState.REJECTED]:,} rejected by experts")
    rate = f"{recent.due:,} due · {recent.per_minute:,.0f} a minute"
    show.figure(cells[4], "Time left", _time_left(recent), rate, _PACE_HELP)
    if money is None:
        show.figure(cells[5], "Spent", "-", "recipe not here")
    else:
        forecast = money.forecast_usd
        words = "forecast not known" if forecast is None else f"forecast ${forecast:,.2f}"
        show.figure(cells[5], "Spent", f"${money.spending.spent_usd:,.2f}", words)


_PACE_HELP = f"At the pace of the last {PACE_MINUTES} minutes"


def _costs(place: Place, campaign: CampaignSummary, today: datetime) -> Costs | None:
    try:
        recipe = recipe_of(place, campaign)
    except ConfigError:
        return None
    return place.ask(
        costs,
        campaign.campaign_id,
        recipe.arms,
        now=today,
        usd_per_day=place.settings.usd_per_day,
    )


def _draw_funnel(work: Mapping[WorkState, int]) -> None:
    order = [str(state) for state in WorkState if work.get(state)]
    rows = [{"state": state, "images": work[WorkState(state)]} for state in order]
    frame = pd.DataFrame(rows)
    frame["part"] = frame["state"]
    total = sum(work.values())
    charts.bars(
        frame,
        title=f"Where the work stands ({total:,} images in arms)",
        value="images",
        name="state",
        unit="images",
        parts=("part", {state: charts.STATES[state] for state in order}),
        order=order,
    )


def _draw_origins(counts: Sequence[FunnelCount]) -> None:
    sums: Counter[tuple[str, str]] = Counter()
    for each in counts:
        sums[_origin(each), str(each.state)] += each.images
    frame = pd.DataFrame(
        [
            {"generator": show.cell(origin), "state": state, "images": images}
            for (origin, state), images in sums.items()
        ]
    )
    present = [str(state) for state in WorkState if (frame["state"] == state).any()]
    charts.bars(
        frame,
        title=f"By generator ({frame['images'].sum():,} images in arms)",
        value="images",
        name="generator",
        unit="images",
        parts=("state", {state: charts.STATES[state] for state in present}),
    )


def _origin(count: FunnelCount) -> str:
    return count.generator or PHOTOGRAPHS


_ORIGIN_COLUMNS = {
    "images": show.count("images"),
    "drafted": show.count("drafted"),
    "drafted share": show.percent("drafted"),
    "chained": show.count("chained"),
    "chained share": show.percent("chained"),
    "rejected": show.count("rejected"),
    "set aside": show.count("set aside"),
    "set aside share": show.percent("set aside"),
}


def _by_origin(counts: Sequence[FunnelCount]) -> list[dict[str, object]]:
    """Counts and rates by source, generator and arm; withdrawn images are left out."""
    states: dict[tuple[str, str, str], Counter[WorkState]] = {}
    for each in counts:
        if each.state is not WorkState.WITHDRAWN:
            states.setdefault((each.source, _origin(each), each.arm), Counter())[each.state] += (
                each.images
            )
    rows: list[dict[str, object]] = []
    for (source, generator, arm), found in states.items():
        total = found.total()
        drafted = sum(found[state] for state in DRAFTED)
        rows.append(
            {
                "source": source,
                "generator": generator,
                "arm": arm,
                "images": total,
                "drafted": drafted,
                "drafted share": drafted / total,
                "chained": found[WorkState.CHAINED],
                "chained share": found[WorkState.CHAINED] / total,
                "rejected": found[WorkState.REJECTED],
                "set aside": found[WorkState.QUARANTINED],
                "set aside share": found[WorkState.QUARANTINED] / total,
            }
        )
    return rows


def _show_held_up(place: Place, campaign: CampaignSummary) -> None:
    """Not live: pictures that are drawn again fade for a moment."""
    now = _this_minute()
    total = sum(place.ask(count_held_up, campaign.campaign_id, now=now).values())
    if not total:
        return
    st.subheader(f"Waiting ({total:,})", anchor=False)
    offset = show.turn_pages(total, size=IMAGES_PER_PAGE, key="waiting")
    images = place.ask(
        held_up_images, campaign.campaign_id, now=now, limit=IMAGES_PER_PAGE, offset=offset
    )
    for column, each in zip(pictures.grid(len(images)), images, strict=False):
        with column:
            pictures.thumbnail(place, each.image)
            st.text(f"{each.image.image_id}\n{WAITS[each.wait]}\n{show.cell(each.reason)}")


def _show_set_aside(place: Place, campaign: CampaignSummary, found: Mapping[str, int]) -> None:
    total = sum(found.values())
    if not total:
        return
    st.subheader(f"Set aside ({total:,})", anchor=False)
    reasons = sorted(found, key=lambda reason: (-found[reason], reason))
    show.table(
        [{"images": found[reason], "reason": reason} for reason in reasons],
        name="set-aside",
        columns={
            "images": st.column_config.NumberColumn("images", format="localized", width="small"),
            "reason": st.column_config.TextColumn("reason", width="large"),
        },
    )
    reason = show.choose(st, "Reason", reasons, key="reason", all_of="All reasons")
    offset = show.turn_pages(total if reason is None else found[reason], size=IMAGES_PER_PAGE)
    images = place.ask(
        set_aside_images, campaign.campaign_id, reason, limit=IMAGES_PER_PAGE, offset=offset
    )
    for column, each in zip(pictures.grid(len(images)), images, strict=False):
        with column:
            pictures.thumbnail(place, each.image)
            st.text(f"{each.image.image_id}\n{show.cell(each.reason)}")


def _this_minute() -> datetime:
    """Whoever asks of the time asks the same for a minute, so that answers are kept."""
    return datetime.now(UTC).replace(second=0, microsecond=0)


def _share(part: int, total: int) -> str:
    return f"{part / total:.1%}" if total else "-"


def _time_left(recent: Pace) -> str:
    if not recent.due:
        return "done"
    if recent.minutes_left is None:
        return "not known"
    hours, minutes = divmod(round(recent.minutes_left), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{max(1, minutes)} min"
