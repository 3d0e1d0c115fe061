"""Which of two texts experts prefer (FakeScope's forced choice), with intervals that know of
clusters. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from core.ids import unit_interval
from core.records import Authenticity

CONFIDENCE: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One expert's choice about one image."""

    image_id: str
    expert: str
    is_win: bool
    """the arm that is asked about was preferred"""
    is_first: bool
    """its text stood on the left"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of votes with its 95 % interval."""

    share: float
    low: float
    high: float
    votes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """How often one arm was preferred to the other."""

    wins: Share
    """as if every vote were independent: Clopper and Pearson's exact interval"""
    by_image: Share
    """votes about one image are alike: Korn and Graubard's interval"""
    by_expert: Share
    """votes of one expert are alike: the same"""
    left: Share
    """votes for the text on the left, whichever it was: 0.5 where order does not matter"""
    when_first: float | None
    """share of wins where the arm stood on the left; None: it never did"""
    when_second: float | None
    experts: Mapping[str, float]
    """share of wins by expert"""
    images: int


def evaluate_votes(votes: Sequence[Vote]) -> StudyResult | None:
    """What the votes come to; None while there is none."""
    if not votes:
        return None
    wins = [vote.is_win for vote in votes]
    return StudyResult(
        wins=exact_share(sum(wins), len(wins)),
        by_image=clustered_share([(vote.image_id, vote.is_win) for vote in votes]),
        by_expert=clustered_share([(vote.expert, vote.is_win) for vote in votes]),
        left=exact_share(sum(vote.is_win == vote.is_first for vote in votes), len(votes)),
        when_first=_mean(vote.is_win for vote in votes if vote.is_first),
        when_second=_mean(vote.is_win for vote in votes if not vote.is_first),
        experts=_shares_by_expert(votes),
        images=len({vote.image_id for vote in votes}),
    )


def exact_share(successes: int, votes: int) -> Share:
    """Clopper and Pearson (Biometrika 26, 1934)."""
    low, high = _clopper_pearson(successes, votes)
    return Share(share=successes / votes, low=low, high=high, votes=votes)


def clustered_share(votes: Sequence[tuple[Hashable, bool]]) -> Share:
    """Korn and Graubard (Survey Methodology 24, 1998) for votes (cluster, is a win).

    Clopper and Pearson's interval with as many votes as are worth independent ones: fewer, the
    more alike the votes of a cluster are, and fewer for few clusters. It is never narrower than
    without clusters. Where all votes are equal, nothing tells how alike clusters are; then each
    cluster counts as one vote.
    """
    from scipy.stats import t as student

    total, wins = len(votes), sum(is_win for _, is_win in votes)
    share, clusters = wins / total, len({name for name, _ in votes})
    effective: float = clusters
    if 0 < wins < total and clusters > 1:
        variance = _variance_of_share(votes, share, clusters)
        independent = share * (1 - share) / variance if variance > 0 else total
        shrink = (student.ppf(_UPPER, total - 1) / student.ppf(_UPPER, clusters - 1)) ** 2
        effective = min(total, independent * shrink)
    low, high = _clopper_pearson(share * effective, effective)
    return Share(share=share, low=low, high=high, votes=total)


_UPPER: Final = 0.5 + CONFIDENCE / 2


def _variance_of_share(
    votes: Sequence[tuple[Hashable, bool]], share: float, clusters: int
) -> float:
    """Of a ratio over clusters, by linearisation (Korn and Graubard, section 2)."""
    residuals: dict[Hashable, float] = defaultdict(float)
    for name, is_win in votes:
        residuals[name] += (is_win - share) / len(votes)
    return float(np.square(list(residuals.values())).sum() * clusters / (clusters - 1))


def _clopper_pearson(successes: float, votes: float) -> tuple[float, float]:
    """Quantiles of beta distributions; the numbers need not be whole."""
    from scipy.stats import beta

    failures, tail = votes - successes, 1 - _UPPER
    low = float(beta.ppf(tail, successes, failures + 1)) if successes > 0 else 0.0
    high = float(beta.ppf(1 - tail, successes + 1, failures)) if failures > 0 else 1.0
    return low, high


def _mean(values: Iterable[bool]) -> float | None:
    found = list(values)
    return sum(found) / len(found) if found else None


def _shares_by_expert(votes: Sequence[Vote]) -> dict[str, float]:
    wins: dict[str, list[bool]] = defaultdict(list)
    for vote in votes:
        wins[vote.expert].append(vote.is_win)
    return {expert: sum(won) / len(won) for expert, won in sorted(wins.items())}


# Which images, and which text stands first


def study_images(
    labels: Mapping[str, Authenticity], count: int, *, chosen: Iterable[str], seed: int
) -> list[str]:
    """So many images, as many of either label as can be; those chosen before come first."""
    before = sorted(set(chosen) & set(labels))
    rest = sorted(set(labels) - set(before), key=lambda name: unit_interval("study", seed, name))
    found = before[:count]
    numbers = Counter(labels[name] for name in found)
    for label in Authenticity:
        share = count // 2 + (count % 2 if label is Authenticity.FAKE else 0)
        own = [name for name in rest if labels[name] is label]
        found += own[: max(0, min(share - numbers[label], count - len(found)))]
    left = [name for name in rest if name not in set(found)]
    return found + left[: count - len(found)]


class Sides:
    """Which text of a pair stands on the left: each as often as the other, in no pattern."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._lead: Counter[tuple[str, str]] = Counter()
        """by expert and by image, how much oftener the first arm stood on the left"""

    def note(self, image_id: str, expert: str, *, first_is_left: bool) -> None:
        """A pair that was placed before."""
        for key in (("expert", expert), ("image", image_id)):
            self._lead[key] += 1 if first_is_left else -1

    def place(self, image_id: str, expert: str) -> bool:
        """Whether the first arm is to stand on the left of the next pair."""
        for key in (("expert", expert), ("image", image_id)):
            if self._lead[key]:
                first_is_left = self._lead[key] < 0
                break
        else:
            first_is_left = unit_interval("side", self._seed, image_id, expert) < 0.5
        self.note(image_id, expert, first_is_left=first_is_left)
        return first_is_left
