"""Shard sets through DuckDB: counts, pages of rows, what two sets have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow.parquet as pq
import streamlit as st

from core.errors import ConfigError
from instruct_builder.shards import MANIFEST, ShardSet, sha256_of

COUNTED = ("family", "form", "aspect", "label", "split", "generator", "review_level")
"""columns by which rows are counted and chosen"""
NONE = "none"
"""stands for an empty value, as in the manifest"""
ROWS_NAMES = "rows-*.parquet"


@dataclass(frozen=True, slots=True)
class RowFilter:
    """The value of each column that rows are to have."""

    values: tuple[tuple[str, str], ...] = ()

    @property
    def condition(self) -> str:
        """SQL with a `?` for each of `arguments`; the columns are ours."""
        asked = [f"coalesce({name}, '{NONE}') = ?" for name, _ in self.values]
        return " AND ".join(["true", *asked])

    @property
    def arguments(self) -> list[str]:
        return [value for _, value in self.values]


def folders(home: Path) -> dict[str, Path]:
    """The shard sets of a home folder by name, half-written ones too; `fakeinstruct` first."""
    if not home.is_dir():
        return {}
    found = {
        path.name: path
        for path in sorted(home.iterdir())
        if (path / MANIFEST).is_file() or any(path.glob(ROWS_NAMES)) or any(path.glob(".rows-*"))
    }
    return dict(sorted(found.items(), key=lambda item: item[0] != "fakeinstruct"))


def opened(folder: Path) -> ShardSet:
    """A published set; ConfigError when it is none, or lacks a file."""
    shards = ShardSet.open(folder)
    for file in shards.manifest.files:
        if not (folder / file.path).is_file():
            raise ConfigError(
                f"{folder} lacks {file.path}, which its manifest names: build it again, or copy "
                "the whole folder"
            )
    return shards


def count_by(shards: ShardSet) -> pd.DataFrame:
    """Rows and images by all of `COUNTED` together."""
    found: pd.DataFrame = _counts(str(shards.folder), sha256_of(shards.folder / MANIFEST))
    return found


def count_rows_wanted(counts: pd.DataFrame, wanted: RowFilter) -> int:
    """How many rows are wanted."""
    chosen = counts
    for name, value in wanted.values:
        chosen = chosen[chosen[name] == value]
    return int(chosen["rows"].sum())


def page_of_rows(
    shards: ShardSet, wanted: RowFilter, *, limit: int, offset: int
) -> list[dict[str, Any]]:
    """Rows in their order in the set; only the page's own are read in full."""
    statement = f"""SELECT filename, file_row_number
        FROM read_parquet(?, filename = true, file_row_number = true)
        WHERE {wanted.condition} LIMIT {limit:d} OFFSET {offset:d}"""  # noqa: S608 - ours
    places = _run(statement, [_files(shards.folder), *wanted.arguments]).fetchall()
    rows: list[dict[str, Any]] = []
    for file in dict.fromkeys(file for file, _ in places):
        rows += _rows_at(Path(file), [number for name, number in places if name == file])
    return rows


def find_row(shards: ShardSet, instruction_id: str) -> dict[str, Any] | None:
    """The row of an id; None where the set has none."""
    statement = """SELECT filename, file_row_number
        FROM read_parquet(?, filename = true, file_row_number = true)
        WHERE instruction_id = ? LIMIT 1"""
    found = _run(statement, [_files(shards.folder), instruction_id]).fetchone()
    return None if found is None else _rows_at(Path(found[0]), [found[1]])[0]


def difference(old: ShardSet, new: ShardSet) -> pd.DataFrame:
    """Rows by family that both sets have, by instruction id, and that one of them has alone."""
    prints = [sha256_of(shards.folder / MANIFEST) for shards in (old, new)]
    found: pd.DataFrame = _difference(str(old.folder), str(new.folder), *prints)
    return found


def facts_that_differ(old: ShardSet, new: ShardSet) -> list[dict[str, str]]:
    """What the manifests say differently of how the sets were made."""
    names = ("recipe", "builder_digest", "seed", "chains_digest", "arms", "min_review", "licence")
    pairs = {
        name: (str(getattr(old.manifest, name)), str(getattr(new.manifest, name))) for name in names
    }
    return [
        {"fact": name.replace("_", " "), "old": one, "new": other}
        for name, (one, other) in pairs.items()
        if one != other
    ]


def warnings_in(checks: Mapping[str, Any]) -> list[str]:
    """What the checks of a build warn of."""
    figures = (check.figures for check in checks.values())
    return [str(found["warning"]) for found in figures if "warning" in found]


@st.cache_data(max_entries=16, show_spinner=False)
def _counts(folder: str, digest: str) -> pd.DataFrame:
    keys = ", ".join(f"coalesce({name}, '{NONE}') AS {name}" for name in COUNTED)
    statement = f"""SELECT {keys}, count(*) AS rows FROM read_parquet(?) GROUP BY ALL
        ORDER BY ALL"""  # noqa: S608 - ours
    found: pd.DataFrame = _run(statement, [_files(Path(folder))]).df()
    return found


@st.cache_data(max_entries=16, show_spinner="comparing two sets")
def _difference(old: str, new: str, old_digest: str, new_digest: str) -> pd.DataFrame:
    statement = """SELECT coalesce(a.family, b.family) AS family,
            count(*) FILTER (a.instruction_id IS NOT NULL AND b.instruction_id IS NOT NULL) AS both,
            count(*) FILTER (b.instruction_id IS NULL) AS removed,
            count(*) FILTER (a.instruction_id IS NULL) AS added
        FROM (SELECT instruction_id, family FROM read_parquet(?)) a
        FULL JOIN (SELECT instruction_id, family FROM read_parquet(?)) b USING (instruction_id)
        GROUP BY 1 ORDER BY 1"""
    found: pd.DataFrame = _run(statement, [_files(Path(old)), _files(Path(new))]).df()
    return found


def _files(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob(ROWS_NAMES))


def _rows_at(file: Path, numbers: list[int]) -> list[dict[str, Any]]:
    """Rows of one file by their number in it; other row groups are not read."""
    parquet = pq.ParquetFile(file)
    rows: list[dict[str, Any]] = []
    start = 0
    for group in range(parquet.num_row_groups):
        end = start + parquet.metadata.row_group(group).num_rows
        here = [number - start for number in numbers if start <= number < end]
        if here:
            rows += parquet.read_row_group(group).take(here).to_pylist()
        start = end
    return rows


def _run(statement: str, arguments: list[Any]) -> Any:
    """A statement on files alone; a ConfigError when one of them cannot be read."""
    try:
        return duckdb.connect().execute(statement, arguments)
    except duckdb.Error as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"the shards cannot be read ({reason}): build the set again") from None
