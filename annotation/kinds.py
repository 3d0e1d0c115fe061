"""Kinds of tasks: what each shows, in which form, and what becomes of the answers.

Pushing and pulling is the same for all (`annotation.push`, `annotation.pull`). A new kind is a
class with the members of `Kind`, listed in `annotation.desk.kinds_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from annotation.interface import Form
from annotation.mapping import Annotation
from core.errors import DataError
from core.recipe import Recipe
from core.records import ImageRecord, TaskKind
from db.engine import Database
from db.studio import StudioTask, Subject

Result = dict[str, Any]
"""one answer as Label Studio writes it"""


@dataclass(frozen=True, kw_only=True)
class Records:
    """Our side of the work: what there is to show, and where answers go."""

    database: Database
    recipe: Recipe
    campaign_id: str
    server: str
    """how we remember the Label Studio server"""
    experts: Callable[[TaskKind], tuple[str, ...]]
    """asks who is there for tasks of a kind; pseudonyms"""


@dataclass(frozen=True, kw_only=True)
class Due:
    """Subjects that are to become tasks in projects of one owner."""

    owner: str | None
    """the expert who alone is to see them; None: everybody"""
    subjects: Sequence[Subject]


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a task shows besides its picture; nothing in it may tell where the image comes from."""

    image: ImageRecord
    data: Mapping[str, Any] = field(default_factory=dict)
    """what the form refers to as `$name`"""
    prediction: Sequence[Result] | None = None
    """answers that the form is prefilled with; None: it starts empty"""
    traces: int = 0
    """how often the form repeats its block of a trace"""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An annotation that counts, and who gave it."""

    annotation: Annotation
    expert: str
    key: str
    """names this version of this annotation among those of all servers"""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What an answer became."""

    record_id: str
    save: Callable[[Any], object]
    """stores it, given a session of the database"""


class Kind(Protocol):
    """One kind of task."""

    @property
    def kind(self) -> TaskKind:
        """Its name."""

    @property
    def model_version(self) -> str:
        """Of its predictions: a project shows those of one version only."""

    def form(self, recipe: Recipe) -> Form:
        """The configuration that experts see; another one gets projects of its own."""

    def due(self, records: Records, *, sources: Sequence[str], limit: int | None) -> Sequence[Due]:
        """What no task of the server shows yet, at most `limit` subjects, in order."""

    def shown(
        self, records: Records, subject_ids: Sequence[str]
    ) -> Mapping[str, Shown | DataError]:
        """What each task is to show; a DataError says why it cannot."""

    def read(self, records: Records, task: StudioTask, answer: Answer) -> Kept:
        """What an answer says; DataError when it contradicts itself or lacks something."""

    def withdraw(self, session: Any, record_ids: Sequence[str]) -> None:
        """These answers were taken back: they stay and no longer count."""
