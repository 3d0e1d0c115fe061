"""Tasks of kind blind: an expert judges a picture of which nothing else is shown.

FakeScope (arXiv 2503.24267): experts judge before they are told anything, and only who is right
chooses trace categories that count. One project for each expert is order, not secrecy: whoever has
an account on the server can open every project.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from annotation.answers import Answers
from annotation.forms import CATEGORIES, VERDICT, blind_form
from annotation.interface import CONFIDENCE, Form
from annotation.kinds import Answer, Due, Kept, Records, Shown
from core.errors import DataError
from core.gold import GoldAnswer
from core.guidance import Open, Unlabelled, assign, settle
from core.ids import content_id
from core.recipe import Recipe
from core.records import Authenticity, BlindLabel, Confidence, Guidance, ImageRecord, TaskKind
from core.taxonomy import Taxonomy
from db.blind import (
    labels_among,
    next_label_version,
    save_guidance,
    save_label,
    unsettled_images,
    withdraw_labels,
)
from db.engine import Database
from db.images import images_by_id
from db.studio import StudioTask, Subject, awaited_tasks, owner_of


class Blind:
    """Images that experts have not settled; an answer becomes a blind label."""

    kind: Final = TaskKind.BLIND
    model_version: Final = "none"

    def form(self, recipe: Recipe) -> Form:
        return blind_form(recipe.taxonomy)

    def due(self, records: Records, *, sources: Sequence[str], limit: int | None) -> Sequence[Due]:
        """Each image goes to as many experts as it still needs; `limit` counts images."""
        experts = records.experts(self.kind)
        with records.database.read() as session:
            images = unsettled_images(session, sources=sources)
            tasks = awaited_tasks(
                session,
                server=None,
                form_id=self.form(records.recipe).form_id,
                kind=self.kind,
                campaign_id=records.campaign_id,
                recipe=records.recipe.name,
            )
            labels = labels_among(session, [image.image_id for image in images])
        before: dict[str, set[str]] = {}
        for task, owner in tasks:
            before.setdefault(task.subject_id, set()).add(str(owner))
        waiting = [
            unlabelled
            for image in images
            if (unlabelled := _unlabelled(image, before, labels, records.recipe)) is not None
        ]
        given = assign(
            waiting[:limit],
            experts,
            load=Counter(owner for owners in before.values() for owner in owners),
            seed=records.recipe.settings.review.blind.seed,
        )
        return [
            Due(
                owner=expert,
                subjects=[Subject(subject_id=name, image_id=name) for name in image_ids],
            )
            for expert, image_ids in given.items()
        ]

    def shown(self, records: Records, subject_ids: Sequence[str]) -> Mapping[str, Shown]:
        with records.database.read() as session:
            images = images_by_id(session, subject_ids)
        return {image_id: Shown(image=image) for image_id, image in images.items()}

    def read(self, records: Records, task: StudioTask, answer: Answer) -> Kept:
        label = _label(records, task, answer)
        return Kept(record_id=label.label_id, save=lambda session: save_label(session, label))

    def withdraw(self, session: Any, record_ids: Sequence[str]) -> None:
        withdraw_labels(session, record_ids)

    def subjects_of(self, records: Records, image_ids: Sequence[str]) -> Sequence[Subject]:
        return [Subject(subject_id=name, image_id=name) for name in image_ids]

    def claims(self, records: Records, task: StudioTask, answer: Answer) -> GoldAnswer:
        label = _label(records, task, answer)
        return GoldAnswer(
            image_id=label.image_id,
            expert=label.expert,
            verdict=label.verdict,
            categories=frozenset(label.categories),
        )


def _label(records: Records, task: StudioTask, answer: Answer) -> BlindLabel:
    with records.database.read() as session:
        owner = owner_of(session, task.project_key)
        version = next_label_version(session, task.image_id, answer.expert)
    if owner != answer.expert:
        raise DataError(f"it was for {owner} to judge, whose answer others could see")
    return label_of(answer, task.image_id, records.recipe.taxonomy, version=version)


def _unlabelled(
    image: ImageRecord,
    before: Mapping[str, set[str]],
    labels: Mapping[str, Sequence[BlindLabel]],
    recipe: Recipe,
) -> Unlabelled | None:
    """What an image still needs beside the answers that are awaited; None: nothing."""
    said = labels.get(image.image_id, ())
    state = _settle(image, said, recipe)
    taken_by = before.get(image.image_id, set()) | {label.expert for label in said}
    awaited = len(taken_by) - len(said)
    if not isinstance(state, Open) or state.needed <= awaited:
        return None
    needed = state.needed - awaited
    return Unlabelled(image_id=image.image_id, needed=needed, taken_by=frozenset(taken_by))


def _settle(image: ImageRecord, labels: Sequence[BlindLabel], recipe: Recipe) -> Guidance | Open:
    assert image.label is not None
    misses = recipe.settings.review.blind.misses
    return settle(image.image_id, labels, image.label, misses=misses)


def label_of(answer: Answer, image_id: str, taxonomy: Taxonomy, *, version: int) -> BlindLabel:
    """Read an answer; DataError when a verdict, a confidence or a category cannot be read."""
    answers = Answers(answer.annotation.results)
    verdict, confidence = answers.choice(VERDICT), answers.choice(CONFIDENCE)
    if verdict not in set(Authenticity) or confidence not in set(Confidence):
        raise DataError("nothing is said about the verdict, or about the confidence")
    chosen = set(answers.choices(CATEGORIES))
    if unknown := chosen - set(taxonomy.ids):
        raise DataError(f"it names the category {min(unknown)!r}, which the form does not have")
    return BlindLabel(
        label_id=content_id("blind", answer.key, answer.annotation.digest()),
        image_id=image_id,
        expert=answer.expert,
        version=version,
        verdict=Authenticity(verdict),
        confidence=Confidence(confidence),
        categories=tuple(name for name in taxonomy.ids if name in chosen),
    )


def settle_blind(database: Database, recipe: Recipe) -> list[Guidance]:
    """Settle every image whose labels suffice; those that were settled before stay as they are."""
    if not recipe.settings.drafting.blind:
        return []
    with database.read() as session:
        images = unsettled_images(session, sources=None)
        labels = labels_among(session, [image.image_id for image in images])
    states = [_settle(image, labels.get(image.image_id, ()), recipe) for image in images]
    settled = [state for state in states if isinstance(state, Guidance)]
    with database.write() as session:
        save_guidance(session, settled)
    return settled
