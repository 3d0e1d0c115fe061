"""What is due becomes tasks of Label Studio projects: `python -m annotation push`.

A push may be killed at any point and run again. Each task gets a random key, which is stored here
before the task is made and travels in it; a key without a task id is looked for on the server
before anything is made once more.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from annotation.desk import Desk
from annotation.interface import Form
from annotation.kinds import Due, Kind, Shown
from annotation.pictures import Pictures
from annotation.projects import open_project, project_with_room, projects_of
from annotation.studio import Studio
from core.errors import DataError, PermanentError
from core.records import TaskKind
from core.sources import choose_sources
from db.images import source_names
from db.studio import (
    StudioProject,
    StudioTask,
    Subject,
    refuse_task,
    save_tasks,
    set_task_ids,
    tasks_of,
)
from db.tombstones import withdrawn_among

TASKS_AT_ONCE: Final = 250
"""what a killed push may have made without living to store it"""
Report = Callable[[int, int], None]
"""told how many tasks are done, of how many"""


@dataclass(kw_only=True)
class PushSummary:
    """What one push did."""

    made: int = 0
    """tasks made"""
    found: int = 0
    """tasks found that an interrupted push had made"""
    refused: dict[str, str] = field(default_factory=dict)
    """subjects that cannot be shown, with the reason, by id"""


def push(
    desk: Desk,
    *,
    source: str | None = None,
    limit: int | None = None,
    only: TaskKind | None = None,
    report: Report,
) -> PushSummary:
    """Make a task of whatever is due and has none, at most `limit` new ones of each kind.

    Gold items come on top of the limit. `only`: of one kind; None: of all.

    ConfigError when the server refuses a form; PermanentError when it keeps less than was sent.
    """
    summary = PushSummary()
    pushes = [
        _Push(at, kind, kind.form(at.recipe), pictures, summary)
        for at, pictures in [(at, Pictures(at)) for at in desk.everywhere]
        for kind in at.kinds
        if only in (None, kind.kind)
    ]
    with desk.database.read() as session:
        sources = choose_sources(source_names(session), source)
    for each in pushes:
        each.find()
    for kind in (each.kind for each in pushes if each.desk is desk):
        for due in kind.due(desk.records, sources=sources, limit=limit):
            _assign(desk.for_tasks_of(due.owner), kind, due)
    waiting = [(each, *pair) for each in pushes for pair in each.waiting()]
    total = sum(len(tasks) for _, _, tasks in waiting)
    for each, project, tasks in waiting:
        opened = each.open(project)
        for number, batch in enumerate(_in_batches(tasks)):
            each.deliver(opened, batch, is_first=number == 0)
            report(summary.made + len(summary.refused), total)
    return summary


def _assign(desk: Desk, kind: Kind, due: Due) -> None:
    """Give each subject that has no task a key, in a project with room."""
    subjects = list(due.subjects)
    while subjects:
        project, room = project_with_room(desk, kind, due.owner)
        taken, subjects = subjects[:room], subjects[room:]
        keys = sorted(secrets.token_hex(8) for _ in taken)  # tasks are made in their order
        tasks = [_new_task(key, project, subject) for key, subject in zip(keys, taken, strict=True)]
        with desk.database.write() as session:
            save_tasks(session, tasks)


@dataclass(frozen=True)
class _Push:
    """The push of one kind of tasks to one server."""

    desk: Desk
    kind: Kind
    form: Form
    pictures: Pictures
    summary: PushSummary

    def open(self, project: StudioProject) -> StudioProject:
        return open_project(self.desk, project, self.form)

    def find(self) -> None:
        """Take up what a killed push has made without living to store its number."""
        for project in projects_of(self.desk, self.kind):
            opened = self.open(project)
            waiting = {task.task_key for task in self._waiting_in(project)}
            if not waiting:
                continue
            assert opened.project_id is not None
            there = self.desk.studio.task_ids(opened.project_id)
            found = {key: task_id for key, task_id in there.items() if key in waiting}
            with self.desk.database.write() as session:
                set_task_ids(session, found)
            self.summary.found += len(found)

    def waiting(self) -> Iterator[tuple[StudioProject, list[StudioTask]]]:
        """Projects with the tasks that are still to be made in them."""
        for project in projects_of(self.desk, self.kind):
            yield project, self._waiting_in(project)

    def _waiting_in(self, project: StudioProject) -> list[StudioTask]:
        with self.desk.database.read() as session:
            tasks = tasks_of(session, project.project_key).values()
            missing = [task for task in tasks if task.task_id is None and task.refused is None]
            withdrawn = withdrawn_among(session, [task.image_id for task in missing])
        return [task for task in missing if task.image_id not in withdrawn]

    def deliver(
        self, project: StudioProject, batch: Sequence[StudioTask], *, is_first: bool
    ) -> None:
        """Make the tasks of one batch, all or none; refused subjects are left out.

        After the first batch of a project it is seen that the server shows what it was sent.
        """
        shown = list(self._showable(batch))
        if not shown:
            return
        addresses = self.pictures.put({task.task_key: each.image for task, each in shown})
        made = [self._task(task, each, addresses[task.task_key]) for task, each in shown]
        assert project.project_id is not None
        task_ids = self.desk.studio.import_tasks(project.project_id, made)
        if is_first:
            self._look(project.project_id, task_ids[-1], made[-1])
        keys = [task.task_key for task, _ in shown]
        with self.desk.database.write() as session:
            set_task_ids(session, dict(zip(keys, task_ids, strict=True)))
        self.summary.made += len(task_ids)

    def _look(self, project_id: int, task_id: int, sent: Mapping[str, Any]) -> None:
        if "predictions" in sent:
            self.desk.studio.show_predictions_of(project_id, self.kind.model_version)
        _read_back(self.desk.studio, task_id, sent)

    def _showable(self, batch: Sequence[StudioTask]) -> Iterator[tuple[StudioTask, Shown]]:
        """Those of a batch that the form will show as they are meant."""
        found = self.kind.shown(self.desk.records, [task.subject_id for task in batch])
        for task in batch:
            try:
                shown = found[task.subject_id]
                if isinstance(shown, DataError):
                    raise shown
                self.pictures.require(shown.image)
                self.form.check(list(shown.prediction or ()), shown.traces)
            except DataError as error:
                self.summary.refused[task.subject_id] = str(error)
                with self.desk.database.write() as session:
                    refuse_task(session, task.task_key, str(error))
            else:
                yield task, shown

    def _task(self, task: StudioTask, shown: Shown, picture: str) -> dict[str, Any]:
        """A task as the server imports it."""
        made: dict[str, Any] = {"data": {"image": picture, "key": task.task_key, **shown.data}}
        if shown.prediction is not None:
            prediction = {"model_version": self.kind.model_version, "result": [*shown.prediction]}
            made["predictions"] = [prediction]
        return made


def _new_task(task_key: str, project: StudioProject, subject: Subject) -> StudioTask:
    return StudioTask(
        task_key=task_key,
        project_key=project.project_key,
        subject_id=subject.subject_id,
        image_id=subject.image_id,
    )


def _read_back(studio: Studio, task_id: int, sent: Mapping[str, Any]) -> None:
    """See with our own eyes that the server keeps what it was sent."""
    task = studio.task(task_id)
    kept = task is not None and task["data"] == sent["data"]
    if task is None or not kept or _results_of(task) != _results_of(sent):
        raise PermanentError(f"{studio.url} keeps task {task_id} in another form than it was sent")


def _results_of(task: Mapping[str, Any]) -> list[Any]:
    return [prediction["result"] for prediction in task.get("predictions", ())]


def _in_batches(tasks: Sequence[StudioTask]) -> Iterator[Sequence[StudioTask]]:
    for start in range(0, len(tasks), TASKS_AT_ONCE):
        yield tasks[start : start + TASKS_AT_ONCE]
