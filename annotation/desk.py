"""Where a push or pull works: our records on one side, a Label Studio server on the other."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from annotation.adjudication import Adjudication
from annotation.blind import Blind
from annotation.exemplars import Exemplars
from annotation.gold import WithGold
from annotation.kinds import Kind, Records
from annotation.preference import Preferences
from annotation.review import Review
from annotation.studio import Studio
from core.errors import ConfigError
from core.recipe import Recipe
from core.records import TaskKind
from db.engine import Database, make_home
from db.studio import expert_of
from db.work import campaign_id_of
from imaging.store import ImageStore

EVERY_KIND: Final[tuple[Kind, ...]] = (
    WithGold(Blind()),
    WithGold(Review()),
    Adjudication(),
    Exemplars(),
    Preferences(),
)
"""in the order in which they are pushed"""


@dataclass(frozen=True, kw_only=True)
class Desk:
    """Both sides, and the kinds of tasks that are made there."""

    database: Database
    recipe: Recipe
    store: ImageStore
    studio: Studio
    shelf: Path | None = None
    """the folder from which the server, ours and on this machine, shows pictures"""
    is_booth: bool = False
    """it is a server for the blind labels of one expert, whose account is the one that we use"""
    booths: tuple[Desk, ...] = ()
    """desks at such servers; where there are any, blind labels are made there alone"""

    @property
    def campaign_id(self) -> str:
        return campaign_id_of(self.recipe)

    @property
    def records(self) -> Records:
        return Records(
            database=self.database,
            recipe=self.recipe,
            campaign_id=self.campaign_id,
            server=self.studio.server,
            experts=self._experts,
        )

    def _experts(self, kind: TaskKind) -> tuple[str, ...]:
        """Everybody with an account; whose key we use only where nobody else has one."""
        if kind is TaskKind.BLIND and self.booths:
            return tuple(self._booth_of)
        users = self.studio.user_ids()
        others = [user_id for user_id in users if user_id != self.studio.user_id]
        with self.database.write() as session:
            server = self.studio.server
            return tuple(expert_of(session, server, user_id) for user_id in others or users)

    @cached_property
    def _booth_of(self) -> dict[str, Desk]:
        """The desk at each booth by its expert."""
        with self.database.write() as session:
            return {
                expert_of(session, booth.studio.server, booth.studio.user_id): booth
                for booth in self.booths
            }

    @property
    def everywhere(self) -> tuple[Desk, ...]:
        """This desk, and those at the booths."""
        return (self, *self.booths)

    def for_tasks_of(self, owner: str | None) -> Desk:
        """Where what an expert alone is to see goes; None: what is for everybody."""
        return self._booth_of.get(owner, self) if owner is not None else self

    @cached_property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of tasks that the recipe asks for here."""
        asked = kinds_of(self.recipe)
        return tuple(k for k in asked if k.kind is TaskKind.BLIND) if self.is_booth else asked

    def kind(self, kind: TaskKind) -> Kind:
        """The kind of that name, also when the recipe asks for no such tasks any more."""
        return next(each for each in EVERY_KIND if each.kind is kind)


def kinds_of(recipe: Recipe) -> tuple[Kind, ...]:
    """The kinds of tasks that a recipe asks for."""
    is_asked_for = {
        TaskKind.BLIND: recipe.settings.drafting.blind,
        TaskKind.EXEMPLAR: recipe.settings.review.exemplars is not None,
        TaskKind.PREFERENCE: recipe.settings.review.preference is not None,
    }
    return tuple(each for each in EVERY_KIND if is_asked_for.get(each.kind, True))


@contextmanager
def one_at_a_time(home: Path, *, wait: bool = False) -> Iterator[None]:
    """Two pushes at once would each take the other's tasks for those of a killed one.

    ConfigError when another one is at work, unless it is waited for.
    """
    make_home(home)
    with (home / "annotation.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise ConfigError(
                f"another push or pull is at work in {home}: wait for its end"
            ) from None
        yield
