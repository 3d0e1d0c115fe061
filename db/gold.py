"""Gold items, and what experts said of them: scored, and in no chain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from core.gold import GoldAnswer, RightAnswer
from core.ids import content_id
from core.recipe import Recipe
from core.records import ReviewLevel, TaskKind
from db.chains import newest_chains
from db.engine import Database
from db.images import images_by_id
from db.statements import batches, change, insert_missing
from db.tables import (
    CampaignRow,
    GoldAnswerRow,
    GoldItemRow,
    StudioProjectRow,
    StudioTaskRow,
    table_of,
)
from db.tombstones import is_withdrawn
from db.work import campaign_id_of

ITEMS = table_of(GoldItemRow)
ANSWERS = table_of(GoldAnswerRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldItem:
    """An image with a known right answer, shown as any other of its kind is."""

    gold_id: str
    campaign_id: str
    kind: TaskKind
    subject_id: str
    image_id: str

    @classmethod
    def of(cls, campaign_id: str, kind: TaskKind, subject_id: str, image_id: str) -> GoldItem:
        return cls(
            gold_id=content_id("gold", campaign_id, kind, subject_id),
            campaign_id=campaign_id,
            kind=kind,
            subject_id=subject_id,
            image_id=image_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnTasks:
    """The tasks of one kind that one owner's projects have, or will."""

    regular: int
    gold: int
    images: frozenset[str]
    """that are not to be gold there: the gold ones, and in an expert's own projects all"""


def save_gold_items(session: Session, items: Sequence[GoldItem]) -> None:
    """Remember gold items; what is remembered already stays."""
    insert_missing(session, ITEMS, [asdict(item) for item in items])


def gold_items(session: Session, gold_ids: Sequence[str]) -> dict[str, GoldItem]:
    """Those of these ids that are gold."""
    found: dict[str, GoldItem] = {}
    for batch in batches(sorted(set(gold_ids))):
        rows = session.execute(select(*ITEMS.columns).where(GoldItemRow.gold_id.in_(batch)))
        found |= {row["gold_id"]: GoldItem(**row) for row in rows.mappings()}
    return found


def own_tasks(
    session: Session, recipe: str, server: str, kind: TaskKind, owner: str | None
) -> OwnTasks:
    """What one expert sees of one kind in a recipe's campaigns; None: what all see on a server."""
    everybodys = (StudioProjectRow.owner.is_(None), StudioProjectRow.server == server)
    whose = (StudioProjectRow.owner == owner,) if owner is not None else everybodys
    here = (
        CampaignRow.recipe == recipe,
        StudioProjectRow.kind == kind,
        *whose,
        StudioTaskRow.refused.is_(None),
    )
    statement = (
        select(StudioTaskRow.image_id, GoldItemRow.gold_id)
        .join(StudioProjectRow, StudioProjectRow.project_key == StudioTaskRow.project_key)
        .join(CampaignRow, CampaignRow.campaign_id == StudioProjectRow.campaign_id)
        .outerjoin(GoldItemRow, GoldItemRow.gold_id == StudioTaskRow.subject_id)
        .where(*here)
    )
    rows = session.execute(statement).all()
    gold = [row.image_id for row in rows if row.gold_id is not None]
    return OwnTasks(
        regular=len(rows) - len(gold),
        gold=len(gold),
        images=frozenset(gold if owner is None else [row.image_id for row in rows]),
    )


def save_gold_answer(session: Session, answer_id: str, gold_id: str, answer: GoldAnswer) -> None:
    """Append one version of what an expert says of a gold item, unless it is there."""
    known = select(GoldAnswerRow.number).where(GoldAnswerRow.answer_id == answer_id)
    if session.scalar(known) is not None:
        return
    row = {
        "answer_id": answer_id,
        "gold_id": gold_id,
        "expert": answer.expert,
        "verdict": answer.verdict,
        "categories": tuple(sorted(answer.categories)),
        "is_withdrawn": False,
    }
    session.connection().execute(insert(ANSWERS), [row])


def withdraw_gold_answers(session: Session, answer_ids: Sequence[str]) -> int:
    """Let answers count no longer; those of other ids are none of gold. Returns how many did."""
    known = GoldAnswerRow.answer_id.in_(answer_ids)
    statement = update(GoldAnswerRow).where(known, GoldAnswerRow.is_withdrawn.is_(False))
    return change(session, statement.values(is_withdrawn=True))


def gold_answers(session: Session, recipe: str, kind: TaskKind) -> list[GoldAnswer]:
    """The answers that count: the last that each expert did not take back, of each item.

    Those of all campaigns of a recipe: experts are scored, whatever the teacher was shown.
    """
    rows = session.execute(
        select(
            GoldAnswerRow.gold_id,
            GoldItemRow.image_id,
            GoldAnswerRow.expert,
            GoldAnswerRow.verdict,
            GoldAnswerRow.categories,
        )
        .join(GoldItemRow, GoldItemRow.gold_id == GoldAnswerRow.gold_id)
        .join(CampaignRow, CampaignRow.campaign_id == GoldItemRow.campaign_id)
        .where(
            CampaignRow.recipe == recipe,
            GoldItemRow.kind == kind,
            GoldAnswerRow.is_withdrawn.is_(False),
            ~is_withdrawn(GoldItemRow.image_id),
        )
        .order_by(GoldAnswerRow.number)
    )
    last = {
        (row.gold_id, row.expert): GoldAnswer(
            image_id=row.image_id,
            expert=row.expert,
            verdict=row.verdict,
            categories=frozenset(row.categories),
        )
        for row in rows
    }
    return list(last.values())


def right_answers(
    database: Database, recipe: Recipe, sources: Sequence[str] | None = None
) -> dict[str, RightAnswer]:
    """What is known to be true, by image: what adjudicators settled, and the recipe's gold list.

    The list has the last word. Images that are not here, or have no label, are left out.
    """
    listed = {entry.image: frozenset(entry.categories) for entry in recipe.gold}
    with database.read() as session:
        settled = newest_chains(
            session,
            campaign_id=campaign_id_of(recipe),
            arms=recipe.settings.drafting.chain_arms,
            min_review=ReviewLevel.ADJUDICATED,
            sources=sources,
        )
        known = {
            image.image_id: RightAnswer(
                verdict=chain.reasoning.verdict,
                categories=frozenset(f.category for f in chain.reasoning.supporting()),
            )
            for chain, image in settled
        }
        images = images_by_id(session, sorted(listed))
    for image_id, image in images.items():
        if image.label is not None and (sources is None or image.source in sources):
            known[image_id] = RightAnswer(verdict=image.label, categories=listed[image_id])
    return known
