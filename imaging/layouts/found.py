"""What a layout says of each file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from core.ids import sha256_bytes
from core.records import Authenticity
from imaging.files import Entry, Packed, shown_name
from imaging.layouts.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundTrace:
    """One trace that a published collection marks on an image."""

    place: str
    explanation: str
    outlines: tuple[tuple[tuple[float, float], ...], ...]
    """polygons, corners in pixels"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundQuestion:
    """One question that a published benchmark asks about an image."""

    key: str
    """tells it from the others about the same image; the field of its answer in a result file"""
    axis: str
    """the ability that it tests, as the benchmark calls it"""
    text: str
    reference: str | None
    """what should be answered; None: its owners keep it to themselves"""
    topic: str | None = None
    """what the image shows, where the collection says so"""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFile:
    """One file of a collection, still unread."""

    name: str
    """relative to the collection, as text that no other file of it has"""
    content: str | bytes | Packed
    """where to read it, or the bytes themselves"""
    size: int = 0
    mtime_ns: int = 0
    """with the size: tells whether it is still the same file"""
    label: Authenticity | None = None
    generator: str | None = None
    """of a fake; never set for a photograph"""
    group: str | None = None
    """what must stay in one split with it; None: nothing else"""
    licence: str | None = None
    topic: str | None = None
    """what it shows, where the collection says so in a word"""
    traces: tuple[FoundTrace, ...] = ()
    """what the collection itself says is wrong with it; taken in by nobody, for evaluation"""
    questions: tuple[FoundQuestion, ...] = ()
    """likewise for evaluation alone"""
    refusal: str | None = None
    """why it is not to be read"""
    is_hidden: bool = False
    """left out by rule, and only counted"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """One way in which collections lie on disk."""

    name: str
    recognise: Callable[[Tree], str | None]
    """why a collection has this layout; None where it has not"""
    read: Callable[[Tree], Iterator[FoundFile]]
    licence: str | None = None
    """of the published set; None: not stated, or the layout is anybody's"""
    may_train: bool = True
    """False: its owners forbid training on it"""


def found_from(
    entry: Entry,
    *,
    label: Authenticity | None = None,
    generator: str | None = None,
    group: str | None = None,
    refusal: str | None = None,
) -> FoundFile:
    """A file of a folder or an archive."""
    return FoundFile(
        name=shown_name(entry.name),
        content=entry.path,
        size=entry.size,
        mtime_ns=entry.mtime_ns,
        label=label,
        generator=generator if label is Authenticity.FAKE else None,
        group=group,
        refusal=entry.refusal or refusal,
        is_hidden=entry.hidden,
    )


def found_bytes(
    name: str,
    data: bytes,
    *,
    label: Authenticity | None,
    generator: str | None,
    group: str | None,
) -> FoundFile:
    """A file that lies in memory; a number from its hash takes the place of the time."""
    return FoundFile(
        name=name,
        content=data,
        size=len(data),
        mtime_ns=int(sha256_bytes(data)[:15], 16),
        label=label,
        generator=generator,
        group=group,
    )
