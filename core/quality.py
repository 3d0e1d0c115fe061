"""What experts leave of the traces that teachers wrote, and how long they take over it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import NamedTuple

from core.agreement import edit_distance, text_similarity
from core.records import Correction, Draft, ImageRecord, TraceOutcome

PHOTOGRAPHS = "photographs"
"""stands for the generator of images that have none"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewedDraft:
    """One draft, and what experts made of it."""

    image: ImageRecord
    draft: Draft
    corrections: tuple[Correction, ...]
    """those that count, one per expert"""
    ruling: Correction | None
    """the adjudicator's"""
    seconds: Mapping[str, float]
    """by correction id: how long the task was open; missing where the server does not say"""

    @property
    def generator(self) -> str:
        return self.image.generator or PHOTOGRAPHS

    @property
    def teacher_version(self) -> str:
        """Who answered to which prompt."""
        return f"{self.draft.teacher} {self.draft.prompt_version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceQuality:
    """What experts did with some of a teacher's traces; each expert's decision counts as one."""

    accepted: int
    edited: int
    rejected: int
    added: int
    accepted_share: float | None
    """with the two below, of the traces that the teacher wrote; None: it wrote none"""
    edited_share: float | None
    rejected_share: float | None
    added_share: float | None
    """of the traces that experts left: what the teacher had missed; None: nothing was left"""
    characters_changed: float | None
    """mean edit distance of an edit; None: there is none"""
    text_changed: float | None
    """mean edit distance of an edit as a share of the longer text"""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cell:
    """The traces of one category in images of one generator by one teacher version."""

    category: str
    generator: str
    teacher_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CellQuality:
    """What experts did with the traces of one cell."""

    cell: Cell
    quality: TraceQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherQuality:
    """What experts did with traces, by who wrote them and about what."""

    drafts: int
    """that an expert has reviewed"""
    overall: TraceQuality
    by_teacher_version: dict[str, TraceQuality]
    by_category: dict[str, TraceQuality]
    by_generator: dict[str, TraceQuality]
    cells: tuple[CellQuality, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long one expert takes for a review."""

    images: int
    timed: int
    """of these, with a time"""
    median_s: float | None
    mean_s: float | None


class _Decision(NamedTuple):
    """What one expert did with one trace."""

    category: str
    outcome: TraceOutcome
    edit: tuple[str, str] | None
    """the text before and after it"""


@dataclass(slots=True)
class _Tally:
    outcomes: Counter[TraceOutcome] = field(default_factory=Counter)
    distances: list[int] = field(default_factory=list)
    changes: list[float] = field(default_factory=list)

    def count(self, decision: _Decision) -> None:
        self.outcomes[decision.outcome] += 1
        if decision.edit is not None:
            before, after = decision.edit
            self.distances.append(edit_distance(before, after))
            self.changes.append(1 - text_similarity(before, after))

    def add(self, other: _Tally) -> None:
        self.outcomes += other.outcomes
        self.distances += other.distances
        self.changes += other.changes


def teacher_quality(reviews: Iterable[ReviewedDraft]) -> TeacherQuality:
    """Count what became of every trace; the adjudicator's word is none of an expert's."""
    tallies: dict[tuple[str, str, str], _Tally] = defaultdict(_Tally)
    drafts = 0
    for review in reviews:
        drafts += bool(review.corrections)
        generator, teacher_version = review.generator, review.teacher_version
        for correction in review.corrections:
            for decision in _decisions(review.draft, correction):
                tallies[decision.category, generator, teacher_version].count(decision)
    cells = {
        Cell(category=category, generator=generator, teacher_version=teacher_version): tally
        for (category, generator, teacher_version), tally in tallies.items()
    }
    return TeacherQuality(
        drafts=drafts,
        overall=_quality(cells.values()),
        by_teacher_version=_by(cells, "teacher_version"),
        by_category=_by(cells, "category"),
        by_generator=_by(cells, "generator"),
        cells=tuple(
            CellQuality(cell=cell, quality=_quality([cells[cell]])) for cell in sorted(cells)
        ),
    )


def paces(reviews: Iterable[ReviewedDraft]) -> dict[str, Pace]:
    """How long each expert takes."""
    times: dict[str, list[float | None]] = defaultdict(list)
    for review in reviews:
        for correction in review.corrections:
            times[correction.expert].append(review.seconds.get(correction.correction_id))
    return {expert: pace_of(times[expert]) for expert in sorted(times)}


def pace_of(times: Iterable[float | None]) -> Pace:
    """The pace of one expert from seconds per image; None: not known."""
    all_times = list(times)
    known = [seconds for seconds in all_times if seconds is not None]
    return Pace(
        images=len(all_times),
        timed=len(known),
        median_s=median(known) if known else None,
        mean_s=fmean(known) if known else None,
    )


def _decisions(draft: Draft, correction: Correction) -> Iterator[_Decision]:
    """What one expert did, trace by trace."""
    left = correction.drafted()
    findings = zip(draft.reasoning.findings, correction.outcomes, strict=False)
    for position, (drafted, outcome) in enumerate(findings):
        is_edited = outcome is TraceOutcome.EDITED
        edit = (drafted.evidence, left[position].evidence) if is_edited else None
        yield _Decision(drafted.category, outcome, edit)
    for finding in correction.reasoning.findings[len(left) :]:
        yield _Decision(finding.category, TraceOutcome.ADDED, None)


def _by(cells: Mapping[Cell, _Tally], name: str) -> dict[str, TraceQuality]:
    grouped: dict[str, list[_Tally]] = defaultdict(list)
    for cell, tally in cells.items():
        grouped[getattr(cell, name)].append(tally)
    return {key: _quality(grouped[key]) for key in sorted(grouped)}


def _quality(tallies: Iterable[_Tally]) -> TraceQuality:
    total = _Tally()
    for tally in tallies:
        total.add(tally)
    accepted, edited, rejected, added = (total.outcomes[outcome] for outcome in TraceOutcome)
    written, left = accepted + edited + rejected, accepted + edited + added
    return TraceQuality(
        accepted=accepted,
        edited=edited,
        rejected=rejected,
        added=added,
        accepted_share=_share(accepted, written),
        edited_share=_share(edited, written),
        rejected_share=_share(rejected, written),
        added_share=_share(added, left),
        characters_changed=fmean(total.distances) if total.distances else None,
        text_changed=fmean(total.changes) if total.changes else None,
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
