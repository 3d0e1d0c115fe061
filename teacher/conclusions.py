"""From findings to a verdict in words, by the `conclusions` of a recipe's `rehearsal.yaml`.

The told label decides the verdict and the wording, never the findings: where they do not bear it
out, the conclusion says that nothing visible supports it, and the confidence is low.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Annotated

from pydantic import AfterValidator, Field

from core.ids import seed_of
from core.recipe import Strict
from core.records import Authenticity, Confidence, Reasoning, TraceFinding
from core.taxonomy import Taxonomy

TOLD_LABEL = re.compile(r"^Known authenticity: (real|fake)[ \t]*$", re.MULTILINE)


def _names_traces(pattern: str) -> str:
    return _checked(pattern, allowed={"traces"})


def _names_nothing(pattern: str) -> str:
    return _checked(pattern, allowed=set())


def _checked(pattern: str, *, allowed: set[str]) -> str:
    names = {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}
    if names - allowed:
        raise ValueError(f"{pattern!r} may hold {sorted(allowed) or 'no placeholder'} only")
    return pattern


Naming = Annotated[str, AfterValidator(_names_traces)]
Plain = Annotated[str, AfterValidator(_names_nothing)]


class Wordings(Strict):
    """Full sentences for one verdict; `{traces}` lists the categories that speak for it."""

    clear: tuple[Naming, ...] = Field(min_length=1)
    """findings for the verdict, none against it"""
    mixed: tuple[Naming, ...] = Field(min_length=1)
    """findings on both sides"""
    against: tuple[Plain, ...] = Field(min_length=1)
    """findings against the verdict alone"""
    none: tuple[Plain, ...] = Field(min_length=1)
    """no finding at all"""


class Conclusions(Strict):
    """How the rehearsal teacher sums up what it measured."""

    medium_from: int = Field(ge=1)
    """findings for the verdict, less those against it, from which on confidence is medium"""
    high_from: int = Field(ge=1)
    fake: Wordings
    real: Wordings


@dataclass(frozen=True, slots=True)
class _Sides:
    """The findings for and against a verdict."""

    supporting: Sequence[TraceFinding]
    opposing: Sequence[TraceFinding]

    @property
    def name(self) -> str:
        """Which wordings fit."""
        if not self.supporting:
            return "against" if self.opposing else "none"
        return "mixed" if self.opposing else "clear"

    @property
    def balance(self) -> int:
        return len(self.supporting) - len(self.opposing)


def told_label(question: str) -> Authenticity | None:
    """The label in the line `Known authenticity: fake` (or `real`); None when nobody told."""
    match = TOLD_LABEL.search(question)
    return Authenticity(match.group(1)) if match else None


def conclude(
    findings: Sequence[TraceFinding],
    told: Authenticity | None,
    *,
    conclusions: Conclusions,
    taxonomy: Taxonomy,
    key: str,
) -> Reasoning:
    """Sum findings up; `key`, the image's hash, chooses among the wordings."""
    verdict = told or _decide(findings)
    sides = _Sides(
        supporting=[f for f in findings if f.points_to is verdict],
        opposing=[f for f in findings if f.points_to is not verdict],
    )
    wordings: Wordings = getattr(conclusions, verdict.value)
    patterns: tuple[str, ...] = getattr(wordings, sides.name)
    pattern = patterns[seed_of("conclusion", key, verdict, sides.name) % len(patterns)]
    names = [taxonomy[finding.category].name for finding in sides.supporting]
    return Reasoning(
        verdict=verdict,
        findings=tuple(findings),
        conclusion=pattern.format(traces=join_names(names)),
        confidence=_confidence(sides, conclusions),
    )


def join_names(names: Sequence[str]) -> str:
    """`texture`, `texture and edges`, `texture, light and shadow, and edges`."""
    if len(names) < 2:
        return "".join(names)
    needs_comma = len(names) > 2 or any(" and " in name for name in names)
    return f"{', '.join(names[:-1])}{',' if needs_comma else ''} and {names[-1]}"


def _decide(findings: Sequence[TraceFinding]) -> Authenticity:
    """Where nobody told: the side with more findings; none of either is no reason to suspect."""
    num_fake = sum(finding.points_to is Authenticity.FAKE for finding in findings)
    return Authenticity.FAKE if num_fake > len(findings) / 2 else Authenticity.REAL


def _confidence(sides: _Sides, conclusions: Conclusions) -> Confidence:
    if not sides.supporting or sides.balance < conclusions.medium_from:
        return Confidence.LOW
    return Confidence.HIGH if sides.balance >= conclusions.high_from else Confidence.MEDIUM
