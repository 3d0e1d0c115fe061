"""Chains in a database, as the tests of what is built of them need them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.ids import content_id
from core.records import Source
from db.chains import save_chains
from db.engine import Database
from db.images import save_images, save_source
from db.ledger import DatabaseLedger, save_drafts
from db.work import open_campaign
from tests.campaigns import ask
from tests.unit.instruct_builder.specimens import Pair, recipe
from tests.unit.records import make_draft


def store_pairs(database: Database, pairs: Sequence[Pair], **terms: object) -> None:
    """Images, one draft each and their chains."""
    with database.write() as session:
        campaign_id = open_campaign(session, recipe(), ceiling_usd=None)
        for name in sorted({image.source for _, image in pairs}):
            save_source(session, Source(name=name, **{"licence": "CC0-1.0", **terms}))
        save_images(session, [image for _, image in pairs])
    reply = ask(
        DatabaseLedger(database, campaign_id, teacher="rehearsal"),
        pairs[0][1],
        content_id("q", str(pairs)),
    )
    with database.write() as session:
        for chain, image in pairs:
            draft = make_draft(
                image,
                draft_id=chain.draft_id,
                campaign_id=campaign_id,
                attempt_id=reply.attempt_id,
                reasoning=chain.reasoning,
            )
            save_drafts(session, [draft])
        save_chains(session, [replace(chain, campaign_id=campaign_id) for chain, _ in pairs])
