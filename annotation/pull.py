"""What experts answered becomes corrections: `python -m annotation pull`.

Every version of every annotation is kept. A poll sees what changed since the last pull, with an
overlap; where the numbers then differ from the server's, or when asked for, every task is looked
at, which finds what was deleted.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final

from annotation.mapping import Annotation, annotation_of, correction_of
from annotation.push import PICTURES, Desk, require_ours
from core.errors import DataError
from core.ids import canonical_json, content_id
from core.records import AnnotationFate, Correction
from db.images import images_by_id
from db.reviews import next_version, save_correction, withdraw_corrections
from db.studio import (
    AnnotationVersion,
    StudioProject,
    StudioTask,
    drafts_by_id,
    expert_of,
    newest_versions,
    projects,
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

    new: Counter[AnnotationFate] = field(default_factory=Counter)
    """versions that were not known, by what became of them"""
    lost_tasks: int = 0
    """tasks that somebody deleted on the server; the next push makes them again"""


def pull(desk: Desk, *, full: bool = False) -> PullSummary:
    """Fetch what is new from every project of the campaign; running it again changes nothing."""
    summary = PullSummary()
    with desk.database.read() as session:
        known = projects(session, desk.campaign_id, server=desk.studio.server)
    for project in known:
        if project.form_id != PICTURES.form_id and project.project_id is not None:
            _Pull(desk, project, summary).run(full=full)
    return summary


@dataclass(frozen=True)
class _Pull:
    """The pull of one project."""

    desk: Desk
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
        if full or self._numbers_differ():
            seen = self._look_at(self.desk.studio.tasks(self.project_id))
            self._look_for_lost(seen)

    def _numbers_differ(self) -> bool:
        where = require_ours(self.desk.studio, self.project)
        there = where["total_annotations_number"] + where["skipped_annotations_number"]
        with self.desk.database.read() as session:
            newest = newest_versions(session, self.project.project_key)
            here = sum(version.fate is not AnnotationFate.DELETED for _, version in newest)
        return bool(there != here)

    def _look_at(self, raw_tasks: Iterable[Raw]) -> set[int]:
        """Keep what is new in these tasks; returns their ids."""
        seen: set[int] = set()
        newest = self.project.polled_until
        for batch in _in_batches(raw_tasks):
            self._keep(batch)
            seen.update(int(raw["id"]) for raw in batch)
            moments = [datetime.fromisoformat(raw["updated_at"]) for raw in batch]
            newest = max([*moments, *([newest] if newest else [])])
        if newest is not None:
            with self.desk.database.write() as session:
                set_polled_until(session, self.project.project_key, newest)
        return seen

    def _look_for_lost(self, seen: set[int]) -> None:
        """Tasks of ours that the server no longer has, and the answers that went with them."""
        studio = self.desk.studio
        with self.desk.database.read() as session:
            tasks = tasks_of(session, self.project.project_key)
        missing = [t for t in tasks.values() if t.task_id is not None and t.task_id not in seen]
        lost = [task for task in missing if studio.task(task.task_id or 0) is None]
        for task in lost:
            self._keep_task(task, [])
        with self.desk.database.write() as session:
            set_task_ids(session, {task.task_key: None for task in lost})
        self.summary.lost_tasks += len(lost)

    def _keep(self, batch: Sequence[Raw]) -> None:
        with self.desk.database.read() as session:
            tasks = tasks_of(session, self.project.project_key)
        for raw in batch:
            task = tasks.get(str(raw["data"].get("key")))
            if task is not None and task.task_id in (None, raw["id"]):  # not a copy made by hand
                self._keep_task(task, raw["annotations"])

    def _keep_task(self, task: StudioTask, raw_annotations: Sequence[Raw]) -> None:
        """Append what is new in the answers to one task, and the end of those that are gone."""
        with self.desk.database.read() as session:
            histories = versions(session, [task.task_key])
        for raw in sorted(raw_annotations, key=lambda item: (item["updated_at"], item["id"])):
            history = histories.get(int(raw["id"]), [])
            if not history or _says_more(raw, history[-1]):
                self._keep_version(task, raw, history)
        there = {int(raw["id"]) for raw in raw_annotations}
        for annotation_id, history in histories.items():
            if annotation_id in there or history[-1].fate is AnnotationFate.DELETED:
                continue
            if not self.desk.studio.has_annotation(annotation_id):  # else a page has only moved
                self._keep_end(history)

    def _keep_version(self, task: StudioTask, raw: Raw, history: History) -> None:
        version, correction = self._read(task, raw, len(history) + 1)
        with self.desk.database.write() as session:
            if correction is not None:
                save_correction(session, correction)
            if version.fate is AnnotationFate.SKIPPED:
                withdraw_corrections(session, _corrections_in(history))
            save_version(session, version)
        self.summary.new[version.fate] += 1

    def _keep_end(self, history: History) -> None:
        """The annotation was deleted: what it said counts no longer."""
        last = history[-1]
        end = replace(
            last,
            version_id=self._version_id(last.annotation_id, last.number + 1),
            number=last.number + 1,
            fate=AnnotationFate.DELETED,
            reason=None,
            correction_id=None,
            raw="{}",
        )
        with self.desk.database.write() as session:
            withdraw_corrections(session, _corrections_in(history))
            save_version(session, end)
        self.summary.new[AnnotationFate.DELETED] += 1

    def _read(
        self, task: StudioTask, raw: Raw, number: int
    ) -> tuple[AnnotationVersion, Correction | None]:
        """A version and what became of it; with its correction when it counts."""
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
            version = replace(
                version,
                expert=self._expert(annotation.completed_by),
                lead_time_s=annotation.lead_time_s,
            )
            if annotation.is_overwritten:
                reason = f"saved by {self._expert(annotation.updated_by)} in the end"
                return replace(version, fate=AnnotationFate.OVERWRITTEN, reason=reason), None
            if annotation.was_cancelled:
                return replace(version, fate=AnnotationFate.SKIPPED), None
            correction = self._correction(task, annotation, version)
        except DataError as error:
            return replace(version, reason=str(error)), None
        counted = replace(
            version, fate=AnnotationFate.COUNTED, correction_id=correction.correction_id
        )
        return counted, correction

    def _correction(
        self, task: StudioTask, annotation: Annotation, version: AnnotationVersion
    ) -> Correction:
        assert version.expert is not None
        with self.desk.database.read() as session:
            draft = drafts_by_id(session, [task.draft_id])[task.draft_id]
            image = images_by_id(session, [draft.image_id])[draft.image_id]
            following = next_version(session, draft.draft_id, version.expert)
        return correction_of(
            annotation,
            draft,
            image,
            self.desk.recipe.taxonomy,
            expert=version.expert,
            version=following,
            key=version.version_id,
        )

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


def _corrections_in(history: History) -> list[str]:
    return [version.correction_id for version in history if version.correction_id is not None]


def _in_batches(raw_tasks: Iterable[Raw]) -> Iterator[list[Raw]]:
    iterator = iter(raw_tasks)
    while batch := list(islice(iterator, TASKS_AT_ONCE)):
        yield batch
