"""The projects on a server that are ours: found again, made where missing, never mixed up."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from annotation.desk import Desk
from annotation.interface import Form
from annotation.kinds import Kind
from annotation.studio import Studio
from core.errors import ConfigError
from core.records import TaskKind
from db.studio import (
    StudioProject,
    earlier_projects,
    forget_project,
    projects,
    save_project,
    set_project_id,
    tasks_of,
)
from db.work import open_campaign

TASKS_PER_PROJECT: Final = 9_000
"""Label Studio becomes slow with tens of thousands"""
PICTURES: Final = Form(config='<View><Image name="image" value="$image"/></View>', instructions="")
"""of the project that holds the files: an upload needs a form of one field"""


def title_of(project: StudioProject) -> str:
    """What the project is called on the server; the key makes it ours."""
    parts = ["FakeScope", project.kind]
    if project.kind is not TaskKind.PICTURES:
        parts += [project.owner or "", str(project.number)]
    return " ".join(filter(None, [*parts, project.project_key]))


def projects_of(desk: Desk, kind: Kind) -> list[StudioProject]:
    """The projects with the form that this kind has today, oldest first."""
    with desk.database.read() as session:
        return projects(
            session,
            desk.campaign_id,
            server=desk.studio.server,
            form_id=kind.form(desk.recipe).form_id,
            kind=kind.kind,
        )


def project_with_room(desk: Desk, kind: Kind, owner: str | None) -> tuple[StudioProject, int]:
    """The owner's last project and how many tasks it still takes; a new one when it takes none."""
    known = projects_of(desk, kind)
    own = [project for project in known if project.owner == owner]
    if own:
        with desk.database.read() as session:
            room = TASKS_PER_PROJECT - len(tasks_of(session, own[-1].project_key))
        if room > 0:
            return own[-1], room
    project = _remember_project(desk, kind.kind, kind.form(desk.recipe), owner, len(known) + 1)
    return project, TASKS_PER_PROJECT


def _remember_project(
    desk: Desk, kind: TaskKind, form: Form, owner: str | None, number: int
) -> StudioProject:
    project = StudioProject(
        project_key=secrets.token_hex(8),
        server=desk.studio.server,
        campaign_id=desk.campaign_id,
        form_id=form.form_id,
        kind=kind,
        owner=owner,
        number=number,
    )
    with desk.database.write() as session:
        open_campaign(session, desk.recipe, ceiling_usd=None)  # blind labels come before drafts
        save_project(session, project)
    return project


def open_project(desk: Desk, project: StudioProject, form: Form) -> StudioProject:
    """The project as it is on the server, made there with its form when it is not."""
    if project.project_id is None:
        title = title_of(project)
        project_id = desk.studio.find_project(title) or desk.studio.make_project(title, form)
        with desk.database.write() as session:
            set_project_id(session, project.project_key, project_id)
        project = replace(project, project_id=project_id)
    require_ours(desk.studio, project)
    return project


def opened_projects(desk: Desk) -> list[StudioProject]:
    """Where experts work, kind by kind; the review project is made where there is none.

    After those of today come those of earlier forms and campaigns in which something is still to be
    done.
    """
    found: list[StudioProject] = []
    for kind in desk.kinds:
        form = kind.form(desk.recipe)
        known = projects_of(desk, kind)
        if not known and kind.kind is TaskKind.REVIEW:
            known = [project_with_room(desk, kind, None)[0]]
        found += [open_project(desk, project, form) for project in known]
    today = {project.project_key for project in found}
    earlier = [p for p in answered_projects(desk) if p.project_key not in today]
    return found + [project for project in earlier if _has_open_tasks(desk.studio, project)]


def _has_open_tasks(studio: Studio, project: StudioProject) -> bool:
    there = studio.project(project.project_id or 0)
    return there is not None and bool(there["finished_task_number"] < there["task_number"])


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


def answered_projects(desk: Desk) -> list[StudioProject]:
    """The projects on the server in which experts work, those of earlier campaigns first.

    When exemplars or prompts change, a recipe gets a new campaign, and experts go on with what they
    have before them.
    """
    earlier, own = _projects_there(desk)
    return [*earlier, *own]


def forget_deleted(desk: Desk) -> None:
    """Wait no longer for what somebody deleted with a project of an earlier campaign.

    What was answered there counts. ConfigError when a project of this campaign is gone.
    """
    earlier, own = _projects_there(desk)
    for project in own:
        require_ours(desk.studio, project)  # another server has none of all these
    for project in earlier:
        if desk.studio.project(project.project_id or 0) is None:
            with desk.database.write() as session:
                forget_project(session, project.project_key)


def _projects_there(desk: Desk) -> tuple[list[StudioProject], list[StudioProject]]:
    """Where experts work on the server: for earlier campaigns, oldest first, and for this one."""
    server, campaign_id = desk.studio.server, desk.campaign_id
    with desk.database.read() as session:
        earlier = earlier_projects(session, desk.recipe.name, campaign_id, server=server)
        own = projects(session, campaign_id, server=server)
    return [*_with_tasks(earlier)], [*_with_tasks(own)]


def _with_tasks(known: Iterable[StudioProject]) -> Iterator[StudioProject]:
    for project in known:
        if project.project_id is not None and project.kind is not TaskKind.PICTURES:
            yield project


def pictures_project(desk: Desk) -> int:
    """The id of the project that holds the files."""
    with desk.database.read() as session:
        known = projects(
            session, desk.campaign_id, server=desk.studio.server, kind=TaskKind.PICTURES
        )
    project = known[0] if known else _remember_project(desk, TaskKind.PICTURES, PICTURES, None, 1)
    project_id = open_project(desk, project, PICTURES).project_id
    assert project_id is not None
    return project_id
