"""Tasks of kind review: an expert checks a teacher's draft, trace by trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from annotation.interface import Form, review_form
from annotation.kinds import Answer, Due, Kept, Records, Shown
from annotation.mapping import correction_of, prediction_of, traces_of
from core.errors import DataError
from core.gold import GoldAnswer
from core.recipe import Recipe
from core.records import Correction, Draft, TaskKind
from db.images import images_by_id
from db.ledger import drafts
from db.reviews import next_version, save_correction, withdraw_corrections
from db.studio import StudioTask, Subject, drafts_by_id, undelivered_drafts


class Review:
    """The newest drafts of the chain arms; an answer becomes a correction."""

    kind: Final = TaskKind.REVIEW
    model_version: Final = "draft"

    def form(self, recipe: Recipe) -> Form:
        return review_form(recipe.taxonomy)

    def due(self, records: Records, *, sources: Sequence[str], limit: int | None) -> Sequence[Due]:
        with records.database.read() as session:
            subjects = undelivered_drafts(
                session,
                server=records.server,
                form_id=self.form(records.recipe).form_id,
                campaign_id=records.campaign_id,
                arms=records.recipe.settings.drafting.chain_arms,
                sources=sources,
                limit=limit,
            )
        return [Due(owner=None, subjects=subjects)]

    def shown(
        self, records: Records, subject_ids: Sequence[str]
    ) -> Mapping[str, Shown | DataError]:
        with records.database.read() as session:
            shown = drafts_by_id(session, subject_ids)
            images = images_by_id(session, [draft.image_id for draft in shown.values()])
        taxonomy = records.recipe.taxonomy
        return {
            draft_id: Shown(
                image=images[draft.image_id],
                data={"traces": traces_of(draft, taxonomy)},
                prediction=prediction_of(draft, images[draft.image_id]),
                traces=len(draft.reasoning.findings),
            )
            for draft_id, draft in shown.items()
        }

    def read(self, records: Records, task: StudioTask, answer: Answer) -> Kept:
        correction = _correction(records, task, answer)
        return Kept(
            record_id=correction.correction_id,
            save=lambda session: save_correction(session, correction),
        )

    def withdraw(self, session: Any, record_ids: Sequence[str]) -> None:
        withdraw_corrections(session, record_ids)

    def subjects_of(self, records: Records, image_ids: Sequence[str]) -> Sequence[Subject]:
        """The newest draft of each of these images that has one."""
        newest: dict[str, Draft] = {}
        with records.database.read() as session:
            for arm in records.recipe.settings.drafting.chain_arms:
                found = drafts(session, records.campaign_id, arm, image_ids=image_ids)
                newest |= {draft.image_id: draft for draft in found}
        return [
            Subject(subject_id=newest[image_id].draft_id, image_id=image_id)
            for image_id in image_ids
            if image_id in newest
        ]

    def claims(self, records: Records, task: StudioTask, answer: Answer) -> GoldAnswer:
        """The categories that are left; the form does not ask for a verdict."""
        correction = _correction(records, task, answer)
        return GoldAnswer(
            image_id=task.image_id,
            expert=answer.expert,
            verdict=None,
            categories=correction.categories(),
        )


def _correction(records: Records, task: StudioTask, answer: Answer) -> Correction:
    with records.database.read() as session:
        draft = drafts_by_id(session, [task.subject_id])[task.subject_id]
        image = images_by_id(session, [draft.image_id])[draft.image_id]
        following = next_version(session, draft.draft_id, answer.expert)
    return correction_of(
        answer.annotation,
        draft,
        image,
        records.recipe.taxonomy,
        expert=answer.expert,
        version=following,
        key=answer.key,
    )
