"""Charts: what each colour stands for, and the few forms that are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt
import pandas as pd
import streamlit as st

REAL, FAKE, NEITHER = "#0072B2", "#D55E00", "#8A8F98"
"""blue and vermilion of Okabe and Ito, which colour-blind people tell apart"""
LABELS: Final = {"real": REAL, "fake": FAKE, "no label": NEITHER, "no verdict": NEITHER}
OUTCOMES: Final = {
    "accepted": "#009E73",
    "edited": "#E69F00",
    "rejected": "#CC79A7",
    "added": "#56B4E9",
}
STATES: Final = {
    "new": "#C7CCD4",
    "guided": "#A9B4C2",
    "drafting": "#F0E442",
    "drafted": "#56B4E9",
    "in_review": "#E69F00",
    "chained": "#009E73",
    "rejected": "#CC79A7",
    "quarantined": "#9C2C2C",
    "withdrawn": "#6B6F76",
}
DOLLARS: Final = "US dollars"
"""a unit that is written before its numbers"""
SERIES: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


def bars(
    frame: pd.DataFrame,
    *,
    title: str,
    value: str,
    name: str,
    unit: str,
    parts: tuple[str, Mapping[str, str]] | None = None,
    order: Sequence[str] | None = None,
) -> None:
    """Horizontal bars, one per `name`, in one colour or stacked by a field with these colours."""
    number = "$~g" if unit == DOLLARS else "~s"
    axis = alt.Axis(format=number, title=unit, tickCount=5)
    encoding: dict[str, Any] = {
        "x": alt.X(f"sum({value}):Q", axis=axis),
        "y": alt.Y(
            f"{name}:N",
            sort=list(order) if order is not None else "-x",
            title=None,
            axis=alt.Axis(labelLimit=220),
        ),
        "tooltip": [f"{name}:N", alt.Tooltip(f"{value}:Q", format=",")],
    }
    chart = alt.Chart(frame, title=title)
    if parts is None:
        drawn = chart.mark_bar(color=SERIES[0], cornerRadiusEnd=2)
    else:
        field, colours = parts
        ranks = frame[field].map({key: rank for rank, key in enumerate(colours)})
        chart = alt.Chart(frame.assign(rank=ranks), title=title)
        encoding["tooltip"].insert(1, f"{field}:N")
        encoding |= {"color": _colour(field, colours), "order": alt.Order("rank:Q")}
        drawn = chart.mark_bar()
    height = _height(frame[name].nunique(), has_legend=parts is not None)
    draw(drawn.encode(**encoding).properties(height=height), title)


def lines(
    frame: pd.DataFrame,
    *,
    title: str,
    x: str,
    y: str,
    series: str,
    unit: tuple[str, str],
    zero: bool = False,
) -> None:
    """Lines over numbers or moments, one per `series`."""
    drawn = (
        alt.Chart(frame, title=title)
        .mark_line(point=len(frame) < 60)
        .encode(
            x=alt.X(f"{x}:Q", title=unit[0]),
            y=alt.Y(f"{y}:Q", title=unit[1], scale=alt.Scale(zero=zero)),
            color=_colour(series, None),
            tooltip=[f"{series}:N", f"{x}:Q", alt.Tooltip(f"{y}:Q", format=".4f")],
        )
        .properties(height=260)
    )
    draw(drawn, title)


def intervals(frame: pd.DataFrame, *, title: str, unit: str, domain: tuple[float, float]) -> None:
    """Points with their intervals: columns `name`, `value`, `low`, `high` and `n`."""
    base = alt.Chart(frame, title=title).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=220))
    )
    scale = alt.Scale(domain=list(domain), clamp=True)
    tips = ["name:N", *(alt.Tooltip(f"{c}:Q", format=".3f") for c in ("value", "low", "high")), "n"]
    rule = base.mark_rule(strokeWidth=2, color=SERIES[0]).encode(
        x=alt.X("low:Q", title=unit, scale=scale), x2="high:Q", tooltip=tips
    )
    point = base.mark_point(filled=True, size=70, color=SERIES[0]).encode(
        x=alt.X("value:Q", scale=scale), tooltip=tips
    )
    draw((rule + point).properties(height=_height(len(frame), has_legend=False)), title)


def draw(chart: Any, title: str) -> None:
    """A chart as wide as its place, with its title for those who cannot see it."""
    styled = chart.configure_title(fontSize=14, anchor="start", fontWeight=600)
    st.altair_chart(styled, width="stretch", alt=title)


def _height(rows: int, *, has_legend: bool) -> int:
    """Pixels of a chart with so many bars, its title, axis and legend with it."""
    return 28 * max(2, rows) + (170 if has_legend else 110)


def _colour(field: str, colours: Mapping[str, str] | None) -> Any:
    legend = alt.Legend(title=None, orient="bottom", columns=5)
    if colours is None:
        return alt.Color(f"{field}:N", legend=legend, scale=alt.Scale(range=list(SERIES)))
    scale = alt.Scale(domain=list(colours), range=list(colours.values()))
    return alt.Color(f"{field}:N", legend=legend, scale=scale)


def dots(frame: pd.DataFrame, *, title: str, value: str, name: str, series: str) -> None:
    """A dot per `name` and `series`, for shares from 0 to 1."""
    drawn = (
        alt.Chart(frame, title=title)
        .mark_point(filled=True, size=80)
        .encode(
            x=alt.X(f"{value}:Q", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y(f"{name}:N", title=None, axis=alt.Axis(labelLimit=220)),
            color=_colour(series, None),
            shape=alt.Shape(f"{series}:N", legend=None),
            tooltip=[f"{series}:N", f"{name}:N", alt.Tooltip(f"{value}:Q", format=".3f")],
        )
        .properties(height=_height(frame[name].nunique(), has_legend=True))
    )
    draw(drawn, title)


def reliability(frame: pd.DataFrame, *, title: str) -> None:
    """Share of fakes over the predicted probability: columns `predicted`, `fakes` and `n`."""
    scale = alt.Scale(domain=[0, 1])
    line = pd.DataFrame({"predicted": [0.0, 1.0], "fakes": [0.0, 1.0]})
    x, y = (
        alt.X("predicted:Q", title="mean predicted probability of fake", scale=scale),
        alt.Y("fakes:Q", title="share of fakes", scale=scale),
    )
    ideal = alt.Chart(line).mark_line(strokeDash=[4, 4], color=NEITHER).encode(x=x, y=y)
    points = (
        alt.Chart(frame, title=title)
        .mark_point(filled=True, color=SERIES[0])
        .encode(x=x, y=y, size=alt.Size("n:Q", title="images"), tooltip=["predicted", "fakes", "n"])
    )
    draw((ideal + points).properties(height=320), title)


def histogram(frame: pd.DataFrame, *, title: str, parts: str = "label") -> None:
    """Images by probability of fake: columns `p_fake`, `images`, and `parts`, keys of LABELS."""
    there = set(frame[parts])
    colours = {name: colour for name, colour in LABELS.items() if name in there}
    drawn = (
        alt.Chart(frame, title=title)
        .mark_bar(opacity=0.7)
        .encode(
            x=alt.X("p_fake:Q", title="probability of fake", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("images:Q", title="images", stack="zero"),
            color=_colour(parts, colours),
            tooltip=[f"{parts}:N", "p_fake:Q", "images:Q"],
        )
        .properties(height=320)
    )
    draw(drawn, title)
