"""Gold items: images with known right answers among the others of a kind of tasks.

A gold task looks like any other of its kind. What experts say of it is scored (`core.gold`) and
becomes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from annotation.interface import Form
from annotation.kinds import Answer, Due, Kept, Kind, Records, Shown
from core.errors import DataError
from core.gold import GoldAnswer
from core.ids import content_id, unit_interval
from core.recipe import Recipe
from core.records import TaskKind
from db.gold import (
    GoldItem,
    gold_items,
    own_tasks,
    right_answers,
    save_gold_answer,
    save_gold_items,
    withdraw_gold_answers,
)
from db.studio import StudioTask, Subject


class Scorable(Kind, Protocol):
    """A kind of tasks whose answers can be right or wrong."""

    def subjects_of(self, records: Records, image_ids: Sequence[str]) -> Sequence[Subject]:
        """What tasks of this kind show of these images, as far as there is anything."""

    def claims(self, records: Records, task: StudioTask, answer: Answer) -> GoldAnswer:
        """What an answer claims to be true of its image; DataError as for `read`."""


@dataclass(frozen=True)
class WithGold:
    """A kind of tasks with gold items among them, as many as the recipe asks for."""

    plain: Scorable

    @property
    def kind(self) -> TaskKind:
        return self.plain.kind

    @property
    def model_version(self) -> str:
        return self.plain.model_version

    def form(self, recipe: Recipe) -> Form:
        return self.plain.form(recipe)

    def due(self, records: Records, *, sources: Sequence[str], limit: int | None) -> Sequence[Due]:
        """What is due without gold, and as much gold as it asks for: `limit` counts the former."""
        regular = self.plain.due(records, sources=sources, limit=limit)
        return [self._mixed(records, due, sources) for due in regular]

    def shown(
        self, records: Records, subject_ids: Sequence[str]
    ) -> Mapping[str, Shown | DataError]:
        with records.database.read() as session:
            gold = gold_items(session, subject_ids)
        meant = {name: gold[name].subject_id if name in gold else name for name in subject_ids}
        shown = self.plain.shown(records, sorted(set(meant.values())))
        return {name: shown[plain] for name, plain in meant.items()}

    def read(self, records: Records, task: StudioTask, answer: Answer) -> Kept:
        with records.database.read() as session:
            item = gold_items(session, [task.subject_id]).get(task.subject_id)
        if item is None:
            return self.plain.read(records, task, answer)
        claims = self.plain.claims(records, replace(task, subject_id=item.subject_id), answer)
        answer_id = content_id("gold-answer", answer.key, answer.annotation.digest())
        return Kept(
            record_id=answer_id,
            save=lambda session: save_gold_answer(session, answer_id, item.gold_id, claims),
        )

    def withdraw(self, session: Any, record_ids: Sequence[str]) -> None:
        if not withdraw_gold_answers(session, record_ids):
            self.plain.withdraw(session, record_ids)

    def _mixed(self, records: Records, due: Due, sources: Sequence[str]) -> Due:
        settings = records.recipe.settings.review.gold
        with records.database.read() as session:
            seen = own_tasks(session, records.recipe.name, records.server, self.kind, due.owner)
        regular = seen.regular + len(due.subjects)
        wanted = gold_due(regular, seen.gold, settings.share)
        gold = self._draw(records, seen.images, sources) if wanted and due.subjects else []
        joining = gold[: min(wanted, len(due.subjects))]
        with records.database.write() as session:
            save_gold_items(session, joining)
        added = [Subject(subject_id=item.gold_id, image_id=item.image_id) for item in joining]
        return replace(due, subjects=mix(due.subjects, added, seed=settings.seed))

    def _draw(
        self, records: Records, seen: Collection[str], sources: Sequence[str]
    ) -> list[GoldItem]:
        """The gold items that the owner has not seen as such, in the order of their turn."""
        pool = right_answers(records.database, records.recipe, sources).keys() - seen
        drawn = in_turn(pool, seed=records.recipe.settings.review.gold.seed)
        return [
            GoldItem.of(records.campaign_id, self.kind, subject.subject_id, subject.image_id)
            for subject in self.plain.subjects_of(records, drawn)
        ]


def gold_due(regular: int, gold: int, share: float) -> int:
    """How many gold items are to join so many regular and gold tasks, for this share of all."""
    return max(0, math.floor(regular * share / (1 - share) + 1e-9) - gold)


def in_turn(pool: Iterable[str], *, seed: int) -> list[str]:
    """The images of the pool, in an order that the seed decides."""
    return sorted(pool, key=lambda image_id: unit_interval("gold", seed, image_id))


def mix(regular: Sequence[Subject], gold: Sequence[Subject], *, seed: int) -> list[Subject]:
    """The regular subjects in their order, with the gold ones at places that the seed decides."""
    placed = [(float(place), subject) for place, subject in enumerate(regular)]
    placed += [
        (len(regular) * unit_interval("place", seed, subject.subject_id), subject)
        for subject in gold
    ]
    return [subject for _, subject in sorted(placed, key=lambda item: item[0])]
