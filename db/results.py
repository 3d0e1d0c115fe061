"""What claims end with: a draft, or what the image shows."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from core.errors import StateError
from core.records import Claim, Draft, ImageTopic
from db.ledger import save_drafts
from db.topics import save_topics
from db.work import drafted_or_lost


def keep_results(
    session: Session, done: Sequence[tuple[Claim, Draft | ImageTopic]]
) -> list[StateError | None]:
    """Store the results of claims and end these claims; StateError for one that was taken away."""
    lost = drafted_or_lost(session, [claim for claim, _ in done])
    kept = [result for (_, result), no in zip(done, lost, strict=True) if no is None]
    save_drafts(session, [result for result in kept if isinstance(result, Draft)])
    save_topics(session, [result for result in kept if isinstance(result, ImageTopic)])
    return lost
