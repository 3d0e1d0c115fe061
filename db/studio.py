"""What we have on Label Studio servers, under ids of our own.

A server knows no idempotency key. A random key is stored here before anything is created there, and
travels with it, so that what a killed push left behind is found again instead of made twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.records import AnnotationFate, Authenticity, Draft, TaskKind
from db.images import of_sources
from db.ledger import DRAFT_FIELDS, DRAFTS
from db.reasonings import reasonings_of
from db.statements import among, batches, change, insert_missing
from db.tables import (
    AnnotationVersionRow,
    CampaignRow,
    DraftRow,
    ExpertRow,
    ImageRow,
    StudioProjectRow,
    StudioTaskRow,
    table_of,
)
from db.tombstones import is_withdrawn

PROJECTS = table_of(StudioProjectRow)
TASKS = table_of(StudioTaskRow)
VERSIONS = table_of(AnnotationVersionRow)
VERSION_COLUMNS = [column for column in VERSIONS.columns if column.key != "created_at"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioProject:
    """A project that we made on a Label Studio server."""

    project_key: str
    server: str
    campaign_id: str
    form_id: str
    kind: TaskKind
    owner: str | None = None
    number: int
    project_id: int | None = None
    polled_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a task shows, and the image that it is about."""

    subject_id: str
    image_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StudioTask:
    """A subject as a task of a project."""

    task_key: str
    project_key: str
    subject_id: str
    image_id: str
    task_id: int | None = None
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class DraftedImage:
    """A labelled image and the ids of its newest drafts by arm."""

    image_id: str
    label: Authenticity
    drafts: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnotationVersion:
    """One version of one annotation as it was pulled, or its end."""

    version_id: str
    task_key: str
    annotation_id: int
    number: int
    fate: AnnotationFate
    reason: str | None = None
    expert: str | None = None
    record_id: str | None = None
    lead_time_s: float | None = None
    raw: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenIn:
    """Where on a server an expert gave an answer."""

    record_id: str
    """what the answer became"""
    server: str
    project_id: int | None
    task_id: int | None
    """None when the server no longer has the task"""
    annotation_id: int
    number: int
    """which of the annotation's versions it was"""


# Projects


def save_project(session: Session, project: StudioProject) -> None:
    """Remember a project before it is made on the server."""
    session.connection().execute(insert(PROJECTS), [asdict(project)])


def set_project_id(session: Session, project_key: str, project_id: int) -> None:
    """The project is there, under this number."""
    _change_project(session, project_key, project_id=project_id)


def forget_project(session: Session, project_key: str) -> None:
    """A project and its tasks are on the server no more; the answers that were pulled stay."""
    _change_project(session, project_key, project_id=None)
    change(session, update(TASKS).where(TASKS.c.project_key == project_key).values(task_id=None))


def set_polled_until(session: Session, project_key: str, moment: datetime) -> None:
    """All changes up to this moment of the server's clock were seen."""
    _change_project(session, project_key, polled_until=moment)


def projects(
    session: Session,
    campaign_id: str,
    *,
    server: str | None = None,
    form_id: str | None = None,
    kind: TaskKind | None = None,
) -> list[StudioProject]:
    """The projects of a campaign (None: on every server, of every form or kind), oldest first."""
    statement = select(*PROJECTS.columns).where(StudioProjectRow.campaign_id == campaign_id)
    if server is not None:
        statement = statement.where(StudioProjectRow.server == server)
    if form_id is not None:
        statement = statement.where(StudioProjectRow.form_id == form_id)
    if kind is not None:
        statement = statement.where(StudioProjectRow.kind == kind)
    ordered = statement.order_by(StudioProjectRow.form_id, StudioProjectRow.number)
    return [StudioProject(**row) for row in session.execute(ordered).mappings()]


# Tasks


def save_tasks(session: Session, tasks: Sequence[StudioTask]) -> int:
    """Remember tasks before they are made on the server; returns how many were new."""
    return insert_missing(session, TASKS, [asdict(task) for task in tasks])


def set_task_ids(session: Session, task_ids: Mapping[str, int | None]) -> None:
    """These tasks, by their key, are on the server under these numbers; None: they are gone."""
    if not task_ids:
        return
    statement = update(TASKS).where(TASKS.c.task_key == bindparam("of_key"))
    changes = [{"of_key": key, "new_id": task_id} for key, task_id in sorted(task_ids.items())]
    session.connection().execute(statement.values(task_id=bindparam("new_id")), changes)


def refuse_task(session: Session, task_key: str, reason: str) -> None:
    """The subject cannot be shown in the form; it is not tried again."""
    change(session, update(TASKS).where(TASKS.c.task_key == task_key).values(refused=reason))


def tasks_of(session: Session, project_key: str) -> dict[str, StudioTask]:
    """The tasks of a project by their key, in the order of their keys."""
    statement = select(*TASKS.columns).where(StudioTaskRow.project_key == project_key)
    rows = session.execute(statement.order_by(StudioTaskRow.task_key)).mappings()
    return {row["task_key"]: StudioTask(**row) for row in rows}


def owner_of(session: Session, project_key: str) -> str | None:
    """The expert whose project it is; None: everybody's."""
    return session.scalar(
        select(StudioProjectRow.owner).where(StudioProjectRow.project_key == project_key)
    )


def undelivered_drafts(
    session: Session,
    *,
    server: str,
    form_id: str,
    campaign_id: str,
    arms: Sequence[str],
    sources: Sequence[str],
    limit: int | None,
) -> list[Subject]:
    """The newest drafts of these arms and sources that no task of this server shows, by image.

    A task counts that is there, or that waits for a project of this form.
    """
    waits = StudioProjectRow.form_id == form_id
    is_there = StudioTaskRow.task_id.is_not(None)
    shown = (StudioProjectRow.server == server, or_(waits, is_there))
    columns = [DraftRow.draft_id, DraftRow.image_id]
    statement = _undelivered(columns, campaign_id, arms, *shown)
    narrowed = of_sources(statement, sources, ()).order_by(DraftRow.image_id).limit(limit)
    return [Subject(subject_id=draft, image_id=image) for draft, image in session.execute(narrowed)]


def count_undelivered(session: Session, campaign_id: str, arms: Sequence[str]) -> int:
    """How many newest drafts of these arms no task of any server shows."""
    is_there = StudioTaskRow.task_id.is_not(None)
    statement = _undelivered([func.count()], campaign_id, arms, is_there)
    count: int = session.execute(statement).scalar_one()
    return count


def drafted_images(
    session: Session, campaign_id: str, arms: Sequence[str], *, sources: Sequence[str] | None = None
) -> dict[str, DraftedImage]:
    """The labelled images of these sources (None: of all) with their newest drafts, by id."""
    columns: list[Any] = [ImageRow.image_id, ImageRow.label, DraftRow.arm, DraftRow.draft_id]
    statement = (
        select(*columns)
        .join(DraftRow, DraftRow.image_id == ImageRow.image_id)
        .where(
            DraftRow.campaign_id == campaign_id,
            DraftRow.arm.in_(arms),
            DraftRow.superseded_by.is_(None),
            ImageRow.label.is_not(None),
            ~is_withdrawn(ImageRow.image_id),
        )
        .order_by(ImageRow.image_id, DraftRow.arm)
    )
    found: dict[str, DraftedImage] = {}
    for image_id, label, arm, draft_id in session.execute(of_sources(statement, sources, ())):
        image = found.setdefault(image_id, DraftedImage(image_id, label, {}))
        image.drafts[arm] = draft_id
    return found


def awaited_tasks(
    session: Session,
    *,
    server: str | None,
    form_id: str,
    kind: TaskKind,
    campaign_id: str,
    recipe: str | None = None,
) -> list[tuple[StudioTask, str | None]]:
    """The tasks of a kind on a server (None: on any), each with its owner, answered or not, by key.

    Those of a campaign, or of all campaigns of a recipe where one is named. A task counts that is
    there, or that waits for a project of this campaign and form.
    """
    waits = (StudioProjectRow.form_id == form_id) & (StudioProjectRow.campaign_id == campaign_id)
    whose = (
        CampaignRow.campaign_id == campaign_id if recipe is None else CampaignRow.recipe == recipe
    )
    statement = (
        select(*TASKS.columns, StudioProjectRow.owner)
        .join(StudioProjectRow, StudioProjectRow.project_key == StudioTaskRow.project_key)
        .join(CampaignRow, CampaignRow.campaign_id == StudioProjectRow.campaign_id)
        .where(
            whose,
            StudioProjectRow.kind == kind,
            StudioTaskRow.refused.is_(None),
            or_(StudioTaskRow.task_id.is_not(None), waits),
        )
        .order_by(StudioTaskRow.task_key)
    )
    if server is not None:
        statement = statement.where(StudioProjectRow.server == server)
    return [
        (StudioTask(**{column.key: row._mapping[column] for column in TASKS.columns}), row.owner)
        for row in session.execute(statement)
    ]


def earlier_projects(
    session: Session, recipe: str, campaign_id: str, *, server: str | None = None
) -> list[StudioProject]:
    """The projects of a recipe's other campaigns (None: on every server), oldest campaign first."""
    statement = (
        select(*PROJECTS.columns)
        .join(CampaignRow, CampaignRow.campaign_id == StudioProjectRow.campaign_id)
        .where(
            CampaignRow.recipe == recipe,
            StudioProjectRow.campaign_id != campaign_id,
        )
        .order_by(CampaignRow.created_at, StudioProjectRow.form_id, StudioProjectRow.number)
    )
    if server is not None:
        statement = statement.where(StudioProjectRow.server == server)
    return [StudioProject(**row) for row in session.execute(statement).mappings()]


def drafts_by_id(session: Session, draft_ids: Sequence[str]) -> dict[str, Draft]:
    """The drafts of these ids, newest or not."""
    found: dict[str, Draft] = {}
    for batch in batches(sorted(set(draft_ids))):
        columns = [DRAFTS.c[name] for name in DRAFT_FIELDS]
        these = among(session, DraftRow.draft_id, batch)
        rows = session.execute(select(*columns).where(these)).mappings()
        reasonings = reasonings_of(session, batch)
        for row in rows:
            found[row["draft_id"]] = Draft(**row, reasoning=reasonings[row["draft_id"]])
    return found


def withdrawn_tasks(session: Session, server: str) -> list[tuple[StudioProject, StudioTask]]:
    """The tasks on a server that show withdrawn images, with their projects, by task key."""
    statement = (
        select(*PROJECTS.columns, *TASKS.columns)
        .join(StudioProjectRow, StudioProjectRow.project_key == StudioTaskRow.project_key)
        .where(
            StudioProjectRow.server == server,
            StudioTaskRow.task_id.is_not(None),
            is_withdrawn(StudioTaskRow.image_id),
        )
        .order_by(StudioTaskRow.task_key)
    )
    return [
        (
            StudioProject(**{column.key: row._mapping[column] for column in PROJECTS.columns}),
            StudioTask(**{column.key: row._mapping[column] for column in TASKS.columns}),
        )
        for row in session.execute(statement)
    ]


# Annotations and experts


def expert_of(session: Session, server: str, user_id: int) -> str:
    """The pseudonym of a user of a server; a new user gets the next one."""
    statement = select(ExpertRow.expert).where(
        ExpertRow.server == server, ExpertRow.user_id == user_id
    )
    known = session.scalar(statement)
    if known is not None:
        return known
    number = session.execute(select(func.count()).select_from(ExpertRow)).scalar_one() + 1
    expert = f"expert-{number}"
    row = {"expert": expert, "server": server, "user_id": user_id}
    session.connection().execute(insert(table_of(ExpertRow)), [row])
    return expert


def save_version(session: Session, version: AnnotationVersion) -> None:
    """Append one version of one annotation."""
    session.connection().execute(insert(VERSIONS), [asdict(version)])


def versions(session: Session, task_keys: Sequence[str]) -> dict[int, list[AnnotationVersion]]:
    """The known versions of the annotations of these tasks, by annotation id, oldest first."""
    found: dict[int, list[AnnotationVersion]] = {}
    for batch in batches(sorted(task_keys)):
        statement = select(*VERSION_COLUMNS).where(AnnotationVersionRow.task_key.in_(batch))
        rows = session.execute(statement.order_by(AnnotationVersionRow.number)).mappings()
        for row in rows:
            found.setdefault(row["annotation_id"], []).append(AnnotationVersion(**row))
    return found


def lead_times(session: Session, correction_ids: Sequence[str]) -> dict[str, float]:
    """For how many seconds the task was open before each correction, where the server said so."""
    found: dict[str, float] = {}
    for batch in batches(list(correction_ids)):
        rows = session.execute(
            select(VERSIONS.c.record_id, VERSIONS.c.lead_time_s).where(
                among(session, AnnotationVersionRow.record_id, batch),
                AnnotationVersionRow.lead_time_s.is_not(None),
            )
        )
        found |= dict(rows.all())
    return found


def given_in(session: Session, record_ids: Sequence[str]) -> dict[str, GivenIn]:
    """Where the answers were given that became these records, by the record's id."""
    found: dict[str, GivenIn] = {}
    for batch in batches(list(record_ids)):
        statement = (
            select(
                VERSIONS.c.record_id,
                PROJECTS.c.server,
                PROJECTS.c.project_id,
                TASKS.c.task_id,
                VERSIONS.c.annotation_id,
                VERSIONS.c.number,
            )
            .join(StudioTaskRow, StudioTaskRow.task_key == AnnotationVersionRow.task_key)
            .join(StudioProjectRow, StudioProjectRow.project_key == StudioTaskRow.project_key)
            .where(AnnotationVersionRow.record_id.in_(batch))
        )
        found |= {row["record_id"]: GivenIn(**row) for row in session.execute(statement).mappings()}
    return found


def newest_versions(
    session: Session, project_key: str
) -> Iterator[tuple[StudioTask, AnnotationVersion]]:
    """The newest version of every annotation of a project, with its task, by annotation id."""
    later = aliased(AnnotationVersionRow)
    statement = (
        select(*TASKS.columns, *VERSION_COLUMNS)
        .join(StudioTaskRow, StudioTaskRow.task_key == AnnotationVersionRow.task_key)
        .where(
            StudioTaskRow.project_key == project_key,
            ~exists().where(
                later.task_key == AnnotationVersionRow.task_key,
                later.annotation_id == AnnotationVersionRow.annotation_id,
                later.number > AnnotationVersionRow.number,
            ),
        )
        .order_by(AnnotationVersionRow.annotation_id)
    )
    for row in session.execute(statement):
        fields = row._mapping
        yield (
            StudioTask(**{column.key: fields[column] for column in TASKS.columns}),
            AnnotationVersion(**{column.key: fields[column] for column in VERSION_COLUMNS}),
        )


def _change_project(session: Session, project_key: str, **values: object) -> None:
    statement = update(PROJECTS).where(PROJECTS.c.project_key == project_key)
    change(session, statement.values(**values))


def _undelivered(
    columns: Sequence[Any], campaign_id: str, arms: Sequence[str], *shown: ColumnElement[bool]
) -> Select[Any]:
    """Columns of the newest drafts without a task that meets the conditions in `shown`."""
    task = exists().where(
        StudioTaskRow.subject_id == DraftRow.draft_id,
        StudioProjectRow.kind == TaskKind.REVIEW,
        StudioTaskRow.project_key == StudioProjectRow.project_key,
        *shown,
    )
    return (
        select(*columns)
        .select_from(DraftRow)
        .join(ImageRow, ImageRow.image_id == DraftRow.image_id)
        .where(
            DraftRow.campaign_id == campaign_id,
            DraftRow.arm.in_(arms),
            DraftRow.superseded_by.is_(None),
            ~is_withdrawn(DraftRow.image_id),
            ~task,
        )
    )
