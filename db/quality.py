"""What reviews, blind labels, gold items and preferences of a recipe's campaign come to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from core.blind_experts import BlindAgreement, BlindImage, blind_agreement
from core.disputes import QueuedDraft, queue_of
from core.errors import ConfigError
from core.experts import ReviewAgreement, review_agreement
from core.gold import GoldScore, score_gold
from core.preference import StudyResult, Vote, evaluate_votes
from core.quality import Pace, ReviewedDraft, TeacherQuality, paces, teacher_quality
from core.recipe import Recipe
from core.records import TaskKind
from db.blind import judged_images
from db.engine import Database
from db.gold import gold_answers, right_answers
from db.judgements import PREFERENCES
from db.reports import reviewed_drafts
from db.studio import drafts_by_id, lead_times
from db.tables import (
    BlindLabelRow,
    CorrectionRow,
    GoldAnswerRow,
    PreferenceRow,
    WithdrawnCorrectionRow,
)
from db.work import campaign_id_of


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far experts agree, of reviews and of blind labels."""

    reviews: ReviewAgreement
    blind: BlindAgreement | None
    """None: nobody was asked blind"""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good teachers are, how fast experts, and how often these are right on gold items."""

    traces: TeacherQuality
    paces: dict[str, Pace]
    gold: dict[TaskKind, dict[str, GoldScore]]
    """by kind of tasks and expert"""


def read_reviews(database: Database, recipe: Recipe) -> list[ReviewedDraft]:
    """The reviewed drafts of the recipe's chain arms."""
    with database.read() as session:
        return [*reviewed_drafts(session, campaign_id_of(recipe), _arms(recipe))]


def adjudication_queue(database: Database, recipe: Recipe) -> list[QueuedDraft]:
    """The drafts of the recipe's chain arms that wait for an adjudicator, worst first."""
    return queue_among(read_reviews(database, recipe), recipe)


def queue_among(reviews: Iterable[ReviewedDraft], recipe: Recipe) -> list[QueuedDraft]:
    """Those of some reviewed drafts that wait, worst first."""
    review = recipe.settings.review
    return queue_of(reviews, required=review.agreed_corrections, overlap=review.agreed_overlap)


def measure_quality(database: Database, recipe: Recipe) -> Quality:
    """What experts left of the drafts of the recipe's chain arms, and their gold scores."""
    return _quality(database, recipe, read_reviews(database, recipe))


def _quality(database: Database, recipe: Recipe, reviews: Sequence[ReviewedDraft]) -> Quality:
    with database.read() as session:
        answers = {kind: gold_answers(session, recipe.name, kind) for kind in TaskKind}
    said = {kind: found for kind, found in answers.items() if found}
    right = right_answers(database, recipe) if said else {}
    return Quality(
        traces=teacher_quality(reviews),
        paces=paces(reviews),
        gold={kind: score_gold(found, right) for kind, found in said.items()},
    )


def measure_agreement(database: Database, recipe: Recipe) -> Agreement:
    """How far experts agree on the drafts of the recipe's chain arms, and blind."""
    return _agreement(database, recipe, read_reviews(database, recipe))


def _agreement(database: Database, recipe: Recipe, reviews: Sequence[ReviewedDraft]) -> Agreement:
    with database.read() as session:
        judged = [*judged_images(session)]
        label_ids = [label.label_id for _, labels in judged for label in labels]
        seconds = lead_times(session, label_ids)
    blind = [
        BlindImage(image_id=image.image_id, truth=image.label, labels=tuple(labels))
        for image, labels in judged
        if image.label is not None
    ]
    categories = recipe.taxonomy.ids
    return Agreement(
        reviews=review_agreement(reviews, categories),
        blind=blind_agreement(blind, categories, seconds) if blind else None,
    )


@dataclass(frozen=True, kw_only=True)
class Experts:
    """All that is known of a recipe's experts."""

    agreement: Agreement
    quality: Quality
    queue: list[QueuedDraft]


def measure_experts(database: Database, recipe: Recipe) -> Experts:
    """Agreement, quality and queue at once: the reviews are read once."""
    reviews = read_reviews(database, recipe)
    return Experts(
        agreement=_agreement(database, recipe, reviews),
        quality=_quality(database, recipe, reviews),
        queue=queue_among(reviews, recipe),
    )


def _arms(recipe: Recipe) -> tuple[str, ...]:
    return recipe.settings.drafting.chain_arms


@dataclass(frozen=True, kw_only=True)
class StudyReport:
    """A preference study as far as it is."""

    arms: tuple[str, str]
    """how often the first was preferred to the second"""
    result: StudyResult | None
    """None: nobody has judged anything yet"""
    wanted: int
    """votes that the study asks for"""


def measure_preferences(database: Database, recipe: Recipe) -> StudyReport:
    """What was pulled of the recipe's study; ConfigError when it asks for none."""
    study = recipe.settings.review.preference
    if study is None:
        raise ConfigError(
            f"{recipe.folder / 'recipe.yaml'} asks for no preferences: name two arms in "
            "review.preference.arms"
        )
    with database.read() as session:
        said = PREFERENCES.counting(session)
        drafts = drafts_by_id(
            session, [half for each in said for half in (each.preferred, each.other)]
        )
    campaign_id = campaign_id_of(recipe)
    votes = []
    for each in said:
        preferred, other = drafts[each.preferred], drafts[each.other]
        if preferred.campaign_id == campaign_id and {preferred.arm, other.arm} == set(study.arms):
            is_win = preferred.arm == study.arms[0]
            votes.append(
                Vote(
                    image_id=each.image_id,
                    expert=each.expert,
                    is_win=is_win,
                    is_first=is_win == each.preferred_first,
                )
            )
    return StudyReport(
        arms=study.arms, result=evaluate_votes(votes), wanted=study.images * study.experts
    )


def answers_so_far(session: Session) -> tuple[int, ...]:
    """Changes whenever an answer of an expert arrives or is taken back."""
    rows: tuple[Any, ...] = (CorrectionRow, BlindLabelRow, GoldAnswerRow, PreferenceRow)
    newest = [select(func.coalesce(func.max(row.number), 0)).scalar_subquery() for row in rows]
    withdrawn = select(func.count()).select_from(WithdrawnCorrectionRow).scalar_subquery()
    taken_back = [
        select(func.count()).where(row.withdrawn_at.is_not(None)).scalar_subquery()
        for row in (BlindLabelRow, PreferenceRow)
    ]
    return tuple(session.execute(select(*newest, withdrawn, *taken_back)).one())
