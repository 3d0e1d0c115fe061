"""Tasks of kind adjudication: somebody settles what experts disagree on, trace by trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from annotation.adjudicate import (
    Proposal,
    prediction_of_proposal,
    propose,
    ruling_of,
    traces_of_proposal,
)
from annotation.interface import Form, adjudication_form
from annotation.kinds import Answer, Due, Kept, Records, Shown
from annotation.mapping import correction_of
from core.errors import DataError
from core.recipe import Recipe
from core.records import ImageRecord, TaskKind
from db.disputes import Dispute, disputes_by_id, images_before_adjudicator, save_disputes
from db.images import images_by_id
from db.quality import queue_among, read_reviews
from db.reviews import next_version, save_correction, withdraw_corrections
from db.studio import StudioTask, Subject, drafts_by_id


class Adjudication:
    """The drafts that experts disagree on, worst first; an answer becomes a ruling.

    A task shows the answers as they were when it was made, and is made once for an image.
    """

    kind: Final = TaskKind.ADJUDICATION
    model_version: Final = "proposal"

    def form(self, recipe: Recipe) -> Form:
        return adjudication_form(recipe.taxonomy)

    def due(self, records: Records, *, sources: Sequence[str], limit: int | None) -> Sequence[Due]:
        reviews = {r.draft.draft_id: r for r in read_reviews(records.database, records.recipe)}
        with records.database.read() as session:
            known = images_before_adjudicator(session, records.campaign_id, records.server)
        due = [
            Dispute(corrections=reviews[queued.draft_id].corrections)
            for queued in queue_among(reviews.values(), records.recipe)
            if queued.image_id not in known and reviews[queued.draft_id].image.source in sources
        ][:limit]
        with records.database.write() as session:
            save_disputes(session, due)
        subjects = [Subject(subject_id=d.dispute_id, image_id=d.image_id) for d in due]
        return [Due(owner=None, subjects=subjects)]

    def shown(
        self, records: Records, subject_ids: Sequence[str]
    ) -> Mapping[str, Shown | DataError]:
        return {
            dispute_id: Shown(
                image=image,
                data={"traces": traces_of_proposal(proposal, records.recipe.taxonomy)},
                prediction=prediction_of_proposal(proposal, image),
                traces=len(proposal.candidates),
            )
            for dispute_id, (proposal, image) in _proposals(records, subject_ids).items()
        }

    def read(self, records: Records, task: StudioTask, answer: Answer) -> Kept:
        proposal, image = _proposals(records, [task.subject_id])[task.subject_id]
        with records.database.read() as session:
            following = next_version(session, proposal.draft.draft_id, answer.expert)
        settled = correction_of(
            answer.annotation,
            proposal.as_draft(),
            image,
            records.recipe.taxonomy,
            expert=answer.expert,
            version=following,
            key=answer.key,
        )
        ruling = ruling_of(settled, proposal)
        return Kept(
            record_id=ruling.correction_id,
            save=lambda session: save_correction(session, ruling),
        )

    def withdraw(self, session: Any, record_ids: Sequence[str]) -> None:
        withdraw_corrections(session, record_ids)


def _proposals(
    records: Records, dispute_ids: Sequence[str]
) -> dict[str, tuple[Proposal, ImageRecord]]:
    with records.database.read() as session:
        disputes = disputes_by_id(session, dispute_ids)
        drafts = drafts_by_id(session, [dispute.draft_id for dispute in disputes.values()])
        images = images_by_id(session, [dispute.image_id for dispute in disputes.values()])
    return {
        dispute_id: (propose(drafts[d.draft_id], d.corrections), images[d.image_id])
        for dispute_id, d in disputes.items()
    }
