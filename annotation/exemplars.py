"""Tasks of kind exemplar: an expert describes an image and merges a teacher's description into it.

FakeScope (arXiv 2503.24267): a human and a machine each describe the same image, and a human checks
and merges both. Some fifty descriptions of either label make the set that demonstrations are
chosen from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from annotation.answers import Answers, Result
from annotation.forms import CATEGORIES, MERGED, OWN, exemplar_form
from annotation.interface import IMAGE, Form
from annotation.kinds import Answer, Due, Kept, Records, Shown
from annotation.texts import description_of
from core.errors import DataError
from core.ids import content_id, unit_interval
from core.recipe import ExemplarSlots, Recipe
from core.records import Authenticity, Draft, ImageRecord, MergedDescription, TaskKind
from core.slots import SlotImage, fill_slots
from core.taxonomy import Taxonomy
from db.engine import Database
from db.images import images_by_id
from db.judgements import DESCRIPTIONS
from db.studio import StudioTask, Subject, awaited_tasks, drafted_images, drafts_by_id

MOST_CANDIDATES: Final = 1000
"""of either label that slots are filled from"""
IS_KNOWN_TO_BE: Final = {
    Authenticity.FAKE: "This picture was generated: it is fake.",
    Authenticity.REAL: "This picture is a photograph: it is real.",
}


class Exemplars:
    """Images for the free slots of the exemplar set; an answer becomes a merged description."""

    kind: Final = TaskKind.EXEMPLAR
    model_version: Final = "draft"

    def form(self, recipe: Recipe) -> Form:
        return exemplar_form(recipe.taxonomy)

    def due(self, records: Records, *, sources: Sequence[str], limit: int | None) -> Sequence[Due]:
        wanted = records.recipe.settings.review.exemplars
        if wanted is None:
            return []
        filled, candidates = self._images(records, sources, wanted)
        numbers = Counter(image.label for image in filled)
        free = {label: max(0, wanted.of(label) - numbers[label]) for label in Authenticity}
        chosen = fill_slots(candidates, free, filled=filled, seed=wanted.seed)
        subjects = [Subject(subject_id=c.draft_id, image_id=c.image_id) for c in chosen[:limit]]
        return [Due(owner=None, subjects=subjects)]

    def _images(
        self, records: Records, sources: Sequence[str], wanted: ExemplarSlots
    ) -> tuple[list[SlotImage], list[SlotImage]]:
        """What fills slots, and what could fill further ones."""
        recipe = records.recipe
        with records.database.read() as session:
            tasks = awaited_tasks(
                session,
                server=records.server,
                form_id=self.form(recipe).form_id,
                kind=self.kind,
                campaign_id=records.campaign_id,
                recipe=recipe.name,
            )
            taken = {task.image_id: task.subject_id for task, _ in tasks}
            taken |= {
                said.image_id: said.draft_id
                for said in DESCRIPTIONS.counting(session)
                if is_usable(said, recipe.taxonomy)
            }
            arms = recipe.settings.drafting.chain_arms
            drafted = drafted_images(session, records.campaign_id, arms, sources=sources)
            drawn = sorted(
                (image for image in drafted.values() if image.image_id not in taken),
                key=lambda image: unit_interval("candidate", wanted.seed, image.image_id),
            )
            free = [
                draft_id
                for label in Authenticity
                for image in [i for i in drawn if i.label is label][:MOST_CANDIDATES]
                for draft_id in image.drafts.values()
            ]
            drafts = drafts_by_id(session, [*taken.values(), *free])
            images = images_by_id(session, [draft.image_id for draft in drafts.values()])
        found = {
            draft_id: _slot_image(draft, images[draft.image_id])
            for draft_id, draft in drafts.items()
            if draft.reasoning.verdict is images[draft.image_id].label
        }
        filled = [found[draft_id] for draft_id in taken.values() if draft_id in found]
        return filled, [found[draft_id] for draft_id in free if draft_id in found]

    def shown(
        self, records: Records, subject_ids: Sequence[str]
    ) -> Mapping[str, Shown | DataError]:
        with records.database.read() as session:
            drafts = drafts_by_id(session, subject_ids)
            images = images_by_id(session, [draft.image_id for draft in drafts.values()])
        return {
            draft_id: _shown(draft, images[draft.image_id]) for draft_id, draft in drafts.items()
        }

    def read(self, records: Records, task: StudioTask, answer: Answer) -> Kept:
        with records.database.read() as session:
            version = DESCRIPTIONS.next_version(session, task.image_id, answer.expert)
        said = description_from(answer, task, records.recipe.taxonomy, version=version)
        return Kept(
            record_id=said.description_id, save=lambda session: DESCRIPTIONS.save(session, said)
        )

    def withdraw(self, session: Any, record_ids: Sequence[str]) -> None:
        DESCRIPTIONS.withdraw(session, record_ids)


def _slot_image(draft: Draft, image: ImageRecord) -> SlotImage:
    assert image.label is not None
    return SlotImage(
        image_id=image.image_id,
        draft_id=draft.draft_id,
        label=image.label,
        generator=image.generator,
        kin=frozenset((f"group {image.group}", f"cluster {image.cluster}")),
        categories=frozenset(finding.category for finding in draft.reasoning.supporting()),
    )


def _shown(draft: Draft, image: ImageRecord) -> Shown:
    """The teacher's words stand beside the expert's, and again where both are merged."""
    assert image.label is not None
    drafted = description_of(draft.reasoning)
    categories = {finding.category for finding in draft.reasoning.supporting()}
    return Shown(
        image=image,
        data={"heading": IS_KNOWN_TO_BE[image.label], "drafted": drafted},
        prediction=[
            _result(MERGED, "textarea", {"text": [drafted]}),
            _result(CATEGORIES, "choices", {"choices": sorted(categories)}),
        ],
    )


def _result(name: str, kind: str, value: dict[str, Any]) -> Result:
    return {"id": name, "from_name": name, "to_name": IMAGE, "type": kind, "value": value}


def description_from(
    answer: Answer, task: StudioTask, taxonomy: Taxonomy, *, version: int
) -> MergedDescription:
    """Read an answer; DataError when a text or the categories are missing."""
    answers = Answers(answer.annotation.results)
    own, merged = answers.text(OWN).strip(), answers.text(MERGED).strip()
    chosen = set(answers.choices(CATEGORIES))
    if not own:
        raise DataError("the expert's own words are missing")
    if not merged or not chosen:
        raise DataError("the merged description is missing, or the aspects that it speaks of")
    if unknown := chosen - set(taxonomy.ids):
        raise DataError(f"it names the category {min(unknown)!r}, which the form does not have")
    return MergedDescription(
        description_id=content_id("description", answer.key, answer.annotation.digest()),
        image_id=task.image_id,
        draft_id=task.subject_id,
        expert=answer.expert,
        version=version,
        own=own,
        merged=merged,
        categories=tuple(name for name in taxonomy.ids if name in chosen),
    )


@dataclass(frozen=True, kw_only=True)
class Filled:
    """How many are done, of how many: slots of the exemplar set, or votes."""

    done: int
    wanted: int


def is_usable(said: MergedDescription, taxonomy: Taxonomy) -> bool:
    """Whether a recipe with this taxonomy can show a description."""
    return set(said.categories) <= set(taxonomy.ids)


def finished(database: Database, recipe: Recipe) -> list[tuple[ImageRecord, MergedDescription]]:
    """The newest description of each labelled image that the recipe can show, by image id."""
    with database.read() as session:
        found = DESCRIPTIONS.counting(session)
        newest = {said.image_id: said for said in found if is_usable(said, recipe.taxonomy)}
        images = images_by_id(session, sorted(newest))
    return [
        (image, newest[image_id])
        for image_id, image in sorted(images.items())
        if image.label is not None
    ]


def filled_slots(database: Database, recipe: Recipe) -> dict[Authenticity, Filled]:
    """How far the exemplar set is; empty where the recipe asks for none."""
    wanted = recipe.settings.review.exemplars
    if wanted is None:
        return {}
    done = Counter(image.label for image, _ in finished(database, recipe))
    return {label: Filled(done=done[label], wanted=wanted.of(label)) for label in Authenticity}
