"""How things stand on a page. What teachers, experts and files say is shown as text, never run."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import pandas as pd
import streamlit as st

from core.printable import printable, printable_lines
from dashboard.place import Place
from db.progress import CampaignSummary

MOST_CHARACTERS: Final = 2_000
"""of one text on a page"""
MOST_IN_CELL: Final = 300
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""with which a spreadsheet's formulas begin"""


def header(place: Place, title: str) -> CampaignSummary | None:
    """The title, and which campaign is looked at; None, and what to do first, where there is none.

    The choice stands in the address.
    """
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title(title, anchor=False)
    known = place.campaigns()
    if not known:
        nothing_yet()
        return None
    names = {campaign.campaign_id: _campaign_name(campaign) for campaign in known}
    chosen = right.selectbox(
        "Campaign",
        list(names),
        format_func=lambda name: names[name],
        key="campaign",
        bind="query-params",
    )
    return next(campaign for campaign in known if campaign.campaign_id == chosen)


def _campaign_name(campaign: CampaignSummary) -> str:
    return (
        f"{cell(campaign.recipe)} · {campaign.created_at:%Y-%m-%d %H:%M} · {campaign.campaign_id}"
    )


def nothing_yet() -> None:
    """What to do on an empty installation."""
    st.info(
        "Nothing is here yet. Take images in and draft them, then come back.",
        icon=":material/waving_hand:",
    )
    st.markdown("**The built-in demo**: simulated images and a simulated teacher, minutes")
    st.code("make build-instruct", language="sh")
    st.markdown("**Your own images**: a folder with `real/` and `fake/<generator>/` in it")
    st.code("make build-instruct IMAGES=my-photos SOURCE=mine", language="sh")


def problem(title: str, message: str) -> None:
    """Something that cannot be shown, and why; `title` is ours, `message` may quote anything."""
    st.error(title, icon=":material/error:")
    st.code(shortened(message), language=None, wrap_lines=True)


def say_unreadable(lines: int) -> None:
    """How many lines of a file of predictions the figures leave out, if any."""
    if lines:
        st.warning(
            f"{lines:,} {'line' if lines == 1 else 'lines'} of predictions could not be read and "
            "are left out; the last line of a file that is being written is no fault.",
            icon=":material/warning:",
        )


def empty(sentence: str, command: str | None = None) -> None:
    """That there is nothing of a kind, and the command that makes some; both are ours."""
    st.info(sentence, icon=":material/info:")
    if command:
        st.code(command, language="sh")


def figure(place: Any, title: str, value: str, remark: str, help_text: str | None = None) -> None:
    """One large number, and a few words on it; all of it is ours."""
    place.metric(
        title,
        value,
        delta=remark,
        delta_color="off",
        delta_arrow="off",
        border=True,
        help=help_text,
    )


# Text of others


def text(value: str) -> None:
    """Words of others, as they are."""
    st.text(shortened(value), wrap=True)


def shortened(value: str) -> str:
    """A text that a page can hold: control characters spelt out, cut where it is too long."""
    lines = "\n".join(printable_lines(value[:MOST_CHARACTERS]))
    left_out = len(value) - MOST_CHARACTERS
    return f"{lines}\n… {left_out:,} more characters" if left_out > 0 else lines


def cell(value: str) -> str:
    """Words of others on one line of a table, a chart or a choice."""
    line = printable(value[:MOST_IN_CELL])
    return f"{line}…" if len(value) > MOST_IN_CELL else line


# Tables


def table(
    rows: pd.DataFrame | Sequence[Mapping[str, Any]],
    *,
    name: str,
    columns: Mapping[str, Any] | None = None,
    height: int | None = None,
) -> None:
    """A table, and the same as a file to download; `name` is that of the file."""
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    shown = frame.map(lambda value: cell(value) if isinstance(value, str) else value)
    sized = {} if height is None else {"height": height}
    st.dataframe(
        shown,
        hide_index=True,
        column_config=dict(columns or {}),
        alt=f"Table: {name.replace('-', ' ')}",
        **sized,
    )
    downloads(name, lambda: frame)


def downloads(name: str, make: Callable[[], pd.DataFrame]) -> None:
    """Two buttons; the rows are read when one is pressed."""
    with st.container(horizontal=True, gap="small"):
        for kind, encode in (("csv", as_csv), ("parquet", as_parquet)):
            st.download_button(
                kind.upper() if kind == "csv" else "Parquet",
                data=lambda encode=encode: encode(make()),
                file_name=f"{name}.{kind}",
                key=f"{name}-{kind}",
                on_click="ignore",
                type="tertiary",
                icon=":material/download:",
                help=f"Download this table as {kind}",
            )


def as_csv(frame: pd.DataFrame) -> bytes:
    """UTF-8; a text that a spreadsheet would run as a formula begins with an apostrophe."""
    safe = frame.map(
        lambda value: f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value
    )
    return safe.to_csv(index=False).encode("utf-8", errors="backslashreplace")


def as_parquet(frame: pd.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def percent(title: str, help_text: str | None = None) -> Any:
    """A column of shares from 0 to 1."""
    return st.column_config.NumberColumn(title, format="percent", help=help_text)


def count(title: str, help_text: str | None = None) -> Any:
    """A column of whole numbers."""
    return st.column_config.NumberColumn(title, format="localized", help=help_text)


def dollars(title: str, help_text: str | None = None) -> Any:
    """A column of US dollars."""
    return st.column_config.NumberColumn(title, format="$%.4f", help=help_text)


# Choices, which stand in the address


def choose(place: Any, title: str, options: Sequence[str], *, key: str, all_of: str) -> str | None:
    """One of the options; None: all. They may be words of others."""
    names = [cell(option) for option in options]
    chosen = place.selectbox(
        title, names, index=None, placeholder=all_of, key=key, bind="query-params"
    )
    return options[names.index(chosen)] if chosen in names else None


def choose_view(views: Sequence[str], *, key: str = "view") -> str:
    """Which part of a page to look at; the others are not read."""
    chosen = st.segmented_control(
        "View",
        views,
        default=None if key in st.session_state else views[0],
        required=True,
        key=key,
        bind="query-params",
        label_visibility="collapsed",
    )
    return chosen or views[0]


def find_image(place: Any) -> str | None:
    """How the id of an image begins, as somebody typed it."""
    typed: str | None = place.text_input(
        "Image", placeholder="img-…", key="image", bind="query-params", max_chars=40
    )
    return typed or None


# Turning pages


def turn_pages(total: int, *, size: int, key: str = "page") -> int:
    """Which rows to leave out before the page that is open; its number stands in the address."""
    pages = max(1, -(-total // size))
    if pages == 1:
        return 0
    number: int = st.pagination(pages, key=key, bind="query-params")
    return (min(number, pages) - 1) * size
