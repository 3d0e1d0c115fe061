"""What experts answered becomes corrections: `python -m annotation pull`.

Every version of every annotation is kept. A poll sees what changed since the last pull, with an
overlap. Where the server then has fewer annotations than we know, or when asked for, an export of
everything is compared, which finds what was deleted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Any, Final

from annotation.blind import settle_blind
from annotation.desk import Desk
from annotation.kinds import Answer, Kept, Kind
from annotation.mapping import annotation_of
from annotation.projects import answered_projects, forget_deleted, require_ours
from annotation.studio import ServerFailed
from core.errors import DataError
from core.ids import canonical_json, content_id
from core.records import AnnotationFate
from db.studio import (
    AnnotationVersion,
    StudioProject,
    StudioTask,
    expert_of,
    newest_versions,
    save_version,
    set_polled_until,
    set_task_ids,
    tasks_of,
    versions,
)

OVERLAP: Final = timedelta(minutes=5)
"""a slow transaction on the server may show a change later than its time says"""
TASKS_AT_ONCE: Final = 50

Raw = Mapping[str, Any]
History = Sequence[AnnotationVersion]


@dataclass(kw_only=True)
class PullSummary:
    """What one pull found."""

    new: dict[AnnotationFate, int] = field(default_factory=dict)
    """versions that were not known, by what became of them"""
    lost_tasks: int = 0
    """tasks that somebody deleted on the server; the next push makes them again"""
    guided: int = 0
    """images that blind experts have settled since the last pull"""
    hard: int = 0
    """images that too many blind experts took for what they are not"""
    failed_tasks: dict[int, str] = field(default_factory=dict)
    """tasks that the server cannot spell out, with what it says, by task id"""

    @property
    def is_news(self) -> bool:
        """Whether anything was found."""
        return bool(self.new or self.lost_tasks or self.guided or self.hard)

    def count(self, fate: AnnotationFate) -> None:
        """One more new version."""
        self.new[fate] = self.new.get(fate, 0) + 1


def pull(desk: Desk, *, full: bool = False) -> PullSummary:
    """Fetch what is new from every project of the recipe; running it again changes nothing.

    No answer is lost when the recipe begins a new campaign or asks for a kind no longer. One that
    a form of today does not know how to read is kept as unreadable.
    """
    summary = PullSummary()
    for at in desk.everywhere:
        forget_deleted(at)
        for project in answered_projects(at):
            _Pull(at, at.kind(project.kind), project, summary).run(full=full)
    settled = settle_blind(desk.database, desk.recipe)
    summary.hard = sum(guidance.hard is not None for guidance in settled)
    summary.guided = len(settled) - summary.hard
    return summary


@dataclass(frozen=True)
class _Pull:
    """The pull of one project."""

    desk: Desk
    kind: Kind
    project: StudioProject
    summary: PullSummary

    @property
    def project_id(self) -> int:
        assert self.project.project_id is not None
        return self.project.project_id

    def run(self, *, full: bool) -> None:
        require_ours(self.desk.studio, self.project)
        since = self.project.polled_until
        changed = self.desk.studio.tasks(
            self.project_id, changed_after=since - OVERLAP if since else None
        )
        self._look_at(changed)
        if full or self._has_fewer():
            self._look_for_lost(self._look_at(self._everything()))

    def _everything(self) -> Iterable[Raw]:
        studio = self.desk.studio
        try:
            return studio.snapshot(self.project_id)
        except ServerFailed:  # one answer that it cannot write spoils the whole export
            return studio.tasks(self.project_id)

    def _has_fewer(self) -> bool:
        """Whether answers are gone; those that came since the poll are there at the next one."""
        where = require_ours(self.desk.studio, self.project)
        there = where["total_annotations_number"] + where["skipped_annotations_number"]
        with self.desk.database.read() as session:
            newest = newest_versions(session, self.project.project_key)
            here = sum(version.fate is not AnnotationFate.DELETED for _, version in newest)
        return bool(there < here)

    def _look_at(self, raw_tasks: Iterable[Raw]) -> set[int]:
        """Keep what is new in these tasks; returns their ids."""
        seen: set[int] = set()
        newest = self.project.polled_until
        for all_of_batch in _in_batches(raw_tasks):
            seen.update(int(raw["id"]) for raw in all_of_batch)
            batch = self._without_failed(all_of_batch)
            self._keep(batch)
            moments = [datetime.fromisoformat(raw["updated_at"]) for raw in batch]
            newest = max([*moments, *([newest] if newest else [])])
        if newest is not None:
            with self.desk.database.write() as session:
                set_polled_until(session, self.project.project_key, newest)
        return seen

    def _without_failed(self, batch: Sequence[Raw]) -> list[Raw]:
        failed = {int(raw["id"]): str(raw["failed"]) for raw in batch if "failed" in raw}
        self.summary.failed_tasks |= failed
        return [raw for raw in batch if "failed" not in raw]

    def _look_for_lost(self, seen: set[int]) -> None:
        """Tasks of ours that the server no longer has, and the answers that went with them."""
        studio = self.desk.studio
        there = [task for task in self._tasks.values() if task.task_id is not None]
        missing = [task for task in there if task.task_id not in seen]
        lost = [task for task in missing if studio.task(task.task_id or 0) is None]
        with self.desk.database.read() as session:
            histories = versions(session, [task.task_key for task in lost])
        for history in histories.values():
            if history[-1].fate is not AnnotationFate.DELETED:
                self._keep_end(history)
        with self.desk.database.write() as session:
            set_task_ids(session, {task.task_key: None for task in lost})
        self.summary.lost_tasks += len(lost)

    @cached_property
    def _tasks(self) -> dict[str, StudioTask]:
        with self.desk.database.read() as session:
            return tasks_of(session, self.project.project_key)

    def _keep(self, batch: Sequence[Raw]) -> None:
        """Append what is new in the answers to some tasks."""
        found = [(self._tasks.get(str(raw["data"].get("key"))), raw) for raw in batch]
        ours = [
            (task, raw["annotations"])
            for task, raw in found
            if task is not None and task.task_id in (None, raw["id"])  # not a copy made by hand
        ]
        with self.desk.database.read() as session:
            histories = versions(session, [task.task_key for task, _ in ours])
        for task, raw_annotations in ours:
            own = {
                annotation_id: history
                for annotation_id, history in histories.items()
                if history[-1].task_key == task.task_key
            }
            self._keep_task(task, raw_annotations, own)

    def _keep_task(
        self, task: StudioTask, raw_annotations: Sequence[Raw], histories: Mapping[int, History]
    ) -> None:
        """Append what is new in the answers to one task, and the end of those that are gone."""
        for raw in sorted(raw_annotations, key=lambda item: (item["updated_at"], item["id"])):
            history = histories.get(int(raw["id"]), [])
            if not history or _says_more(raw, history[-1]):
                self._keep_version(task, raw, history)
        there = {int(raw["id"]) for raw in raw_annotations}
        for annotation_id, history in histories.items():
            if annotation_id in there or history[-1].fate is AnnotationFate.DELETED:
                continue
            if not self.desk.studio.has_annotation(annotation_id):  # else it came in between
                self._keep_end(history)

    def _keep_version(self, task: StudioTask, raw: Raw, history: History) -> None:
        version, kept = self._read(task, raw, len(history) + 1)
        with self.desk.database.write() as session:
            if kept is not None:
                kept.save(session)
            if version.fate is AnnotationFate.SKIPPED:
                self.kind.withdraw(session, _records_in(history))
            save_version(session, version)
        self.summary.count(version.fate)

    def _keep_end(self, history: History) -> None:
        """The annotation was deleted: what it said counts no longer."""
        last = history[-1]
        end = replace(
            last,
            version_id=self._version_id(last.annotation_id, last.number + 1),
            number=last.number + 1,
            fate=AnnotationFate.DELETED,
            reason=None,
            record_id=None,
            raw="{}",
        )
        with self.desk.database.write() as session:
            self.kind.withdraw(session, _records_in(history))
            save_version(session, end)
        self.summary.count(AnnotationFate.DELETED)

    def _read(
        self, task: StudioTask, raw: Raw, number: int
    ) -> tuple[AnnotationVersion, Kept | None]:
        """A version and what became of it; with its record when it counts."""
        annotation_id = int(raw["id"])
        version = AnnotationVersion(
            version_id=self._version_id(annotation_id, number),
            task_key=task.task_key,
            annotation_id=annotation_id,
            number=number,
            fate=AnnotationFate.UNREADABLE,
            raw=canonical_json(raw),
        )
        try:
            annotation = annotation_of(raw)
            expert = self._expert(annotation.completed_by)
            version = replace(version, expert=expert, lead_time_s=annotation.lead_time_s)
            if annotation.is_overwritten:
                reason = f"saved by {self._expert(annotation.updated_by)} in the end"
                return replace(version, fate=AnnotationFate.OVERWRITTEN, reason=reason), None
            if annotation.was_cancelled:
                return replace(version, fate=AnnotationFate.SKIPPED), None
            answer = Answer(annotation=annotation, expert=expert, key=version.version_id)
            kept = self.kind.read(self.desk.records, task, answer)
        except DataError as error:
            return replace(version, reason=str(error)), None
        return replace(version, fate=AnnotationFate.COUNTED, record_id=kept.record_id), kept

    def _expert(self, user_id: int | None) -> str:
        if user_id is None:
            raise DataError("nobody has signed it")
        with self.desk.database.write() as session:
            return expert_of(session, self.project.server, user_id)

    def _version_id(self, annotation_id: int, number: int) -> str:
        return content_id("version", self.project.project_key, annotation_id, number)


def _says_more(raw: Raw, last: AnnotationVersion) -> bool:
    """Whether an annotation differs from its last known version in more than the time."""
    if last.fate is AnnotationFate.DELETED:
        return True
    try:
        return annotation_of(raw).digest() != annotation_of(json.loads(last.raw)).digest()
    except DataError:
        return canonical_json(raw) != last.raw


def _records_in(history: History) -> list[str]:
    return [version.record_id for version in history if version.record_id is not None]


def _in_batches(raw_tasks: Iterable[Raw]) -> Iterator[list[Raw]]:
    iterator = iter(raw_tasks)
    while batch := list(islice(iterator, TASKS_AT_ONCE)):
        yield batch
