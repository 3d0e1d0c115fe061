"""Figures that others have published, as rows to stand beside ours; data, each with its source."""

from __future__ import annotations

from pathlib import Path

from core.recipe import Strict, read_model

FOLDER = Path(__file__).parent

Cell = str | float | None


class PublishedTable(Strict):
    """One table as printed. A row is a name and a figure for each column; null: not printed."""

    name: str
    axis: str
    """the ability that it is about, as questions name it; `masks` for regions"""
    protocol: str
    columns: list[str]
    rows: list[list[Cell]]


class Published(Strict):
    """What was published on one benchmark."""

    layout: str
    source: str
    tables: list[PublishedTable]


def read_published(layout: str) -> Published | None:
    """The published figures of a benchmark; None where there are none here."""
    path = FOLDER / f"{layout}.yaml"
    return read_model(path, Published) if path.is_file() else None
