"""Ingest: from the files of a collection to image records. Doing it again adds nothing.

Files are decoded, cut, hashed and stored by a crew of processes; rows are committed in batches, in
the order of the files, each with its near-duplicate clusters. So the database is whole at any
moment, and an import that was killed goes on where it was.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Final

from core.errors import ConfigError
from core.records import Authenticity, Source
from db.engine import Database
from db.images import ImportOutcome, save_source, sources
from generation.register import Register, Taken, Tally
from imaging.crew import Crew, usable_cores
from imaging.decode import Limits
from imaging.intake import Intake, Job, Refusal, take_in
from imaging.layouts import AUTO, Collection, FoundFile, found_bytes, open_collection
from imaging.provenance import C2PA_ADVICE
from imaging.store import ImageStore

BATCH: Final = 500
FEW: Final = 32
"""so many files are taken in without starting processes"""
BATCH_BYTES: Final = 2**25
"""of files that lie in memory, in one batch"""
UNCOUNTED: Final = -1
UNKNOWN_LICENCE: Final = "unknown"
NAMES_SHOWN: Final = 20
REFUSED_COMMAND: Final = "python -m generation refused --source"

Progress = Callable[[int, int], None]
"""is told how many files are done, and how many there are; a negative number is not known"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """An image that lies in memory."""

    name: str
    data: bytes
    label: Authenticity | None
    generator: str | None
    group: str | None
    topic: str | None = None
    """what it shows, as its collection says"""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestSummary:
    """What became of the files of one import; the six counts from `accepted` to `hidden` add up."""

    source: str
    seen: int
    accepted: int
    changed: int
    """accepted, and stored as PNG of the pixels"""
    duplicates: int
    refused: int
    known: int
    """unchanged since an earlier import"""
    hidden: int
    """left out by rule: the name begins with a dot, or the layout has it as no image of the set"""
    unlabelled: int
    """of the accepted and changed ones: usable for prediction only"""
    known_refused: int
    """of the known ones"""
    refusals: tuple[tuple[str, str], ...]
    """name and reason of the first ones"""
    layout: str = ""
    """how the collection was read; empty for images that lay in memory"""
    layout_reason: str = ""
    may_train: bool = True
    unread_c2pa: int = 0
    """of the accepted and changed ones: with a C2PA manifest that nothing here can read"""

    def text(self) -> str:
        """The summary as lines to print."""
        shown = [f"  refused {name}: {reason}" for name, reason in self.refusals[:NAMES_SHOWN]]
        more = self.refused - len(shown)
        rest = [f"  and {more} more: {REFUSED_COMMAND} {self.source}"] if more else []
        lines = [*self._reading(), self._counts(), *self._c2pa(), *shown, *rest]
        return "\n".join(lines)

    def _reading(self) -> list[str]:
        terms = "" if self.may_train else "; for evaluation only, no build will train on it"
        read = f"{self.source}: read as layout {self.layout} ({self.layout_reason}){terms}"
        return [read] if self.layout else []

    def _c2pa(self) -> list[str]:
        note = f"{self.unread_c2pa} new images carry C2PA manifests; {C2PA_ADVICE}"
        return [note] if self.unread_c2pa else []

    def _counts(self) -> str:
        return (
            f"{self.source}: {self.seen} files: {self.accepted} accepted, {self.changed} accepted "
            f"and redrawn as PNG, {self.duplicates} duplicates, {self.refused} refused, "
            f"{self.known} known before ({self.known_refused} of them refused), "
            f"{self.hidden} hidden; {self.unlabelled} new ones without a label"
        )


def ingest(  # noqa: PLR0913
    database: Database,
    store: ImageStore,
    path: Path,
    *,
    source: Source,
    layout: str = AUTO,
    label: Authenticity | None = None,
    generator: str | None = None,
    workers: int | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> IngestSummary:
    """Take in the files of a folder: each is accepted, known, left out, or refused with a reason.

    `path` is a folder, a zip or tar archive, or a file. Groups that a layout names are the source's
    own. ConfigError when there is nothing at `path`, when its layout cannot be read, or when the
    image store cannot be written.
    """
    collection = open_collection(path.absolute(), layout=layout, label=label, generator=generator)
    total, licences = _survey(collection)
    if not total:
        raise ConfigError(f"{path}: there is no file in it")
    terms = replace(source, may_train=source.may_train and collection.may_train)
    saved = _save_source(database, terms, licences)
    files = (
        replace(found, group=found.group and f"{source.name}/{found.group}")
        for found in collection.files()
    )
    summary = _import(
        Register(database, store, source.name),
        files,
        partial(_take_in, store=store, limits=limits or Limits(), workers=workers),
        partial(_report, progress, total),
    )
    _report(progress, summary.seen, summary.seen)
    return replace(
        summary,
        layout=collection.layout,
        layout_reason=collection.reason,
        may_train=saved.may_train,
    )


def ingest_encoded(
    database: Database,
    store: ImageStore,
    items: Iterable[EncodedImage],
    *,
    source: Source,
    workers: int | None = None,
    limits: Limits | None = None,
) -> IngestSummary:
    """Take in images that lie in memory, on the same path as files; groups stay as they are."""
    _save_source(database, source, ())
    return _import(
        Register(database, store, source.name),
        (
            replace(
                found_bytes(i.name, i.data, label=i.label, generator=i.generator, group=i.group),
                topic=i.topic,
            )
            for i in items
        ),
        partial(_take_in, store=store, limits=limits or Limits(), workers=workers),
        partial(_report, None, 0),
    )


def _survey(collection: Collection) -> tuple[int, list[str]]:
    """How many files there are, and the licences that their layout states.

    A stream is not read for it: where there is a first file, the number is not known.
    """
    total, licences = 0, {collection.licence}
    if collection.is_stream:
        is_empty = next(iter(collection.files()), None) is None
        return 0 if is_empty else UNCOUNTED, sorted(filter(None, licences))
    for found in collection.files():
        total += 1
        licences.add(found.licence)
    return total, sorted(licence for licence in licences if licence)


def _save_source(database: Database, source: Source, stated: Sequence[str]) -> Source:
    """Store the source as it is returned.

    A licence that nobody named is the stated ones, else what it was before, and so are terms; what
    was once for evaluation only stays so.
    """
    with database.write() as session:
        before = sources(session).get(source.name, source)
        licence = source.licence
        if licence == UNKNOWN_LICENCE:
            licence = "; ".join(stated) or before.licence
        may_train = source.may_train and before.may_train
        terms = source.terms or before.terms
        saved = replace(source, licence=licence, may_train=may_train, terms=terms)
        save_source(session, saved)
    return saved


def _report(progress: Progress | None, total: int, done: int) -> None:
    if progress is not None:
        progress(done, total)


def _import(
    register: Register,
    files: Iterable[FoundFile],
    take: Callable[[Iterator[Job]], Iterator[Intake | Refusal]],
    report: Callable[[int], None],
) -> IngestSummary:
    register.store.sweep()
    under_way: deque[FoundFile] = deque()
    batch: list[Taken] = []
    for outcome in take(_sort_out(register, files, under_way, report)):
        batch.append((under_way.popleft(), outcome))
        report(register.tally.total + len(batch))
        if len(batch) == BATCH:
            register.commit(batch)
            batch.clear()
    register.commit(batch)
    register.join_company()
    report(register.tally.total)
    return _summarise(register.source, register.tally)


def _sort_out(
    register: Register,
    files: Iterable[FoundFile],
    under_way: deque[FoundFile],
    report: Callable[[int], None],
) -> Iterator[Job]:
    """The files that must be decoded, `under_way` in the same order; all others are settled."""
    waiting = iter(files)
    while batch := _next_batch(waiting):
        known = register.known_among(batch)
        for found in batch:
            if found.is_hidden:
                register.tally.hidden += 1
            elif found.refusal is not None:
                register.refuse(found, Refusal(found.refusal, is_lasting=False))
            elif found.name in known:
                register.count_known(found, known[found.name])
            else:
                under_way.append(replace(found, content=b""))
                yield Job(found.content, found.name)
        report(register.tally.total)


def _next_batch(files: Iterator[FoundFile]) -> list[FoundFile]:
    """The next files; fewer where large ones lie in memory."""
    batch: list[FoundFile] = []
    held = 0
    for found in islice(files, BATCH):
        batch.append(found)
        held += len(found.content) if isinstance(found.content, bytes) else 0
        if held >= BATCH_BYTES:
            break
    return batch


def _take_in(
    jobs: Iterator[Job], *, store: ImageStore, limits: Limits, workers: int | None
) -> Iterator[Intake | Refusal]:
    """In this process where there are few files or one core, else with a crew."""
    size = workers or usable_cores()
    first = list(islice(jobs, FEW + 1))
    if len(first) <= FEW or size == 1:
        yield from (take_in(job, store, limits) for job in chain(first, jobs))
        return
    with Crew(store, limits, size=size) as crew:
        yield from crew.take_in(chain(first, jobs))


def _summarise(source: str, tally: Tally) -> IngestSummary:
    return IngestSummary(
        source=source,
        seen=tally.total,
        accepted=tally.outcomes[ImportOutcome.ACCEPTED],
        changed=tally.outcomes[ImportOutcome.CHANGED],
        duplicates=tally.outcomes[ImportOutcome.DUPLICATE],
        refused=tally.outcomes[ImportOutcome.REFUSED],
        known=tally.known,
        hidden=tally.hidden,
        unlabelled=tally.unlabelled,
        known_refused=tally.known_refused,
        refusals=tuple(tally.refusals),
        unread_c2pa=tally.unread_c2pa,
    )
