"""Our records and a Label Studio server kept together: `python -m annotation sync`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from annotation.chains import ChainSummary, chain_drafts
from annotation.desk import Desk
from annotation.pictures import Pictures
from annotation.projects import forget_deleted, require_ours
from annotation.pull import PullSummary, pull
from annotation.push import PushSummary, Report, push
from annotation.studio import Unreachable
from core.errors import TransientError
from db.studio import set_task_ids, withdrawn_tasks

FULL_SECONDS: Final = 3600.0
"""how often a round compares everything, while others ask for changes"""
AWAY_SECONDS: Final = 15.0
"""how often a server that went away is asked again, where rounds are rarer"""


@dataclass(kw_only=True)
class SyncSummary:
    """What one round did."""

    removed: int
    """tasks of withdrawn images that are gone from the server now"""
    pulled: PullSummary
    chains: ChainSummary
    pushed: PushSummary

    @property
    def is_news(self) -> bool:
        """Whether anything changed."""
        return bool(self.removed or self.pulled.is_news or self.pushed.made or self.pushed.refused)


def sync(
    desk: Desk,
    *,
    source: str | None = None,
    limit: int | None = None,
    full: bool = True,
    report: Report,
) -> SyncSummary:
    """Remove what was withdrawn, pull, chain, and push what is due; killed and repeated at will."""
    return SyncSummary(
        removed=sum(map(remove_withdrawn, desk.everywhere)),
        pulled=pull(desk, full=full),
        chains=chain_drafts(desk.database, desk.recipe),
        pushed=push(desk, source=source, limit=limit, report=report),
    )


def remove_withdrawn(desk: Desk) -> int:
    """Delete the tasks and pictures of withdrawn images on the server; returns how many tasks."""
    forget_deleted(desk)
    with desk.database.read() as session:
        withdrawn = withdrawn_tasks(session, desk.studio.server)
    pictures = Pictures(desk)
    for project, task in withdrawn:
        require_ours(desk.studio, project)
        assert task.task_id is not None
        desk.studio.delete_task(task.task_id)
        pictures.remove(task.task_key)
        with desk.database.write() as session:
            set_task_ids(session, {task.task_key: None})
    return len(withdrawn)


def repeat(
    step: Callable[[], object],
    *,
    seconds: float,
    wake: threading.Event,
    say: Callable[[str], object],
) -> None:
    """Take a step now, and whenever so many seconds are over or `wake` is set; never returns.

    A failure that may pass, as when a server is started anew, is said once; so is its end.
    """
    is_down = False
    pause = min(seconds, AWAY_SECONDS)
    while True:
        wake.clear()
        try:
            step()
        except (TransientError, Unreachable) as error:
            if not is_down:
                say(f"{error}; trying again every {pause:g} s")
            is_down = True
        else:
            if is_down:
                say("it works again")
            is_down = False
        wake.wait(pause if is_down else seconds)
