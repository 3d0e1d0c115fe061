"""SynthScars (of LEGION): `{train,test}/images` and `{train,test}/annotations/<split>.json`.

All images are fake. Regions are polygons in pixels, each with a phrase and an explanation.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Final

from core.errors import ConfigError, DataError
from core.records import Authenticity
from imaging.files import shown_name
from imaging.layouts.found import FoundFile, FoundTrace, Layout, found_from
from imaging.layouts.plain import UNKNOWN_GENERATOR
from imaging.layouts.records import text_of
from imaging.layouts.rows import read_records
from imaging.layouts.tree import Tree, find_inside, matches, say_held

LISTS: Final = r"(?:.+/)?(train|test)/(?:annotations|annoations)/\1\.json"
FEWEST_CORNERS: Final = 3


def recognise_synthscars(tree: Tree) -> str | None:
    """Say which lists there are."""
    return say_held(matches(tree, LISTS))


def read_synthscars(tree: Tree) -> Iterator[FoundFile]:
    """Each image once, with the traces of all its entries; PNG and JPEG twins are one group."""
    lists = sorted(matches(tree, LISTS))
    if not lists:
        raise ConfigError(f"{tree.place}: there is no train/annotations/train.json in it")
    for name in lists:
        yield from _read_list(tree, name)


def _read_list(tree: Tree, name: str) -> Iterator[FoundFile]:
    images = PurePosixPath(name).parents[1] / "images"
    marked: dict[str, list[FoundTrace]] = {}
    for number, record in enumerate(read_records(tree, name), start=1):
        entries: Iterable[Any] = record.values() if isinstance(record, dict) else [None]
        for fields in entries:
            try:
                traces = marked.setdefault(text_of(fields, "img_file_name"), [])
            except DataError as error:
                place = shown_name(f"{name}, entry {number}")
                yield FoundFile(name=place, content=b"", refusal=str(error))
                continue
            traces.extend(_traces(fields.get("refs")))
    for file, traces in marked.items():
        yield _find(tree, f"{images}/{file}", traces)


def _find(tree: Tree, name: str, traces: Iterable[FoundTrace]) -> FoundFile:
    found = found_from(
        find_inside(tree, name),
        label=Authenticity.FAKE,
        generator=UNKNOWN_GENERATOR,
        group=shown_name(PurePosixPath(name).stem),
    )
    return replace(found, traces=tuple(traces))


def _traces(refs: Any) -> Iterator[FoundTrace]:
    for ref in refs if isinstance(refs, list) else []:
        if isinstance(ref, dict):
            yield FoundTrace(
                place=str(ref.get("sentence") or ""),
                explanation=str(ref.get("explanation") or ""),
                outlines=tuple(_outlines(ref.get("segmentation"))),
            )


def _outlines(segmentation: Any) -> Iterator[tuple[tuple[float, float], ...]]:
    """The polygons that have an area; flat lists x1, y1, x2, y2, ... as published."""
    for flat in segmentation if isinstance(segmentation, list) else []:
        if isinstance(flat, list) and all(isinstance(value, int | float) for value in flat):
            corners = tuple(zip(map(float, flat[::2]), map(float, flat[1::2]), strict=False))
            if len(corners) >= FEWEST_CORNERS:
                yield corners


LAYOUT: Final = Layout(name="synthscars", recognise=recognise_synthscars, read=read_synthscars)
