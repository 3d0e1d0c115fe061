"""Images and drafts a page at a time, narrowed by what they are; nothing loads a whole table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from sqlalchemy import RowMapping, Select, Subquery, exists, func, or_, select, tuple_
from sqlalchemy.orm import Session

from core.chain import deciding
from core.records import (
    Attempt,
    Authenticity,
    Correction,
    Draft,
    ImageRecord,
    RequestText,
    TeacherReply,
    TraceOutcome,
)
from db.images import IMAGE_COLUMNS, image_of, images_by_id
from db.ledger import attempts, replies_of_attempts
from db.request_texts import request_texts
from db.reviews import corrections, corrections_by_id
from db.studio import drafts_by_id, lead_times
from db.tables import (
    AttemptRow,
    ChainRow,
    CorrectionRow,
    DraftRow,
    FileRow,
    FindingRow,
    ImageRow,
    OutcomeRow,
    ReasoningRow,
)
from db.tombstones import is_withdrawn

UNLABELLED = "no label"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFilter:
    """What images are to be; None: whatever."""

    source: str | None = None
    label: str | None = None
    """`real`, `fake` or `no label`"""
    generator: str | None = None
    format: str | None = None
    image_id: str | None = None
    """how it begins"""


class Fault(StrEnum):
    """Why somebody should look at a draft."""

    CONTRADICTION = "contradicts its verdict"
    RETRIED = "needed more than one call"
    EDITED = "an expert edited it"
    REJECTED = "an expert rejected a trace"
    IMAGE_REJECTED = "an expert rejected the image"
    WRONG_VERDICT = "another verdict than the label"
    NO_TRACE = "a fake without a trace"
    INVENTED = "a photograph with a trace of generation"


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftFilter:
    """What newest drafts are to be; None: whatever."""

    campaign_id: str
    arm: str | None = None
    label: str | None = None
    generator: str | None = None
    category: str | None = None
    fault: Fault | None = None
    image_id: str | None = None
    """how it begins"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftLine:
    """One draft in a list."""

    draft_id: str
    image_id: str
    arm: str
    teacher: str
    label: Authenticity | None
    generator: str | None
    verdict: Authenticity
    findings: int
    calls: int
    corrections: int
    """versions, those that count no longer too"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftDetails:
    """All that is known of one draft."""

    draft: Draft
    image: ImageRecord
    files: tuple[str, ...]
    """the users' own that became the image, as source: name"""
    attempts: tuple[Attempt, ...]
    """all calls about the image in this arm"""
    reply: TeacherReply | None
    request: RequestText | None
    corrections: tuple[Correction, ...]
    """all versions, oldest first"""
    word: Correction | None
    """the one that counts"""
    merged: tuple[Draft, ...]
    """the drafts whose votes it words, in the order of their arms"""
    seconds: Mapping[str, float]
    """by correction id: for how long the task was open"""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetadataCount:
    """How many images have the same properties, in which a shortcut may lie."""

    format: str
    jpeg_quality: int | None
    subsampling: str | None
    width: int
    height: int
    label: Authenticity | None
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Near-duplicates."""

    name: str
    images: tuple[ImageRecord, ...]


# Images


def images_page(
    session: Session, wanted: ImageFilter, *, limit: int, offset: int = 0
) -> list[ImageRecord]:
    """The images wanted that were not withdrawn, by id."""
    statement = _images(IMAGE_COLUMNS, wanted).order_by(ImageRow.image_id)
    rows = session.execute(statement.limit(limit).offset(offset)).mappings()
    return [image_of(row) for row in rows]


def count_wanted(session: Session, wanted: ImageFilter) -> int:
    """How many images are wanted."""
    found: int = session.execute(_images([func.count()], wanted)).scalar_one()
    return found


def values_of_images(session: Session) -> dict[str, list[str]]:
    """The sources, generators and formats that occur, by name of the property."""
    columns = (ImageRow.source, ImageRow.generator, ImageRow.format)
    rows = session.execute(select(*columns).distinct()).mappings().all()
    return {column.key: sorted({row[column.key] for row in rows} - {None}) for column in columns}


def categories(session: Session) -> list[str]:
    """The trace categories that findings name, in order."""
    # one step in the index from each to the next: `distinct` would go through all findings
    first = select(func.min(FindingRow.category).label("category")).cte("named", recursive=True)
    later = select(func.min(FindingRow.category)).where(FindingRow.category > first.c.category)
    named = first.union_all(
        select(later.scalar_subquery()).where(first.c.category.is_not(None)).select_from(first)
    )
    return list(session.scalars(select(named.c.category).where(named.c.category.is_not(None))))


def metadata_counts(session: Session, wanted: ImageFilter) -> list[MetadataCount]:
    """The images wanted, counted by all properties at once."""
    keys: list[Any] = [
        ImageRow.format,
        ImageRow.jpeg_quality,
        ImageRow.subsampling,
        ImageRow.width,
        ImageRow.height,
        ImageRow.label,
    ]
    statement = _images([*keys, func.count().label("images")], wanted).group_by(*keys)
    return [MetadataCount(**row) for row in session.execute(statement).mappings()]


def clusters_page(
    session: Session, wanted: ImageFilter, *, mixed: bool, limit: int, offset: int = 0
) -> list[Cluster]:
    """Near-duplicate clusters of two images wanted or more, the largest first.

    `mixed`: only those that hold both labels or several groups.
    """
    found = session.execute(
        _clusters(wanted, mixed=mixed)
        .order_by(func.count().desc(), ImageRow.cluster)
        .limit(limit)
        .offset(offset)
    )
    names = [row.cluster for row in found]
    statement = _images(IMAGE_COLUMNS, wanted).where(ImageRow.cluster.in_(names))
    members: dict[str, list[ImageRecord]] = {name: [] for name in names}
    for row in session.execute(statement.order_by(ImageRow.image_id)).mappings():
        members[row["cluster"]].append(image_of(row))
    return [Cluster(name=name, images=tuple(images)) for name, images in members.items()]


def count_clusters(session: Session, wanted: ImageFilter, *, mixed: bool) -> int:
    """How many such clusters there are."""
    inner = _clusters(wanted, mixed=mixed).subquery()
    return session.execute(select(func.count()).select_from(inner)).scalar_one()


def _clusters(wanted: ImageFilter, *, mixed: bool) -> Select[Any]:
    several_images = select(ImageRow.cluster).group_by(ImageRow.cluster).having(func.count() > 1)
    statement = _images([ImageRow.cluster], wanted).group_by(ImageRow.cluster)
    statement = statement.where(ImageRow.cluster.in_(several_images))  # read from an index
    if not mixed:
        return statement.having(func.count() > 1)
    several = or_(
        func.min(ImageRow.label) != func.max(ImageRow.label),
        func.min(ImageRow.photo_group) != func.max(ImageRow.photo_group),
    )
    return statement.where(ImageRow.label.is_not(None)).having(several)


def _images(columns: Any, wanted: ImageFilter) -> Select[Any]:
    # `concat`: or SQLite takes the index over sources and labels, and sorts all it finds there
    conditions: dict[str, Any] = {
        "source": ImageRow.source.concat("") == wanted.source,
        "label": _has_label(wanted.label),
        "generator": ImageRow.generator == wanted.generator,
        "format": ImageRow.format == wanted.format,
        "image_id": ImageRow.image_id.startswith(wanted.image_id or "", autoescape=True),
    }
    asked = [value for name, value in conditions.items() if getattr(wanted, name)]
    return select(*columns).select_from(ImageRow).where(~is_withdrawn(ImageRow.image_id), *asked)


def _has_label(label: str | None) -> Any:
    if label == UNLABELLED:
        return ImageRow.label.is_(None)
    return ImageRow.label == Authenticity(label) if label else None


# Drafts


def first_drafts(
    session: Session, wanted: DraftFilter, *, limit: int
) -> tuple[int, list[DraftLine]]:
    """How many newest drafts are wanted, and the first of them, by image and arm.

    Both from one pass over the drafts, which most faults ask for; only the ids of what is wanted
    are held.
    """
    found = _drafts(_PLACE_OF_DRAFT, wanted).cte("wanted").prefix_with("MATERIALIZED")
    first = select(found).order_by(found.c.image_id, found.c.arm).limit(limit).subquery()
    total = select(func.count()).select_from(found).scalar_subquery()
    rows = session.execute(_lines(first, wanted, total.label("total"))).mappings().all()
    return (rows[0]["total"] if rows else 0), [_line(row) for row in rows]


def drafts_page(
    session: Session, wanted: DraftFilter, *, limit: int, offset: int = 0
) -> list[DraftLine]:
    """The newest drafts wanted, by image and arm."""
    page = (
        _drafts(_PLACE_OF_DRAFT, wanted)
        .order_by(DraftRow.image_id, DraftRow.arm)
        .limit(limit)
        .offset(offset)
        .subquery()
    )
    return [_line(row) for row in session.execute(_lines(page, wanted)).mappings()]


def draft_details(session: Session, draft_id: str) -> DraftDetails | None:
    """One draft with everything around it; None where there is none."""
    draft = drafts_by_id(session, [draft_id]).get(draft_id)
    if draft is None:
        return None
    calls = attempts(session, campaign_id=draft.campaign_id, image_id=draft.image_id)
    said = session.scalars(
        select(CorrectionRow.correction_id)
        .where(CorrectionRow.draft_id == draft_id)
        .order_by(CorrectionRow.number)
    ).all()
    files = select(FileRow.source, FileRow.name).where(FileRow.image_id == draft.image_id)
    text_id = draft.request_text_id
    counting = corrections(session, [draft.image_id]).get(draft.image_id, ())
    voters = drafts_by_id(session, draft.merged)
    return DraftDetails(
        draft=draft,
        image=images_by_id(session, [draft.image_id])[draft.image_id],
        files=tuple(f"{source}: {name}" for source, name in session.execute(files)),
        attempts=tuple(call for call in calls if call.arm == draft.arm),
        reply=replies_of_attempts(session, [draft.attempt_id]).get(draft.attempt_id),
        request=request_texts(session, [text_id]).get(text_id) if text_id else None,
        corrections=tuple(corrections_by_id(session, said)),
        word=deciding([each for each in counting if each.draft_id == draft_id]),
        merged=tuple(voters[name] for name in draft.merged if name in voters),
        seconds=lead_times(session, said),
    )


def _drafts(columns: Any, wanted: DraftFilter) -> Select[Any]:
    conditions: dict[str, Any] = {
        "arm": DraftRow.arm == wanted.arm,
        "label": _has_label(wanted.label),
        "generator": ImageRow.generator == wanted.generator,
        "category": _finds(FindingRow.category == wanted.category),
        "fault": _FAULTS[wanted.fault] if wanted.fault else None,
        "image_id": DraftRow.image_id.startswith(wanted.image_id or "", autoescape=True),
    }
    asked = [value for name, value in conditions.items() if getattr(wanted, name)]
    return (
        select(*columns)
        .select_from(DraftRow)
        .join(ImageRow, ImageRow.image_id == DraftRow.image_id)
        .where(
            DraftRow.campaign_id == wanted.campaign_id,
            DraftRow.superseded_by.is_(None),
            ~is_withdrawn(DraftRow.image_id),
            *asked,
        )
    )


def _lines(page: Subquery, wanted: DraftFilter, *more: Any) -> Select[Any]:
    """What a list says of the drafts of `page`, with more columns."""
    counts: dict[str, Any] = {
        "findings": _count(FindingRow, FindingRow.reasoning_id == page.c.draft_id),
        "calls": _count(
            AttemptRow,
            AttemptRow.image_id == page.c.image_id,
            AttemptRow.campaign_id == wanted.campaign_id,
            AttemptRow.arm == page.c.arm,
        ),
        "corrections": _count(CorrectionRow, CorrectionRow.draft_id == page.c.draft_id),
    }
    columns: tuple[Any, ...] = (
        DraftRow.teacher,
        ImageRow.label,
        ImageRow.generator,
        ReasoningRow.verdict,
        *(count.label(name) for name, count in counts.items()),
    )
    return (
        select(*page.columns, *columns, *more)
        .join(DraftRow, DraftRow.draft_id == page.c.draft_id)
        .join(ImageRow, ImageRow.image_id == page.c.image_id)
        .join(ReasoningRow, ReasoningRow.reasoning_id == page.c.draft_id)
        .order_by(page.c.image_id, page.c.arm)
    )


def _line(row: RowMapping) -> DraftLine:
    return DraftLine(**{field.name: row[field.name] for field in fields(DraftLine)})


def _count(row: Any, *conditions: Any) -> Any:
    return select(func.count()).select_from(row).where(*conditions).scalar_subquery()


def _finds(*conditions: Any) -> Any:
    return exists().where(FindingRow.reasoning_id == DraftRow.draft_id, *conditions)


def _has_outcome(outcome: TraceOutcome) -> Any:
    # not `exists`: SQLite would go through all outcomes of a kind again for every draft
    corrected = (
        select(CorrectionRow.draft_id)
        .join(OutcomeRow, OutcomeRow.correction_id == CorrectionRow.correction_id)
        .where(OutcomeRow.outcome == outcome)
    )
    return DraftRow.draft_id.in_(corrected)


_PLACE_OF_DRAFT: Any = (DraftRow.draft_id, DraftRow.image_id, DraftRow.arm)
_PLACE: Any = (AttemptRow.campaign_id, AttemptRow.arm, AttemptRow.image_id)
_FAKE_TRACE = _finds(FindingRow.points_to == Authenticity.FAKE)
_FAULTS: dict[Fault, Any] = {
    Fault.CONTRADICTION: DraftRow.draft_id.in_(
        select(ChainRow.draft_id).where(ChainRow.contradictions > 0)
    ),
    Fault.RETRIED: tuple_(DraftRow.campaign_id, DraftRow.arm, DraftRow.image_id).in_(
        select(*_PLACE).group_by(*_PLACE).having(func.count() > 1)
    ),
    Fault.EDITED: _has_outcome(TraceOutcome.EDITED),
    Fault.REJECTED: _has_outcome(TraceOutcome.REJECTED),
    Fault.IMAGE_REJECTED: exists().where(
        CorrectionRow.draft_id == DraftRow.draft_id, CorrectionRow.rejects_image
    ),
    Fault.WRONG_VERDICT: exists().where(
        ReasoningRow.reasoning_id == DraftRow.draft_id, ReasoningRow.verdict != ImageRow.label
    ),
    Fault.NO_TRACE: (ImageRow.label == Authenticity.FAKE) & ~_FAKE_TRACE,
    Fault.INVENTED: (ImageRow.label == Authenticity.REAL) & _FAKE_TRACE,
}
