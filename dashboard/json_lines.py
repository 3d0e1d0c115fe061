"""Tables that a program writes line by line, asked in SQL without reading them whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import streamlit as st

from core.errors import ConfigError

Columns = tuple[tuple[str, str], ...]
"""names and DuckDB types; a line without one of them, or that is no JSON, has NULL there"""


def query(path: Path, columns: Columns, statement: str, *arguments: Any) -> pd.DataFrame:
    """What a statement says of the table `lines`; nothing where there is no such file.

    ConfigError when the file holds something else.
    """
    try:
        stat = path.stat()
    except OSError:
        return pd.DataFrame()
    if stat.st_size == 0:
        return pd.DataFrame()
    found: pd.DataFrame = _query(
        str(path), stat.st_size, stat.st_mtime_ns, columns, statement, arguments
    )
    return found


def count_unreadable(path: Path, columns: Columns) -> int:
    """Lines that hold no record: such as have no value in the first of the columns."""
    (key, _), *_ = columns
    statement = f"SELECT count(*) AS n FROM lines WHERE {key} IS NULL"  # noqa: S608 - a name of ours
    found = query(path, columns, statement)
    return 0 if found.empty else int(found["n"].iloc[0])


@st.cache_data(max_entries=64, show_spinner=False)
def _query(
    path: str,
    size: int,
    changed: int,
    columns: Columns,
    statement: str,
    arguments: tuple[Any, ...],
) -> pd.DataFrame:
    try:
        with duckdb.connect() as connection:
            connection.read_json(
                path, format="newline_delimited", columns=dict(columns), ignore_errors=True
            ).create_view("lines")
            found: pd.DataFrame = connection.execute(statement, list(arguments)).df()
    except duckdb.Error as error:
        raise ConfigError(f"{path} cannot be read: {str(error).partition(chr(10))[0]}") from None
    return found
