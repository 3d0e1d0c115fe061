"""What the dashboard looks at: one database, the image store, shard folders and run folders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from core.errors import ConfigError
from core.recipe import Recipe, configured_recipe
from core.settings import Settings, load_settings
from db.engine import Database, open_database
from db.progress import CampaignSummary, campaigns
from db.quality import answers_so_far
from db.work import campaign_id_of
from imaging.store import ImageStore

FRESH_SECONDS = 5
"""for so long nobody looks whether something was written; what was not is not asked for again"""
ANSWERS_HELD = 300

Found = TypeVar("Found")
File = tuple[str, int, int]
"""path, bytes and time of the last change"""


@dataclass(frozen=True)
class Place:
    """Where everything is. Nothing is opened before a page asks for it."""

    settings: Settings

    @property
    def home(self) -> Path:
        return self.settings.fakescope_home

    @property
    def store(self) -> ImageStore:
        return ImageStore(self.settings.image_store)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever put into the default database."""
        return self.settings.has_default_database and self._database_file() is None

    def ask(self, query: Callable[..., Found], *arguments: Any, **options: Any) -> Found:
        """What a query of `db` answers, or answered before: it is a few seconds old at most."""
        database, identity = self.database(), self._identity()
        written = _version(database, identity)
        found: Found = _answer(
            database, query, query.__qualname__, identity, written, arguments, options
        )
        return found

    def read(self, query: Callable[..., Found], *arguments: Any, **options: Any) -> Found:
        """What a query answers now; nothing of it is kept, however much it is."""
        with self.database().read() as session:
            return query(session, *arguments, **options)

    def measure(self, measure: Callable[[Database, Recipe], Found], recipe: Recipe) -> Found:
        """What the answers of experts come to; computed again when there are new ones."""
        so_far = self.ask(answers_so_far)
        found: Found = _measure(
            self.database(),
            measure,
            recipe,
            (measure.__qualname__, campaign_id_of(recipe), self._identity(), so_far),
        )
        return found

    def database(self) -> Database:
        """The open database; ConfigError or TransientError when it cannot be read."""
        opened: Database = _open(self._identity())
        return opened

    def campaigns(self) -> list[CampaignSummary]:
        """All campaigns, the newest first; none where there is no database yet."""
        return [] if self.is_empty else self.ask(campaigns)

    def _identity(self) -> tuple[str, int | None]:
        """Changes when another file takes the place of an SQLite database."""
        return self.settings.database_address, self._database_file()

    def _database_file(self) -> int | None:
        address = self.settings.database_address
        path = Path(address.partition(":///")[2])
        is_file = address.startswith("sqlite") and path.is_file()
        return path.stat().st_ino if is_file else None


def find_place() -> Place:
    """As the environment says; ConfigError where it is wrong."""
    return Place(load_settings())


def recipe_of(place: Place, campaign: CampaignSummary) -> Recipe:
    """The recipe of a campaign; ConfigError when it is not there, or has changed since."""
    if campaign.recipe_folder is None:
        raise ConfigError(f"campaign {campaign.campaign_id} was never started: no recipe is known")
    folder = Path(campaign.recipe_folder)
    recipe: Recipe = _recipe(place.settings, str(place.settings), folder, _files_in(folder))
    if campaign_id_of(recipe) != campaign.campaign_id:
        raise ConfigError(
            f"recipe {campaign.recipe_folder} has changed since campaign {campaign.campaign_id} "
            "was started, or another teacher is configured: only what the database knows is shown"
        )
    return recipe


@st.cache_resource(max_entries=4, show_spinner=False)
def _recipe(_settings: Settings, environment: str, folder: Path, files: frozenset[File]) -> Recipe:
    return configured_recipe(folder, _settings)


def _files_in(folder: Path) -> frozenset[File]:
    """What changes when a file of a folder does."""
    found = ((path, path.stat()) for path in folder.rglob("*"))
    return frozenset((str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found)


@st.cache_data(max_entries=ANSWERS_HELD, show_spinner="counting what the experts said")
def _measure(
    _database: Database,
    _measure: Callable[[Database, Recipe], Any],
    _recipe: Recipe,
    key: tuple[Any, ...],
) -> Any:
    return _measure(_database, _recipe)


@st.cache_resource(show_spinner=False, max_entries=4)
def _open(identity: tuple[str, int | None]) -> Database:
    opened = open_database(load_settings(), migrate=False)
    opened.map_file()
    return opened


@st.cache_data(ttl=FRESH_SECONDS, max_entries=4, show_spinner=False)
def _version(_database: Database, identity: tuple[str, int | None]) -> str:
    return _database.version()


@st.cache_data(max_entries=ANSWERS_HELD, show_spinner=False)
def _answer(
    _database: Database,
    _query: Callable[..., Any],
    name: str,
    identity: tuple[str, int | None],
    written: str,
    arguments: tuple[Any, ...],
    options: dict[str, Any],
) -> Any:
    with _database.read() as session:
        return _query(session, *arguments, **options)
