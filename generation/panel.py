"""How far the teachers of a panel agree, with one another and with experts who looked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from core.chain import deciding
from core.command_line import aligned
from core.consensus import Ruling, ruling_on, votes_behind
from core.recipe import Arm, Recipe
from core.records import Correction, Draft
from db.engine import Database
from db.ledger import drafts
from db.reviews import corrections
from db.studio import drafts_by_id
from db.work import campaign_id_of

BLOCK = 500
"""images whose drafts are read at a time"""


@dataclass(slots=True, kw_only=True)
class Voter:
    """The points of one arm of a panel."""

    raised: int = 0
    kept: int = 0
    alone: int = 0
    """raised by no other arm"""
    upheld: int = 0
    """of those on images that experts have checked: what the word that counts holds"""
    denied: int = 0
    """likewise: what was kept and is not in it; of what was dropped experts were not asked"""


@dataclass(slots=True, kw_only=True)
class PointVotes:
    """One point of the inspection: by how many teachers it was raised, and in how many images."""

    votes: dict[int, int] = field(default_factory=dict)
    """images by number of votes"""
    kept: int = 0
    upheld: int = 0
    """as of a voter"""
    denied: int = 0


@dataclass(slots=True, kw_only=True)
class Panel:
    """All votes that one arm has merged."""

    voters: dict[str, Voter]
    """by arm"""
    points: dict[str, PointVotes] = field(default_factory=dict)
    """by category"""
    drafts: dict[int, int] = field(default_factory=dict)
    """images by how many drafts were merged"""
    checked: int = 0
    """images that experts have checked"""

    def add(self, merged: Draft, voted: list[Draft], word: Correction | None) -> None:
        """Count one image; `word` is the correction that counts, where there is one."""
        self.drafts[len(voted)] = self.drafts.get(len(voted), 0) + 1
        self.checked += word is not None
        for vote in votes_behind(merged, voted):
            point = self.points.setdefault(vote.category, PointVotes())
            point.votes[len(vote.arms)] = point.votes.get(len(vote.arms), 0) + 1
            point.kept += vote.is_kept
            ruling = ruling_on(vote, word)
            point.upheld += ruling is Ruling.UPHELD
            point.denied += ruling is Ruling.DENIED
            for arm in vote.arms:
                voter = self.voters[arm]
                voter.raised += 1
                voter.kept += vote.is_kept
                voter.alone += len(vote.arms) == 1
                voter.upheld += ruling is Ruling.UPHELD
                voter.denied += ruling is Ruling.DENIED


def measure_panel(database: Database, recipe: Recipe, arm: Arm) -> Panel:
    """Count the votes behind the drafts of an arm that merges."""
    assert arm.merge is not None
    panel = Panel(voters={name: Voter() for name in arm.merge.arms})
    with database.read() as session:
        merged = list(drafts(session, campaign_id_of(recipe), arm.name))
        for start in range(0, len(merged), BLOCK):
            block = merged[start : start + BLOCK]
            voted = drafts_by_id(session, [name for draft in block for name in draft.merged])
            said = corrections(session, [draft.image_id for draft in block])
            for draft in block:
                words = [c for c in said.get(draft.image_id, ()) if c.draft_id == draft.draft_id]
                panel.add(
                    draft,
                    [voted[name] for name in draft.merged if name in voted],
                    deciding(words),
                )
    return panel


def as_text(arm: str, panel: Panel) -> Iterator[str]:
    """Two tables: by teacher, and by point."""
    heard = ", ".join(f"{images} of {count}" for count, images in sorted(panel.drafts.items()))
    yield (
        f"votes merged by arm {arm}; images by number of drafts: {heard or 'none'}; "
        f"checked by experts: {panel.checked}"
    )
    yield from _table(
        ("arm", "raised", "kept", "alone", "upheld by experts", "denied"),
        {
            name: (each.raised, each.kept, each.alone, each.upheld, each.denied)
            for name, each in panel.voters.items()
        },
    )
    counts = range(1, len(panel.voters) + 1)
    yield from _table(
        ("point", *(f"{n} of {len(panel.voters)}" for n in counts), "kept", "upheld", "denied"),
        {
            name: (*(each.votes.get(n, 0) for n in counts), each.kept, each.upheld, each.denied)
            for name, each in sorted(panel.points.items())
        },
    )


def _table(header: tuple[str, ...], rows: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    shown = [header, *((name, *map(str, counts)) for name, counts in rows.items())]
    return aligned(shown, words=1)
