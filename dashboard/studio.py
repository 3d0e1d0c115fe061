"""Where the tasks of Label Studio can be opened."""

from __future__ import annotations

import json
from collections.abc import Iterable

from core.records import TaskKind
from dashboard.place import Place
from db.studio_tasks import TaskPlace

OWN = "own"
"""the server that `make annotate` runs here; its address changes with each start"""


def task_address(place: Place, task: TaskPlace) -> str | None:
    """The page of a task; None when it is on a server that does not run now."""
    server = _own_address(place) if task.server == OWN else task.server
    if server is None or not server.startswith(("http://", "https://")):
        return None
    return f"{server}/projects/{task.project_id}/data?task={task.task_id}"


def first_address(place: Place, tasks: Iterable[TaskPlace], *kinds: TaskKind) -> str | None:
    """The page of the first task of the first of these kinds that there is."""
    known = list(tasks)
    for kind in kinds:
        for task in known:
            address = task_address(place, task) if task.kind is kind else None
            if address:
                return address
    return None


def _own_address(place: Place) -> str | None:
    """Nothing else of that file is looked at: it holds the token too."""
    try:
        access = json.loads((place.home / "label-studio" / "access.json").read_bytes())
        return str(access["url"]).rstrip("/")
    except (OSError, ValueError, KeyError, TypeError):
        return None
