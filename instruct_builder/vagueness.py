"""A check of what chains say: phrases that would fit any image are not the words of too many.

Captions asked for where nothing can be seen tend to end in one hedged sentence; of the published
FakeClue captions 42 % have such a phrase (docs/howto/fakeclue.md).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instruct_builder.checks import Figures, Planned, holds
from instruct_builder.columns import Chains
from instruct_builder.hashing import Mask


class Vague:
    """Chains with one of the recipe's vague phrases in a finding or in the conclusion."""

    name = "vague"
    says = "few chains say what would fit any image, in one of the recipe's vague phrases"

    def __init__(self, phrases: Sequence[str], *, most_share: float) -> None:
        self._with = dict.fromkeys(phrases, 0)
        self._most_share = most_share
        self._chains = self._vague = 0

    def see_plan(self, planned: Planned) -> None:
        """Look for each phrase in the chains of a plan, in upper or lower case."""
        chains = planned.chains
        vague = np.zeros(len(chains), dtype=bool)
        for phrase in self._with:
            having = _having(chains, phrase)
            self._with[phrase] += int(having.sum())
            vague |= having
        self._chains += len(chains)
        self._vague += int(vague.sum())

    @property
    def _share(self) -> float:
        return self._vague / max(self._chains, 1)

    def figures(self) -> Figures:
        """Chains, those with any phrase and with each, and the greatest share that may be."""
        return {
            "chains": self._chains,
            "vague": self._vague,
            "share": round(self._share, 4),
            "threshold": self._most_share,
            **{f"with {phrase!r}": number for phrase, number in self._with.items()},
        }

    def failures(self) -> list[str]:
        """The most frequent phrase, where vague chains are more than may be."""
        if self._share <= self._most_share:
            return []
        phrase = max(self._with, key=lambda phrase: self._with[phrase])
        return [
            f"{self._share:.1%} of the chains are vague, {self._most_share:.1%} may be; "
            f"{self._with[phrase]} of {self._chains} have {phrase!r}"
        ]


def _having(chains: Chains, phrase: str) -> Mask:
    """Which chains have a phrase in what was found or concluded."""
    having = holds(chains.conclusion, phrase, ignore_case=True).copy()
    findings = np.flatnonzero(holds(chains.finding_text, phrase, ignore_case=True))
    having[np.searchsorted(chains.finding_starts, findings, side="right") - 1] = True
    return having
