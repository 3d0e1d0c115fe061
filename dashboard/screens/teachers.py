"""Teacher quality and cost: what experts leave of its traces, what it invents, what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import pandas as pd
import streamlit as st

from core.preference import exact_share
from core.quality import TeacherQuality, TraceQuality
from dashboard import charts, show
from dashboard.place import Place, recipe_of
from db.quality import measure_quality
from db.reports import Costs, InventedTraces, costs, invented_traces


def show_page(place: Place) -> None:
    """The page."""
    campaign = show.header(place, "Teacher quality and cost")
    if campaign is None:
        return
    recipe = recipe_of(place, campaign)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    money = place.ask(
        costs,
        campaign.campaign_id,
        recipe.arms,
        now=today,
        usd_per_day=place.settings.usd_per_day,
    )
    quality = place.measure(measure_quality, recipe).traces
    _show_headline(money, quality)
    if any(arm.is_simulated for arm in money.arms):
        st.caption("Simulated: the rehearsal teacher answers, which costs nothing.")
    _show_outcomes(quality)
    _show_invented(place.ask(invented_traces, campaign.campaign_id))
    _show_costs(money)


def _show_headline(money: Costs, quality: TeacherQuality) -> None:
    overall, spending = quality.overall, money.spending
    cells = st.columns(6)
    decided = f"of {overall.accepted + overall.edited + overall.rejected:,} decisions"
    show.figure(cells[0], "Accepted", _percent(overall.accepted_share), decided)
    show.figure(cells[1], "Rejected", _percent(overall.rejected_share), f"{overall.rejected:,}")
    added = f"{overall.added:,} added by experts"
    show.figure(cells[2], "Missed", _percent(overall.added_share), added)
    show.figure(
        cells[3], "Spent", _usd(spending.spent_usd), f"reserved {_usd(spending.reserved_usd)}"
    )
    ceiling = f"ceiling {_usd(money.ceiling_usd)}"
    show.figure(cells[4], "Forecast", _usd(money.forecast_usd), ceiling)
    per_trace = spending.spent_usd / overall.accepted if overall.accepted else None
    per_draft = f"{_usd(money.usd_per_draft)} a draft"
    show.figure(cells[5], "Per accepted trace", _usd(per_trace), per_draft)


def _show_outcomes(quality: TeacherQuality) -> None:
    if not quality.drafts:
        show.empty("No expert has reviewed a draft yet. Experts check drafts in:", "make annotate")
        return
    left, right = st.columns(2, gap="large")
    with left:
        _draw_outcomes("trace category", quality.by_category)
    with right:
        _draw_outcomes("generator", quality.by_generator)
        _draw_outcomes("teacher and prompt", quality.by_teacher_version)
    with st.expander("Category × generator × teacher version", icon=":material/table_rows:"):
        show.table(
            [
                {
                    "category": each.cell.category,
                    "generator": each.cell.generator,
                    "teacher": each.cell.teacher_version,
                    **{name: getattr(each.quality, name) for name in charts.OUTCOMES},
                    "accepted share": each.quality.accepted_share,
                    "text changed": each.quality.text_changed,
                }
                for each in quality.cells
            ],
            name="teacher-quality",
            columns={name: show.percent(name) for name in ("accepted share", "text changed")},
        )


def _draw_outcomes(title: str, rows: Mapping[str, TraceQuality]) -> None:
    frame = pd.DataFrame(
        [
            {"name": show.cell(name), "outcome": outcome, "traces": getattr(row, outcome)}
            for name, row in rows.items()
            for outcome in charts.OUTCOMES
        ]
    )
    charts.bars(
        frame,
        title=f"What experts did, by {title} ({frame['traces'].sum():,} decisions)",
        value="traces",
        name="name",
        unit="decisions of experts",
        parts=("outcome", charts.OUTCOMES),
    )


def _show_invented(found: list[InventedTraces]) -> None:
    st.subheader("Traces of generation on real photographs", anchor=False)
    if not found:
        show.empty("No photograph has a draft yet.", "python -m generation draft")
        return
    st.caption(
        "In a control arm the teacher is not told the label, so every such trace is invented; in "
        "the other arms it knows that the photograph is real. 95 % intervals: Clopper and Pearson."
    )
    rates = []
    for each in found:
        share = exact_share(each.with_traces, each.photographs)
        name = show.cell(f"{each.arm} · {each.teacher}")
        rates.append(
            {
                "name": name,
                "value": share.share,
                "low": share.low,
                "high": share.high,
                "n": each.photographs,
            }
        )
    total = sum(each.photographs for each in found)
    left, right = st.columns(2, gap="large")
    with left:
        charts.intervals(
            pd.DataFrame(rates),
            title=f"Photographs with such a trace ({total:,} photographs)",
            unit="share of photographs",
            domain=(0.0, 1.0),
        )
    with right:
        show.table(
            [
                {"arm": each.arm, "teacher": each.teacher, "category": category, "images": images}
                for each in found
                for category, images in each.by_category.items()
            ]
            or [{"arm": each.arm, "teacher": each.teacher, "images": 0} for each in found],
            name="invented-traces",
            columns={"images": show.count("photographs")},
        )


def _show_costs(money: Costs) -> None:
    st.subheader("Money", anchor=False)
    show.table(
        [
            {
                "arm": arm.arm,
                "model": f"{arm.model} (simulated)" if arm.is_simulated else arm.model,
                "calls": arm.calls,
                "drafts": arm.drafts,
                "due": arm.due,
                "spent": arm.spent_usd,
                "reserved": arm.reserved_usd,
                "per draft": arm.usd_per_draft,
                "forecast": arm.forecast_usd,
            }
            for arm in money.arms
        ],
        name="costs",
        columns={
            **{name: show.count(name) for name in ("calls", "drafts", "due")},
            **{n: show.dollars(n) for n in ("spent", "reserved", "per draft", "forecast")},
        },
    )
    days = pd.DataFrame(
        [{"day": d.day, "calls": d.calls, "US dollars": d.spent_usd} for d in money.days]
    )
    if days.empty:
        return
    order = list(days["day"])
    left, right = st.columns(2, gap="large")
    with left:
        if days["US dollars"].any():
            charts.bars(
                days,
                title=f"Spent by day ({_usd(days['US dollars'].sum())})",
                value="US dollars",
                name="day",
                unit=charts.DOLLARS,
                order=order,
            )
        else:
            st.caption("No call has cost anything.")
    with right:
        charts.bars(
            days,
            title=f"Calls by day ({days['calls'].sum():,})",
            value="calls",
            name="day",
            unit="calls",
            order=order,
        )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _usd(amount: float | None) -> str:
    return "-" if amount is None else f"${amount:,.4f}" if amount < 10 else f"${amount:,.2f}"
