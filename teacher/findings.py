"""Rules, read from a recipe, that turn the figures measured on an image into findings.

The rules are data (`rehearsal.yaml`); nothing here knows a trace category, nor what was told about
the image: the same figures always give the same findings.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any, Protocol, Self

from pydantic import Field, field_validator, model_validator

from core.errors import ConfigError
from core.ids import unit_interval
from core.recipe import Strict, parse_model
from core.records import Authenticity, Region, TraceFinding

SENTENCES = 2
"""of one finding, at most"""
PLACEHOLDERS = frozenset({"value", "limit", "degree", "place"})


class Measured(Protocol):
    """What the rules need to know about an image."""

    @property
    def places(self) -> Mapping[str, Region]: ...

    def as_dict(self) -> dict[str, float]: ...


class Bound(Strict):
    """A figure must lie above, below, or between; the limits themselves do not count."""

    above: float | None = None
    below: float | None = None

    @model_validator(mode="after")
    def _has_a_limit(self) -> Self:
        if self.above is None and self.below is None:
            raise ValueError("needs above or below")
        return self

    def holds(self, value: float) -> bool:
        return (self.above is None or value > self.above) and (
            self.below is None or value < self.below
        )


class Rule(Strict):
    """One figure beyond its limit, under conditions, is evidence in one category."""

    id: str
    category: str
    points_to: Authenticity
    figure: str
    above: float | None = None
    below: float | None = None
    """exactly one of the two"""
    strong: float
    """the value from which on the evidence counts as full strength"""
    when: dict[str, Bound] = Field(default_factory=dict)
    """figures that must lie within bounds as well"""
    region: str | None = None
    """the place that the finding points at, and that `{place}` names"""
    evidence: tuple[str, ...] = Field(min_length=1)
    """full sentences with `{value}`, `{limit}`, `{degree}` and, given a region, `{place}`"""

    @model_validator(mode="after")
    def _is_one_sided(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError(f"rule {self.id}: needs either above or below")
        if (self.strong > self.limit) != (self.above is not None):
            raise ValueError(f"rule {self.id}: strong must lie beyond the limit {self.limit:g}")
        return self

    @field_validator("evidence")
    @classmethod
    def _are_sentences(cls, evidence: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in evidence:
            _check_pattern(pattern)
        return evidence

    @property
    def limit(self) -> float:
        limit = self.above if self.above is not None else self.below
        assert limit is not None
        return limit

    def strength(self, figures: Mapping[str, float]) -> float | None:
        """0 at the limit, 1 from `strong` on; None where the rule does not apply."""
        value = figures[self.figure]
        if not Bound(above=self.above, below=self.below).holds(value):
            return None
        if not all(bound.holds(figures[name]) for name, bound in self.when.items()):
            return None
        return min(1.0, (value - self.limit) / (self.strong - self.limit))


def _check_pattern(pattern: str) -> None:
    if not (pattern[:1].isupper() and pattern.endswith(".")):
        raise ValueError(f"{pattern!r} must begin with a capital letter and end with a full stop")
    try:
        names = {name for _, name, _, _ in Formatter().parse(pattern) if name is not None}
        if names - PLACEHOLDERS:
            raise ValueError(f"unknown placeholder in {pattern!r}")
        pattern.format(value=1.0, limit=1.0, degree="", place="")
    except ValueError as error:
        known = ", ".join(sorted(PLACEHOLDERS))
        raise ValueError(f"{error}; placeholders in evidence are: {known}") from None


class Rules(Strict):
    """All rules of a recipe, and the words that they share."""

    degrees: tuple[str, ...] = Field(min_length=1)
    """adverbs from the weakest evidence to the strongest"""
    places: tuple[tuple[str, str, str], tuple[str, str, str], tuple[str, str, str]]
    """what to call the ninths of an image, row by row"""
    rules: tuple[Rule, ...] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """A finding with its strength (0..1) and the rules behind it, strongest first."""

    finding: TraceFinding
    strength: float
    rules: tuple[str, ...]


def read_rules(
    mapping: Any,
    *,
    categories: Collection[str],
    figures: Collection[str],
    places: Collection[str],
    where: str = "rehearsal.yaml",
) -> Rules:
    """Validate parsed rules against the taxonomy and against what can be measured."""
    rules = parse_model(mapping, Rules, where=where)
    problems = [p for rule in rules.rules for p in _explain(rule, categories, figures, places)]
    ids = [rule.id for rule in rules.rules]
    problems += [
        f"rule {twice} stands there twice" for twice in sorted(set(ids)) if ids.count(twice) > 1
    ]
    if problems:
        raise ConfigError(f"{where}: {'; '.join(problems)}")
    return rules


def _explain(
    rule: Rule, categories: Collection[str], figures: Collection[str], places: Collection[str]
) -> list[str]:
    """What is wrong with the names in a rule."""
    needs_place = any("{place" in pattern for pattern in rule.evidence)
    named = [("category", rule.category, categories)]
    named += [("figure", name, figures) for name in (rule.figure, *rule.when)]
    named += [("region", rule.region, places)] if rule.region is not None else []
    problems = [
        f"rule {rule.id}: no {kind} {name!r}; there are: {', '.join(known)}"
        for kind, name, known in named
        if name not in known
    ]
    if needs_place and rule.region is None:
        problems.append(f"rule {rule.id}: {{place}} in its evidence needs a region")
    return problems


def find(measured: Measured, rules: Rules, *, key: str) -> tuple[TraceFinding, ...]:
    """The findings that the figures bear out, strongest first, at most one in each category.

    `key`, the image's hash, chooses among the wordings.
    """
    return tuple(observation.finding for observation in observe(measured, rules, key=key))


def observe(measured: Measured, rules: Rules, *, key: str) -> tuple[Observation, ...]:
    """As `find`, with the strength of each finding.

    Where rules of one category disagree, the side of the strongest one is reported alone.
    """
    figures = measured.as_dict()
    hits = [(s, rule) for rule in rules.rules if (s := rule.strength(figures)) is not None]
    hits.sort(key=lambda hit: -hit[0])
    groups: dict[str, list[tuple[float, Rule]]] = {}
    for strength, rule in hits:
        group = groups.setdefault(rule.category, [])
        if not group or group[0][1].points_to is rule.points_to:
            group.append((strength, rule))
    return tuple(_report(group[:SENTENCES], measured, rules, key) for group in groups.values())


def _report(
    hits: Sequence[tuple[float, Rule]], measured: Measured, rules: Rules, key: str
) -> Observation:
    strength, lead = hits[0]
    sentences = [_write_sentence(rule, s, measured, rules, key) for s, rule in hits]
    regions = [measured.places[rule.region] for _, rule in hits if rule.region is not None]
    finding = TraceFinding(
        category=lead.category,
        evidence=" ".join(sentences),
        points_to=lead.points_to,
        region=regions[0] if regions else None,
    )
    return Observation(finding=finding, strength=strength, rules=tuple(r.id for _, r in hits))


def _write_sentence(rule: Rule, strength: float, measured: Measured, rules: Rules, key: str) -> str:
    pattern = rule.evidence[int(unit_interval("evidence", key, rule.id) * len(rule.evidence))]
    degree = rules.degrees[min(int(strength * len(rules.degrees)), len(rules.degrees) - 1)]
    place = "" if rule.region is None else _name_place(measured.places[rule.region], rules)
    value = measured.as_dict()[rule.figure]
    return pattern.format(value=value, limit=rule.limit, degree=degree, place=place)


def _name_place(region: Region, rules: Rules) -> str:
    left, top, right, bottom = region.bounding_box()
    row, column = (min(2, int(3 * (a + b) / 2)) for a, b in ((top, bottom), (left, right)))
    return rules.places[row][column]
