"""Drafts become tasks of a Label Studio project: `python -m annotation push`.

A push may be killed at any point and run again. Each task gets a random key, which is stored here
before the task is made and travels in it; a key without a task id is looked for on the server
before anything is made once more.
"""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from annotation.interface import Form, review_form
from annotation.mapping import MODEL_VERSION, task_of
from annotation.studio import Studio
from core.errors import ConfigError, DataError, PermanentError
from core.recipe import Recipe
from core.records import Draft, ImageRecord
from core.sources import choose_sources
from db.engine import Database, make_home
from db.images import images_by_id, source_names
from db.studio import (
    StudioProject,
    StudioTask,
    drafts_by_id,
    projects,
    refuse_task,
    save_project,
    save_tasks,
    set_project_id,
    set_task_ids,
    tasks_of,
    undelivered_drafts,
)
from db.work import campaign_id_of
from imaging.store import ImageStore

TASKS_AT_ONCE: Final = 50
TASKS_PER_PROJECT: Final = 9_000
"""Label Studio becomes slow with tens of thousands"""
PICTURES: Final = Form(config='<View><Image name="image" value="$image"/></View>', instructions="")
"""of the project that holds the files: an upload needs a form of one field"""
SHOWN_AS: Final[Mapping[str, tuple[str, str]]] = {
    "JPEG": (".jpg", "image/jpeg"),
    "PNG": (".png", "image/png"),
    "WEBP": (".webp", "image/webp"),
    "GIF": (".gif", "image/gif"),
    "BMP": (".bmp", "image/bmp"),
}
"""suffix and media type of the formats that browsers show"""

Report = Callable[[int, int], None]
"""told how many tasks are done, of how many"""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where a push works: our records on one side, the server on the other."""

    database: Database
    recipe: Recipe
    store: ImageStore
    studio: Studio

    @property
    def campaign_id(self) -> str:
        return campaign_id_of(self.recipe)

    @property
    def form(self) -> Form:
        return review_form(self.recipe.taxonomy)


@dataclass(kw_only=True)
class PushSummary:
    """What one push did."""

    made: int = 0
    """tasks made"""
    found: int = 0
    """tasks found that an interrupted push had made"""
    refused: dict[str, str] = field(default_factory=dict)
    """drafts that cannot be shown, with the reason, by draft id"""


def set_up(desk: Desk) -> StudioProject:
    """The review project that is filled at present, made where there is none."""
    return _open_project(desk, _with_room(desk)[0])


def push(
    desk: Desk,
    *,
    source: str | None = None,
    limit: int | None = None,
    report: Report,
) -> PushSummary:
    """Make a task of each newest draft that has none, of `limit` drafts at most.

    ConfigError when the server refuses the form; PermanentError when it keeps less than was sent.
    """
    summary = PushSummary()
    for project in _review_projects(desk):
        summary.found += _find_tasks(desk, _open_project(desk, project))
    _assign_tasks(desk, source, limit)
    waiting = [(project, _waiting(desk, project)) for project in _review_projects(desk)]
    total = sum(len(tasks) for _, tasks in waiting)
    for project, tasks in waiting:
        opened = _open_project(desk, project)
        for batch in _in_batches(tasks):
            _deliver(desk, opened, batch, summary)
            report(summary.made + len(summary.refused), total)
    return summary


@contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Two pushes at once would each take the other's tasks for those of a killed one."""
    make_home(home)
    with (home / "annotation.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another push or pull is at work in {home}: wait for its end"
            ) from None
        yield


# Projects


def title_of(project: StudioProject) -> str:
    """What the project is called on the server; the key makes it ours."""
    kind = "pictures" if project.form_id == PICTURES.form_id else f"review {project.number}"
    return f"FakeScope {kind} {project.project_key}"


def _review_projects(desk: Desk) -> list[StudioProject]:
    with desk.database.read() as session:
        return projects(
            session, desk.campaign_id, server=desk.studio.server, form_id=desk.form.form_id
        )


def _with_room(desk: Desk) -> tuple[StudioProject, int]:
    """The last review project and how many tasks it still takes; a new one when it takes none."""
    known = _review_projects(desk)
    if known:
        with desk.database.read() as session:
            room = TASKS_PER_PROJECT - len(tasks_of(session, known[-1].project_key))
        if room > 0:
            return known[-1], room
    return _remember_project(desk, desk.form, len(known) + 1), TASKS_PER_PROJECT


def _remember_project(desk: Desk, form: Form, number: int) -> StudioProject:
    project = StudioProject(
        project_key=secrets.token_hex(8),
        server=desk.studio.server,
        campaign_id=desk.campaign_id,
        form_id=form.form_id,
        number=number,
    )
    with desk.database.write() as session:
        save_project(session, project)
    return project


def _open_project(desk: Desk, project: StudioProject) -> StudioProject:
    """The project as it is on the server, made there when it is not."""
    form = PICTURES if project.form_id == PICTURES.form_id else desk.form
    if project.project_id is None:
        title = title_of(project)
        project_id = desk.studio.find_project(title) or desk.studio.make_project(title, form)
        with desk.database.write() as session:
            set_project_id(session, project.project_key, project_id)
        project = replace(project, project_id=project_id)
    require_ours(desk.studio, project)
    return project


def require_ours(studio: Studio, project: StudioProject) -> dict[str, Any]:
    """What the server says of a project of ours; ConfigError when it has another there, or none."""
    assert project.project_id is not None
    found = studio.project(project.project_id)
    if found is None or project.project_key not in found["title"]:
        raise ConfigError(
            f"{studio.url} has no project {title_of(project)!r}: it is another server than before, "
            "or somebody deleted or renamed the project; put its title back"
        )
    return found


def _pictures_project(desk: Desk) -> int:
    with desk.database.read() as session:
        known = projects(
            session, desk.campaign_id, server=desk.studio.server, form_id=PICTURES.form_id
        )
    project = known[0] if known else _remember_project(desk, PICTURES, 1)
    project_id = _open_project(desk, project).project_id
    assert project_id is not None
    return project_id


# Tasks


def _assign_tasks(desk: Desk, source: str | None, limit: int | None) -> None:
    """Give each draft that has no task a key, in a project with room."""
    with desk.database.read() as session:
        draft_ids = undelivered_drafts(
            session,
            server=desk.studio.server,
            form_id=desk.form.form_id,
            campaign_id=desk.campaign_id,
            arms=desk.recipe.settings.drafting.chain_arms,
            sources=choose_sources(source_names(session), source),
            limit=limit,
        )
    while draft_ids:
        project, room = _with_room(desk)
        taken, draft_ids = draft_ids[:room], draft_ids[room:]
        tasks = [
            StudioTask(
                task_key=secrets.token_hex(8), project_key=project.project_key, draft_id=draft_id
            )
            for draft_id in taken
        ]
        with desk.database.write() as session:
            save_tasks(session, tasks)


def _waiting(desk: Desk, project: StudioProject) -> list[StudioTask]:
    with desk.database.read() as session:
        tasks = tasks_of(session, project.project_key).values()
    return [task for task in tasks if task.task_id is None and task.refused is None]


def _find_tasks(desk: Desk, project: StudioProject) -> int:
    """Take up what a killed push has made without living to store its number."""
    waiting = {task.task_key for task in _waiting(desk, project)}
    if not waiting:
        return 0
    assert project.project_id is not None
    there = desk.studio.task_ids(project.project_id)
    found = {key: task_id for key, task_id in there.items() if key in waiting}
    with desk.database.write() as session:
        set_task_ids(session, found)
    return len(found)


def _deliver(
    desk: Desk, project: StudioProject, batch: Sequence[StudioTask], summary: PushSummary
) -> None:
    """Make the tasks of one batch, all or none; refused drafts are left out."""
    shown = list(_showable(desk, batch, summary))
    if not shown:
        return
    files = {_file_name(task, image): _picture(desk, image) for task, _, image in shown}
    addresses = desk.studio.upload_pictures(_pictures_project(desk), files)
    made = [
        task_of(
            draft,
            image,
            desk.recipe.taxonomy,
            picture=addresses[_file_name(task, image)],
            task_key=task.task_key,
        )
        for task, draft, image in shown
    ]
    assert project.project_id is not None
    task_ids = desk.studio.import_tasks(project.project_id, made)
    desk.studio.show_predictions_of(project.project_id, MODEL_VERSION)
    _read_back(desk.studio, task_ids[-1], made[-1])
    keys = [task.task_key for task, _, _ in shown]
    with desk.database.write() as session:
        set_task_ids(session, dict(zip(keys, task_ids, strict=True)))
    summary.made += len(task_ids)


def _showable(
    desk: Desk, batch: Sequence[StudioTask], summary: PushSummary
) -> Iterator[tuple[StudioTask, Draft, ImageRecord]]:
    """Those of a batch whose prediction the form will show, with draft and image."""
    with desk.database.read() as session:
        drafts = drafts_by_id(session, [task.draft_id for task in batch])
        images = images_by_id(session, [draft.image_id for draft in drafts.values()])
    for task in batch:
        draft = drafts[task.draft_id]
        image = images[draft.image_id]
        try:
            _picture(desk, image)
            sent = task_of(draft, image, desk.recipe.taxonomy, picture="", task_key=task.task_key)
            (prediction,) = sent["predictions"]
            desk.form.check(prediction["result"], len(draft.reasoning.findings))
        except DataError as error:
            summary.refused[draft.draft_id] = str(error)
            with desk.database.write() as session:
                refuse_task(session, task.task_key, str(error))
        else:
            yield task, draft, image


def _picture(desk: Desk, image: ImageRecord) -> tuple[bytes, str]:
    """The bytes that the expert sees, and their media type; DataError when there are none."""
    if image.format not in SHOWN_AS:
        raise DataError(f"no browser shows {image.format}")
    return desk.store.read(image.path), SHOWN_AS[image.format][1]


def _file_name(task: StudioTask, image: ImageRecord) -> str:
    """A name that tells nothing: experts can see it."""
    return f"{task.task_key}{SHOWN_AS[image.format][0]}"


def _read_back(studio: Studio, task_id: int, sent: Mapping[str, Any]) -> None:
    """See with our own eyes that the server keeps what it was sent."""
    task = studio.task(task_id)
    kept = task is not None and task["data"] == sent["data"]
    if task is None or not kept or task["predictions"][0]["result"] != _result_of(sent):
        raise PermanentError(f"{studio.url} keeps task {task_id} in another form than it was sent")


def _result_of(task: Mapping[str, Any]) -> Any:
    return task["predictions"][0]["result"]


def _in_batches(tasks: Sequence[StudioTask]) -> Iterator[Sequence[StudioTask]]:
    for start in range(0, len(tasks), TASKS_AT_ONCE):
        yield tasks[start : start + TASKS_AT_ONCE]
