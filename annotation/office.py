"""Our side of the annotation work, and the servers at which it opens desks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from annotation import server
from annotation.desk import Desk, one_at_a_time
from annotation.studio import Studio
from core.errors import ConfigError
from core.recipe import Recipe, configured_recipe
from core.settings import Settings
from db.engine import Database, open_database
from imaging.store import ImageStore


@dataclass(frozen=True, kw_only=True)
class Office:
    """Database, recipe and pictures; the servers may come and go."""

    settings: Settings
    database: Database
    recipe: Recipe
    store: ImageStore

    @classmethod
    def of(cls, settings: Settings, recipe: Path) -> Office:
        """ConfigError when the database or the recipe cannot be read."""
        return cls(
            settings=settings,
            database=open_database(settings),
            recipe=configured_recipe(recipe, settings),
            store=ImageStore(settings.image_store),
        )

    @contextmanager
    def desk(self) -> Iterator[Desk]:
        """A desk at the server, with those at the booths; ConfigError when one does not answer."""
        with ExitStack() as stack:
            studio = stack.enter_context(connect(self.settings))
            booths = [
                self._desk(stack.enter_context(_own_studio(self.settings, number)), number)
                for number in booths_of(self.settings)
            ]
            yield self._desk(studio, booths=tuple(booths))

    @contextmanager
    def alone(self, *, wait: bool = False) -> Iterator[None]:
        """No other command makes or reads tasks meanwhile; ConfigError unless it is waited for."""
        with one_at_a_time(self.settings.fakescope_home, wait=wait):
            yield

    def _desk(
        self, studio: Studio, booth: int | None = None, *, booths: tuple[Desk, ...] = ()
    ) -> Desk:
        shelf = server.shelf_of(self.settings.fakescope_home, booth=booth)
        is_own = studio.server == server.remembered_as(booth)
        return Desk(
            database=self.database,
            recipe=self.recipe,
            store=self.store,
            studio=studio,
            shelf=shelf if is_own else None,
            is_booth=booth is not None,
            booths=booths,
        )


def booths_of(settings: Settings) -> list[int]:
    """The booths that blind labels are made in; none beside the team's own server."""
    if settings.label_studio_url is not None:
        return []
    return server.booths(settings.fakescope_home)


def connect(settings: Settings) -> Studio:
    """The configured server, else the one that runs from the home folder."""
    if settings.label_studio_url is None:
        return _own_studio(settings)
    if settings.label_studio_api_key is None:
        raise ConfigError("LABEL_STUDIO_URL names a server: give LABEL_STUDIO_API_KEY too")
    return Studio(settings.label_studio_url, settings.label_studio_api_key)


def _own_studio(settings: Settings, booth: int | None = None) -> Studio:
    access = server.read_access(settings.fakescope_home, booth=booth)
    if access is None:
        raise ConfigError(
            "there is no Label Studio: run `make annotate` in another terminal, or name the team's "
            "in LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
        )
    return Studio(access.url, access.api_key, server=server.remembered_as(booth))
