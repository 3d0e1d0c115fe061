"""How collections of images lie on disk: files, labels, generators and groups.

A layout is one module with one `Layout`, or one entry in the tables of `shapes` and `shards`; the
first one in `LAYOUTS` that recognises a collection reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from core.errors import ConfigError
from core.records import Authenticity
from imaging.files import explain
from imaging.layouts import (
    fakebench,
    fakeclue,
    folder,
    loki,
    manifest,
    shapes,
    shards,
    synthscars,
    synthwildx,
)
from imaging.layouts.found import FoundFile, FoundQuestion, FoundTrace, Layout, found_bytes
from imaging.layouts.plain import read_plain
from imaging.layouts.tree import Tree, inner_tree, open_tree

__all__ = [
    "AUTO",
    "LAYOUTS",
    "NAMES",
    "PLAIN",
    "Collection",
    "FoundFile",
    "FoundQuestion",
    "FoundTrace",
    "Layout",
    "found_bytes",
    "open_collection",
]

AUTO: Final = "auto"
PLAIN: Final = "plain"
LAYOUTS: Final[tuple[Layout, ...]] = (
    manifest.LAYOUT,
    fakebench.LAYOUT,
    fakeclue.LAYOUT,
    synthscars.LAYOUT,
    synthwildx.LAYOUT,
    loki.LAYOUT,
    *shards.LAYOUTS,
    folder.LAYOUT,
    *shapes.LAYOUTS,
)
NAMES: Final = (AUTO, *(layout.name for layout in LAYOUTS), PLAIN)
ASKED_FOR: Final = "asked for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """A collection whose layout is settled."""

    layout: str
    reason: str
    """why it is read so"""
    licence: str | None
    """what the published set is under, as far as its layout knows"""
    may_train: bool
    is_stream: bool
    """whether listing its files costs as much as reading them"""
    files: Callable[[], Iterator[FoundFile]]
    """what is in it, in an order that never changes; may be asked for again"""


def open_collection(
    path: Path,
    *,
    layout: str = AUTO,
    label: Authenticity | None = None,
    generator: str | None = None,
) -> Collection:
    """Settle how `path` is read: a folder, a zip or tar archive, or a single file.

    `label` and `generator` hold for all files of a plain collection; ConfigError with others.
    """
    _check_options(layout, label, generator)
    tree = open_tree(path)
    plain = _plain(label, generator)
    known = {each.name: each for each in (*LAYOUTS, plain)}
    chosen, reason = known.get(layout, plain), ASKED_FOR
    if layout == AUTO:
        tree, chosen, reason = _recognise(tree)
    if chosen.name == PLAIN:
        chosen = plain
    elif label is not None:
        raise ConfigError(
            f"{path} is read as layout {chosen.name} ({reason}), which has labels of its own: "
            f"leave the label out, or ask for layout {PLAIN}"
        )
    return Collection(
        layout=chosen.name,
        reason=reason,
        licence=chosen.licence,
        may_train=chosen.may_train,
        is_stream=tree.is_stream,
        files=partial(chosen.read, tree),
    )


def _recognise(tree: Tree) -> tuple[Tree, Layout, str]:
    """The first layout that fits, in the tree or in the one folder that it consists of."""
    inner = inner_tree(tree)
    for place, where in ((tree, ""), *([(inner, "in its only folder ")] if inner else [])):
        try:
            for layout in LAYOUTS:
                if reason := layout.recognise(place):
                    return place, layout, where + reason
        except OSError as error:
            raise ConfigError(f"{tree.place}: {explain(error)}") from None
    return tree, _plain(None, None), "neither a table nor folders that a known layout has"


def _plain(label: Authenticity | None, generator: str | None) -> Layout:
    return Layout(
        name=PLAIN,
        recognise=lambda _: None,
        read=partial(read_plain, label=label, generator=generator),
    )


def _check_options(layout: str, label: Authenticity | None, generator: str | None) -> None:
    if layout not in NAMES:
        raise ConfigError(f"there is no layout {layout!r}; there are: {', '.join(NAMES)}")
    if generator is not None and label is not Authenticity.FAKE:
        raise ConfigError("a generator can be named for images labelled fake only")
