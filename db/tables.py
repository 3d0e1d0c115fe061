"""The tables. Rows never leave this package: callers get the records of `core.records`."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    UniqueConstraint,
    text,
)
from sqlalchemy import Table as CoreTable
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.records import (
    AttemptOutcome,
    Authenticity,
    Confidence,
    ReviewLevel,
    TraceOutcome,
    WorkState,
)
from db.columns import COUNTER, WORD, Dollars, PlainText, UtcTime

DUE_STATES = (WorkState.NEW, WorkState.GUIDED)
_IS_DUE = text("state IN ('new', 'guided')")
_IS_HELD = text("worker IS NOT NULL")
_IS_NEWEST = text("superseded_by IS NULL")


class Row(DeclarativeBase):
    """One row of one table."""

    metadata = MetaData(
        naming_convention={
            "ix": "%(table_name)s_by_%(column_0_N_name)s",
            "uq": "%(table_name)s_one_%(column_0_N_name)s",
            "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
            "pk": "%(table_name)s_pkey",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: PlainText(),
        datetime: UtcTime(),
        StrEnum: WORD,
    }


def table_of(row: type[Row]) -> CoreTable:
    """The table behind a row class, for statements that need no objects."""
    assert isinstance(row.__table__, CoreTable)
    return row.__table__


def _now() -> datetime:
    return datetime.now(UTC)


class SourceRow(Row):
    __tablename__ = "sources"

    name: Mapped[str] = mapped_column(primary_key=True)
    licence: Mapped[str]
    may_train: Mapped[bool]


class ImageRow(Row):
    __tablename__ = "images"

    image_id: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str]
    original_sha256: Mapped[str] = mapped_column(index=True)
    path: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    format: Mapped[str]
    jpeg_quality: Mapped[int | None]
    phash: Mapped[str]
    cluster: Mapped[str] = mapped_column(index=True)
    photo_group: Mapped[str]
    label: Mapped[Authenticity | None]
    generator: Mapped[str | None]
    source: Mapped[str] = mapped_column(ForeignKey(SourceRow.name))

    __table_args__ = (Index(None, "source", "label"),)


class FileRow(Row):
    __tablename__ = "imported_files"

    file_id: Mapped[str] = mapped_column(primary_key=True)
    """hash of source and name: a path may be longer than an index entry"""
    source: Mapped[str] = mapped_column(ForeignKey(SourceRow.name))
    name: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str | None]
    image_id: Mapped[str | None] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    size: Mapped[int] = mapped_column(BigInteger)
    mtime_ns: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (Index(None, "source", "outcome"),)


class CampaignRow(Row):
    __tablename__ = "campaigns"

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    recipe: Mapped[str]
    drafting_digest: Mapped[str]
    ceiling_usd: Mapped[float | None] = mapped_column(Dollars)
    committed_usd: Mapped[float] = mapped_column(Dollars, default=0.0)
    """spent, and set aside for calls whose end is not known; always the sum over the attempts"""
    stopped_reason: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=_now)


class WorkRow(Row):
    __tablename__ = "work"

    work_id: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id))
    arm: Mapped[str]
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    state: Mapped[WorkState]
    came_from: Mapped[WorkState | None]
    """the state before the claim; set while the row is claimed"""
    tries: Mapped[int]
    worker: Mapped[str | None]
    claimed_until: Mapped[datetime | None]
    reason: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("campaign_id", "arm", "image_id"),
        Index(None, "campaign_id", "state"),
        Index("work_due", "campaign_id", "work_id", sqlite_where=_IS_DUE, postgresql_where=_IS_DUE),
        Index("work_held", "worker", sqlite_where=_IS_HELD, postgresql_where=_IS_HELD),
    )


class AttemptRow(Row):
    __tablename__ = "attempts"

    attempt_id: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    number: Mapped[int]
    """counts the attempts at one request from 1"""
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id))
    arm: Mapped[str]
    model: Mapped[str]
    outcome: Mapped[AttemptOutcome]
    reserved_usd: Mapped[float] = mapped_column(Dollars)
    cost_usd: Mapped[float | None] = mapped_column(Dollars)
    reason: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    image_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    reasoning_tokens: Mapped[int | None]
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        UniqueConstraint("request_hash", "number"),
        Index(None, "campaign_id", "outcome"),
    )


class ReplyRow(Row):
    __tablename__ = "replies"

    attempt_id: Mapped[str] = mapped_column(ForeignKey(AttemptRow.attempt_id), primary_key=True)
    request_hash: Mapped[str] = mapped_column(index=True)
    finish_reason: Mapped[str]
    model: Mapped[str]
    request_id: Mapped[str | None]
    latency_s: Mapped[float]
    content: Mapped[str | None]
    refusal: Mapped[str | None]
    raw: Mapped[str]


class ReasoningRow(Row):
    """The reasoning of the draft, correction or chain that has the same id."""

    __tablename__ = "reasonings"

    reasoning_id: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[Authenticity]
    conclusion: Mapped[str]
    confidence: Mapped[Confidence]


class FindingRow(Row):
    __tablename__ = "findings"

    reasoning_id: Mapped[str] = mapped_column(
        ForeignKey(ReasoningRow.reasoning_id), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    category: Mapped[str]
    points_to: Mapped[Authenticity]
    evidence: Mapped[str]

    __table_args__ = (Index(None, "category", "points_to"),)


class CornerRow(Row):
    """One corner of the polygon of a finding; fractions of width and height."""

    __tablename__ = "region_corners"

    reasoning_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    corner: Mapped[int] = mapped_column(primary_key=True)
    x: Mapped[float]
    y: Mapped[float]

    __table_args__ = (
        ForeignKeyConstraint(
            ["reasoning_id", "position"], [FindingRow.reasoning_id, FindingRow.position]
        ),
    )


class DraftRow(Row):
    __tablename__ = "drafts"

    draft_id: Mapped[str] = mapped_column(ForeignKey(ReasoningRow.reasoning_id), primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    attempt_id: Mapped[str] = mapped_column(ForeignKey(AttemptRow.attempt_id), index=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id))
    arm: Mapped[str]
    teacher: Mapped[str]
    prompt_version: Mapped[str]
    demonstrations: Mapped[int]
    superseded_by: Mapped[str | None] = mapped_column(
        ForeignKey("drafts.draft_id", deferrable=True, initially="DEFERRED")
    )
    created_at: Mapped[datetime] = mapped_column(default=_now)

    __table_args__ = (
        Index(
            "drafts_newest",
            "campaign_id",
            "arm",
            "image_id",
            unique=True,
            sqlite_where=_IS_NEWEST,
            postgresql_where=_IS_NEWEST,
        ),
    )


class CorrectionRow(Row):
    __tablename__ = "corrections"

    number: Mapped[int] = mapped_column(COUNTER, primary_key=True)
    """the order in which corrections arrived"""
    correction_id: Mapped[str] = mapped_column(ForeignKey(ReasoningRow.reasoning_id), unique=True)
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    draft_id: Mapped[str] = mapped_column(ForeignKey(DraftRow.draft_id), index=True)
    expert: Mapped[str] = mapped_column(index=True)
    version: Mapped[int]
    is_adjudication: Mapped[bool]
    rejects_image: Mapped[bool]
    created_at: Mapped[datetime] = mapped_column(default=_now)


class OutcomeRow(Row):
    """What an expert did with one trace: the findings of the draft in order, then added ones."""

    __tablename__ = "trace_outcomes"

    correction_id: Mapped[str] = mapped_column(
        ForeignKey(CorrectionRow.correction_id), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    outcome: Mapped[TraceOutcome] = mapped_column(index=True)


class ChainRow(Row):
    __tablename__ = "chains"

    chain_id: Mapped[str] = mapped_column(ForeignKey(ReasoningRow.reasoning_id), primary_key=True)
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id))
    arm: Mapped[str]
    draft_id: Mapped[str] = mapped_column(ForeignKey(DraftRow.draft_id), index=True)
    teacher: Mapped[str]
    review_level: Mapped[ReviewLevel]
    contradictions: Mapped[int]
    superseded_by: Mapped[str | None] = mapped_column(
        ForeignKey("chains.chain_id", deferrable=True, initially="DEFERRED")
    )
    created_at: Mapped[datetime] = mapped_column(default=_now)

    __table_args__ = (
        Index(
            "chains_newest",
            "campaign_id",
            "arm",
            "image_id",
            unique=True,
            sqlite_where=_IS_NEWEST,
            postgresql_where=_IS_NEWEST,
        ),
    )


class ChainCorrectionRow(Row):
    """The corrections that a chain was built from, in their order."""

    __tablename__ = "chain_corrections"

    chain_id: Mapped[str] = mapped_column(ForeignKey(ChainRow.chain_id), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    correction_id: Mapped[str] = mapped_column(ForeignKey(CorrectionRow.correction_id), index=True)
