"""Charts: what each colour stands for, and the few forms that are used.

They are written in Vega-Lite as it is: a library that checks each part against its schema takes
longer over a chart than the queries behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

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


Spec = dict[str, Any]
"""a part of a chart as https://vega.github.io/vega-lite/docs/ has it"""


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
    axis = {"format": "$~g" if unit == DOLLARS else "~s", "title": unit, "tickCount": 5}
    sort = list(order) if order is not None else "-x"
    encoding: Spec = {
        "x": _number(value, axis=axis) | {"aggregate": "sum"},
        "y": _name(name, sort=sort),
        "tooltip": [_word(name), _number(value, format=",")],
    }
    mark: Spec = {"type": "bar"}
    if parts is None:
        mark |= {"color": SERIES[0], "cornerRadiusEnd": 2}
    else:
        field, colours = parts[0], _among(frame[parts[0]], parts[1])
        frame = frame.assign(rank=frame[field].map({key: n for n, key in enumerate(colours)}))
        encoding["tooltip"].insert(1, _word(field))
        encoding |= {"color": _colour(field, colours), "order": _number("rank")}
    height = _height(frame[name].nunique(), has_legend=parts is not None)
    _draw(frame, {"mark": mark, "encoding": encoding, "height": height}, title)


def lines(
    frame: pd.DataFrame,
    *,
    title: str,
    x: str,
    y: str,
    series: str,
    unit: tuple[str, str],
) -> None:
    """Lines over numbers, one per `series`."""
    encoding = {
        "x": _number(x, title=unit[0]),
        "y": _number(y, title=unit[1], scale={"zero": False}),
        "color": _colour(series, None, is_alone=frame[series].nunique() == 1),
        "tooltip": [_word(series), _number(x), _number(y, format=".4f")],
    }
    mark = {"type": "line", "point": len(frame) < 60}
    _draw(frame, {"mark": mark, "encoding": encoding, "height": 280}, title)


def intervals(frame: pd.DataFrame, *, title: str, unit: str, domain: tuple[float, float]) -> None:
    """Points with their intervals: columns `name`, `value`, `low`, `high` and `n`."""
    scale = {"domain": list(domain), "clamp": True}
    numbers = [_number(column, format=".3f") for column in ("value", "low", "high")]
    tips = {"tooltip": [_word("name"), *numbers, _number("n")]}
    ends = {"x": _number("low", title=unit, scale=scale), "x2": {"field": "high"}}
    layers = [
        {"mark": {"type": "rule", "strokeWidth": 2, "color": SERIES[0]}, "encoding": ends | tips},
        {
            "mark": {"type": "point", "filled": True, "size": 70, "color": SERIES[0]},
            "encoding": {"x": _number("value", scale=scale)} | tips,
        },
    ]
    height = _height(len(frame), has_legend=False)
    shared = {"y": _name("name", sort=None)}
    _draw(frame, {"layer": layers, "encoding": shared, "height": height}, title)


def dots(frame: pd.DataFrame, *, title: str, value: str, name: str, series: str) -> None:
    """A dot per `name` and `series`, for shares from 0 to 1."""
    encoding = {
        "x": _number(value, scale={"domain": [0, 1]}),
        "y": _name(name),
        "color": _colour(series, None),
        "shape": _word(series, legend=None),
        "tooltip": [_word(series), _word(name), _number(value, format=".3f")],
    }
    mark = {"type": "point", "filled": True, "size": 80}
    height = _height(frame[name].nunique(), has_legend=True)
    _draw(frame, {"mark": mark, "encoding": encoding, "height": height}, title)


def reliability(frame: pd.DataFrame, *, title: str) -> None:
    """Share of fakes over the predicted probability: columns `predicted`, `fakes` and `n`."""
    scale = {"domain": [0, 1]}
    shared = {
        "x": _number("predicted", title="mean predicted probability of fake", scale=scale),
        "y": _number("fakes", title="share of fakes", scale=scale),
    }
    ideal = {
        "data": {"values": [{"predicted": end, "fakes": end} for end in (0, 1)]},
        "mark": {"type": "line", "strokeDash": [4, 4], "color": NEITHER},
    }
    tips = [_number(name, format=".3f") for name in ("predicted", "fakes")]
    points = {
        "mark": {"type": "point", "filled": True, "color": SERIES[0]},
        "encoding": {"size": _number("n", title="images"), "tooltip": [*tips, _number("n")]},
    }
    _draw(frame, {"layer": [ideal, points], "encoding": shared, "height": 320}, title)


def histogram(frame: pd.DataFrame, *, title: str, parts: str = "label") -> None:
    """Images by probability of fake: columns `p_fake`, `images`, and `parts`, keys of LABELS."""
    colours = _among(frame[parts], LABELS)
    encoding = {
        "x": _number("p_fake", title="probability of fake", scale={"domain": [0, 1]}),
        "y": _number("images", title="images", stack="zero"),
        "color": _colour(parts, colours),
        "tooltip": [_word(parts), _number("p_fake"), _number("images")],
    }
    mark = {"type": "bar", "opacity": 0.7}
    _draw(frame, {"mark": mark, "encoding": encoding, "height": 320}, title)


def _draw(frame: pd.DataFrame, spec: Spec, title: str) -> None:
    """A chart as wide as its place, with its title for those who cannot see it."""
    looks = {"title": {"fontSize": 14, "anchor": "start", "fontWeight": 600}}
    whole = {"title": title, "config": looks, **spec}
    st.vega_lite_chart(frame, whole, width="stretch", alt=title)


def _number(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "quantitative", **more}


def _word(field: str, **more: Any) -> Spec:
    return {"field": field, "type": "nominal", **more}


def _name(field: str, **more: Any) -> Spec:
    """The axis on which names stand."""
    return _word(field, title=None, axis={"labelLimit": 220}, **more)


def _height(rows: int, *, has_legend: bool) -> int:
    """Pixels of a chart with so many bars, its title, axis and legend with it."""
    return 28 * max(2, rows) + (170 if has_legend else 110)


def _among(values: pd.Series[str], colours: Mapping[str, str]) -> dict[str, str]:
    """The colours that occur, so that no legend names what is not there."""
    there = set(values)
    return {name: colour for name, colour in colours.items() if name in there}


def _colour(field: str, colours: Mapping[str, str] | None, *, is_alone: bool = False) -> Spec:
    legend = None if is_alone else {"title": None, "orient": "bottom", "columns": 5, "offset": 4}
    if colours is None:
        return _word(field, legend=legend, scale={"range": list(SERIES)})
    return _word(
        field, legend=legend, scale={"domain": list(colours), "range": list(colours.values())}
    )
