"""Drafts and corrections become FakeChain records: `python -m annotation chain`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from core.chain import build_chain
from core.recipe import Recipe
from core.records import Draft, ReasoningChain, ReviewLevel
from db.chains import save_chains
from db.engine import Database
from db.images import images_by_id
from db.ledger import drafts
from db.reviews import corrections
from db.work import campaign_id_of, mark_chained

BATCH = 500

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSummary:
    """What one pass over the drafts of the chain arms did."""

    drafts: int
    new_chains: int
    contradictions: int
    """findings left out because they spoke against the known label"""
    by_level: dict[ReviewLevel, int]


def chain_drafts(database: Database, recipe: Recipe) -> ChainSummary:
    """Build the chain of every draft in the recipe's chain arms; unchanged ones stay."""
    campaign_id = campaign_id_of(recipe)
    total = new = contradictions = 0
    by_level: Counter[ReviewLevel] = Counter()
    for arm in recipe.settings.drafting.chain_arms:
        for batch in _batches(_drafts_of(database, campaign_id, arm)):
            chains = _chains_of(database, recipe, batch)
            with database.write() as session:
                new += save_chains(session, chains)
                mark_chained(session, campaign_id, arm, [chain.image_id for chain in chains])
            total += len(chains)
            contradictions += sum(chain.contradictions for chain in chains)
            by_level.update(chain.review_level for chain in chains)
    return ChainSummary(
        drafts=total, new_chains=new, contradictions=contradictions, by_level=dict(by_level)
    )


def _drafts_of(database: Database, campaign_id: str, arm: str) -> Iterator[Draft]:
    with database.read() as session:
        yield from drafts(session, campaign_id, arm)


def _chains_of(database: Database, recipe: Recipe, batch: list[Draft]) -> list[ReasoningChain]:
    review = recipe.settings.review
    image_ids = [draft.image_id for draft in batch]
    with database.read() as session:
        images = images_by_id(session, image_ids)
        corrected = corrections(session, image_ids)
    return [
        build_chain(
            images[draft.image_id],
            draft,
            corrected.get(draft.image_id, []),
            agreed_corrections=review.agreed_corrections,
            agreed_overlap=review.agreed_overlap,
        )
        for draft in batch
    ]


def _batches(items: Iterable[Item]) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, BATCH)):
        yield batch
