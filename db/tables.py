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
    AnnotationFate,
    AttemptOutcome,
    Authenticity,
    BatchState,
    Confidence,
    ReviewLevel,
    TaskKind,
    TraceOutcome,
    View,
    WorkState,
)
from db.columns import COUNTER, WORD, Counts, Dollars, Names, PlainText, UtcTime, Views

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
    terms: Mapped[str] = mapped_column(server_default="")


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
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    subsampling: Mapped[str | None]

    __table_args__ = (
        Index(None, "source", "label", "generator", "format", "image_id"),
        Index(None, "image_id", "label", "generator"),
    )


class TombstoneRow(Row):
    """An image that was withdrawn; it may be known from a shard set alone."""

    __tablename__ = "tombstones"

    image_id: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(index=True)
    original_sha256: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str]
    withdrawn_at: Mapped[datetime]


class ProvenanceRow(Row):
    """One thing that the metadata of the user's file said of where the image comes from."""

    __tablename__ = "provenance"

    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[str]

    __table_args__ = (Index(None, "name"),)


class TopicRow(Row):
    """What an image shows, as somebody said."""

    __tablename__ = "topics"

    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), primary_key=True)
    said_by: Mapped[str] = mapped_column(primary_key=True)
    topic: Mapped[str]


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


class BenchmarkHashRow(Row):
    """One image of a benchmark whose images are not here."""

    __tablename__ = "benchmark_hashes"

    hash_id: Mapped[str] = mapped_column(primary_key=True)
    """hash of the source and of both hashes"""
    source: Mapped[str] = mapped_column(ForeignKey(SourceRow.name))
    sha256: Mapped[str | None]
    phash: Mapped[str | None]


class CampaignRow(Row):
    __tablename__ = "campaigns"

    campaign_id: Mapped[str] = mapped_column(primary_key=True)
    recipe: Mapped[str]
    drafting_digest: Mapped[str]
    ceiling_usd: Mapped[float | None] = mapped_column(Dollars)
    committed_usd: Mapped[float] = mapped_column(Dollars, default=0.0)
    """spent, and set aside for calls whose end is not known; always the sum over the attempts"""
    stopped_reason: Mapped[str | None]
    recipe_folder: Mapped[str | None]
    """with the next, what a worker needs to know to take part; None before the first run"""
    rehearsal_url: Mapped[str | None]
    """where its rehearsal teacher listens, if an arm asks it"""
    tended_at: Mapped[datetime | None]
    """when a janitor last looked after it"""
    created_at: Mapped[datetime] = mapped_column(default=_now)


class DayRow(Row):
    """What all campaigns together have committed on a day; missing while nothing cost money."""

    __tablename__ = "days"

    day: Mapped[str] = mapped_column(primary_key=True)
    """YYYY-MM-DD in UTC, of the start of the attempts"""
    committed_usd: Mapped[float] = mapped_column(Dollars)
    """spent, and set aside for calls whose end is not known"""


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
    due_at: Mapped[datetime | None]
    """not to be claimed before; None: at once"""
    reason: Mapped[str | None]

    __table_args__ = (
        UniqueConstraint("campaign_id", "arm", "image_id"),
        Index(None, "campaign_id", "state"),
        Index(
            "work_due",
            "campaign_id",
            "arm",
            "work_id",
            sqlite_where=_IS_DUE,
            postgresql_where=_IS_DUE,
        ),
        Index("work_held", "worker", sqlite_where=_IS_HELD, postgresql_where=_IS_HELD),
    )


class AttemptRow(Row):
    __tablename__ = "attempts"

    attempt_id: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    number: Mapped[int]
    """counts the attempts at one request from 1"""
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id))
    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id))
    arm: Mapped[str]
    server: Mapped[str | None]
    """whom it asked, as `core.servers` names it; None: a version before did not write it down"""
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
        Index(None, "image_id", "campaign_id", "arm"),
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


class RequestTextRow(Row):
    """What a teacher was told beside pictures; shared by all images that were told the same."""

    __tablename__ = "request_texts"

    text_id: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str]
    instructions: Mapped[str]
    question: Mapped[str]
    reply_schema: Mapped[str]
    temperature: Mapped[float]
    max_output_tokens: Mapped[int]


class LimitRow(Row):
    """What was asked of a teacher lately, where no Redis counts it."""

    __tablename__ = "limits"

    teacher: Mapped[str] = mapped_column(primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    memory: Mapped[str]
    """JSON of a `core.limits.Window`"""


class BatchRow(Row):
    """A file of requests that a teacher answers together."""

    __tablename__ = "batches"

    batch_id: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id), index=True)
    arm: Mapped[str]
    state: Mapped[BatchState]
    num_lines: Mapped[int]
    num_bytes: Mapped[int] = mapped_column(BigInteger)
    input_sha256: Mapped[str | None]
    input_file_id: Mapped[str | None]
    remote_id: Mapped[str | None]
    output_file_id: Mapped[str | None]
    error_file_id: Mapped[str | None]
    reason: Mapped[str | None]
    worker: Mapped[str | None]
    """the process that is moving it on"""
    held_until: Mapped[datetime | None]
    created_at: Mapped[datetime]
    polled_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    ingested_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]


class BatchLineRow(Row):
    """One line of a batch: an attempt, and the claimed work that it is for."""

    __tablename__ = "batch_lines"

    attempt_id: Mapped[str] = mapped_column(ForeignKey(AttemptRow.attempt_id), primary_key=True)
    batch_id: Mapped[str] = mapped_column(ForeignKey(BatchRow.batch_id))
    number: Mapped[int]
    """of the line in its file, from 1"""
    work_id: Mapped[str] = mapped_column(ForeignKey(WorkRow.work_id), index=True)

    __table_args__ = (UniqueConstraint("batch_id", "number"),)


class ReasoningRow(Row):
    """The reasoning of the draft, correction or chain that has the same id."""

    __tablename__ = "reasonings"

    reasoning_id: Mapped[str] = mapped_column(primary_key=True)
    verdict: Mapped[Authenticity]
    conclusion: Mapped[str]
    confidence: Mapped[Confidence]

    __table_args__ = (Index(None, "reasoning_id", "verdict"),)
    """a list of wrong verdicts looks up each draft's, and no conclusion"""


class FindingRow(Row):
    __tablename__ = "findings"

    reasoning_id: Mapped[str] = mapped_column(
        ForeignKey(ReasoningRow.reasoning_id), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    category: Mapped[str]
    points_to: Mapped[Authenticity]
    evidence: Mapped[str]

    __table_args__ = (
        Index(None, "category", "points_to"),
        Index(None, "reasoning_id", "points_to", "category"),
    )


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


class MaskRow(Row):
    """The marked pixels of a finding."""

    __tablename__ = "region_masks"

    reasoning_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    width: Mapped[int]
    height: Mapped[int]
    counts: Mapped[tuple[int, ...]] = mapped_column(Counts)
    """as `core.records.Mask` has them"""

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
    exemplar_ids: Mapped[tuple[str, ...]] = mapped_column(Names)
    uncovered: Mapped[tuple[str, ...]] = mapped_column(Names)
    seen: Mapped[tuple[View, ...]] = mapped_column(Views)
    bytes_sent: Mapped[int] = mapped_column(BigInteger)
    request_text_id: Mapped[str | None]
    """of a row of `request_texts`; SQLite adds no foreign key to a table that is there"""
    glaring: Mapped[tuple[str, ...]] = mapped_column(Names, server_default="[]")
    merged: Mapped[tuple[str, ...]] = mapped_column(Names, server_default="[]")
    """ids of drafts"""
    merged_teachers: Mapped[tuple[str, ...]] = mapped_column(Names, server_default="[]")
    superseded_by: Mapped[str | None] = mapped_column(
        ForeignKey("drafts.draft_id", deferrable=True, initially="DEFERRED")
    )
    created_at: Mapped[datetime] = mapped_column(default=_now)

    __table_args__ = (
        Index(
            "drafts_newest",
            "campaign_id",
            "image_id",
            "arm",
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
    merged_teachers: Mapped[tuple[str, ...]] = mapped_column(Names, server_default="[]")
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


class BlindLabelRow(Row):
    __tablename__ = "blind_labels"

    number: Mapped[int] = mapped_column(COUNTER, primary_key=True)
    """the order in which labels arrived"""
    label_id: Mapped[str] = mapped_column(unique=True)
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    expert: Mapped[str] = mapped_column(index=True)
    version: Mapped[int]
    verdict: Mapped[Authenticity]
    confidence: Mapped[Confidence]
    categories: Mapped[tuple[str, ...]] = mapped_column(Names)
    withdrawn_at: Mapped[datetime | None]
    """its expert took it back: it stays and no longer counts"""
    created_at: Mapped[datetime] = mapped_column(default=_now)


class GuidanceRow(Row):
    """What the blind labels of an image came to; never changed."""

    __tablename__ = "guidance"

    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), primary_key=True)
    categories: Mapped[tuple[str, ...]] = mapped_column(Names)
    experts: Mapped[tuple[str, ...]] = mapped_column(Names)
    hard: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(default=_now)


class MergedDescriptionRow(Row):
    """An expert's description of an image, merged with a teacher's."""

    __tablename__ = "merged_descriptions"

    number: Mapped[int] = mapped_column(COUNTER, primary_key=True)
    """the order in which they arrived"""
    description_id: Mapped[str] = mapped_column(unique=True)
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    draft_id: Mapped[str] = mapped_column(ForeignKey(DraftRow.draft_id))
    expert: Mapped[str]
    version: Mapped[int]
    own: Mapped[str]
    merged: Mapped[str]
    categories: Mapped[tuple[str, ...]] = mapped_column(Names)
    withdrawn_at: Mapped[datetime | None]
    """its expert took it back: it stays and no longer counts"""
    created_at: Mapped[datetime] = mapped_column(default=_now)


class PreferenceRow(Row):
    """Which of two drafts about an image an expert preferred."""

    __tablename__ = "preferences"

    number: Mapped[int] = mapped_column(COUNTER, primary_key=True)
    """the order in which they arrived"""
    preference_id: Mapped[str] = mapped_column(unique=True)
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    expert: Mapped[str]
    version: Mapped[int]
    preferred: Mapped[str] = mapped_column(ForeignKey(DraftRow.draft_id))
    other: Mapped[str] = mapped_column(ForeignKey(DraftRow.draft_id))
    preferred_first: Mapped[bool]
    withdrawn_at: Mapped[datetime | None]
    """its expert took it back: it stays and no longer counts"""
    created_at: Mapped[datetime] = mapped_column(default=_now)


class WithdrawnCorrectionRow(Row):
    """A correction that its expert took back; it stays and no longer counts."""

    __tablename__ = "withdrawn_corrections"

    correction_id: Mapped[str] = mapped_column(
        ForeignKey(CorrectionRow.correction_id), primary_key=True
    )
    created_at: Mapped[datetime] = mapped_column(default=_now)


class StudioProjectRow(Row):
    """A project that we made on a Label Studio server."""

    __tablename__ = "studio_projects"

    project_key: Mapped[str] = mapped_column(primary_key=True)
    """random; stands in the project's title, so that it is known again"""
    server: Mapped[str]
    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id))
    form_id: Mapped[str]
    kind: Mapped[TaskKind]
    owner: Mapped[str | None]
    """the expert whose project it is; None: everybody's"""
    number: Mapped[int]
    """counts the projects of one form from 1"""
    project_id: Mapped[int | None]
    """on the server; None while that is not known"""
    polled_until: Mapped[datetime | None]
    """the newest change that was seen there, by the server's clock"""

    __table_args__ = (UniqueConstraint("server", "campaign_id", "form_id", "number"),)


class StudioTaskRow(Row):
    """Something about an image that a task of a project shows."""

    __tablename__ = "studio_tasks"

    task_key: Mapped[str] = mapped_column(primary_key=True)
    """random; travels in the task, so that it is known again"""
    project_key: Mapped[str] = mapped_column(ForeignKey(StudioProjectRow.project_key))
    subject_id: Mapped[str] = mapped_column(index=True)
    """id of what is shown; of which table, the kind of the project says"""
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id), index=True)
    task_id: Mapped[int | None]
    """on the server; None while that is not known"""
    refused: Mapped[str | None]
    """why the subject cannot be shown in the form"""

    __table_args__ = (UniqueConstraint("project_key", "subject_id"),)


class ExpertRow(Row):
    """Who stands behind a pseudonym: a user of a Label Studio server."""

    __tablename__ = "experts"

    expert: Mapped[str] = mapped_column(primary_key=True)
    server: Mapped[str]
    user_id: Mapped[int]

    __table_args__ = (UniqueConstraint("server", "user_id"),)


class AnnotationVersionRow(Row):
    """One version of one annotation as it was pulled, or its end; append-only."""

    __tablename__ = "annotation_versions"

    version_id: Mapped[str] = mapped_column(primary_key=True)
    task_key: Mapped[str] = mapped_column(ForeignKey(StudioTaskRow.task_key))
    annotation_id: Mapped[int]
    number: Mapped[int]
    """counts the versions of one annotation from 1"""
    fate: Mapped[AnnotationFate]
    reason: Mapped[str | None]
    expert: Mapped[str | None] = mapped_column(ForeignKey(ExpertRow.expert))
    record_id: Mapped[str | None] = mapped_column(index=True)
    """id of what a counted version became; of which table, the kind of the project says"""
    lead_time_s: Mapped[float | None]
    raw: Mapped[str]
    """what the server said, as JSON text"""
    created_at: Mapped[datetime] = mapped_column(default=_now)

    __table_args__ = (UniqueConstraint("task_key", "annotation_id", "number"),)


class DisputedCorrectionRow(Row):
    """One of the answers between which an adjudicator settles."""

    __tablename__ = "disputed_corrections"

    dispute_id: Mapped[str] = mapped_column(primary_key=True)
    """hash of the answers"""
    position: Mapped[int] = mapped_column(primary_key=True)
    correction_id: Mapped[str] = mapped_column(ForeignKey(CorrectionRow.correction_id))


class GoldItemRow(Row):
    """An image with a known right answer, shown as one of the others of its kind."""

    __tablename__ = "gold_items"

    gold_id: Mapped[str] = mapped_column(primary_key=True)
    campaign_id: Mapped[str] = mapped_column(ForeignKey(CampaignRow.campaign_id))
    kind: Mapped[TaskKind]
    subject_id: Mapped[str]
    """what a task of this kind shows of the image"""
    image_id: Mapped[str] = mapped_column(ForeignKey(ImageRow.image_id))

    __table_args__ = (Index(None, "campaign_id", "kind"),)


class GoldAnswerRow(Row):
    """What an expert said of a gold item; scored, and in no chain."""

    __tablename__ = "gold_answers"

    number: Mapped[int] = mapped_column(COUNTER, primary_key=True)
    """the order in which answers arrived"""
    answer_id: Mapped[str] = mapped_column(unique=True)
    gold_id: Mapped[str] = mapped_column(ForeignKey(GoldItemRow.gold_id), index=True)
    expert: Mapped[str] = mapped_column(ForeignKey(ExpertRow.expert))
    verdict: Mapped[Authenticity | None]
    """None: the form does not ask for it"""
    categories: Mapped[tuple[str, ...]] = mapped_column(Names)
    is_withdrawn: Mapped[bool] = mapped_column(default=False)
    """the expert took it back"""
