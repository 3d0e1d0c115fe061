"""The false-trace control: what a teacher says about photographs whose label it was not told.

Every trace of generation that it names on a photograph is invented. How often it does that, and in
which categories, tells how far its drafts about fakes can be believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from core.errors import ConfigError
from core.recipe import Arm, Recipe
from core.records import Authenticity, Draft
from db.engine import Database
from db.ledger import drafts
from db.work import campaign_id_of, set_aside


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many of the photographs, with Wilson's 95 % interval of the share."""

    count: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What one control arm showed."""

    arm: str
    teacher: str
    model: str
    photographs: int
    """judged without their label"""
    set_aside: int
    """whose replies could not be used"""
    called_fake: Rate
    with_invented_traces: Rate
    """at least one finding points to `fake`, whatever the verdict"""
    invented: dict[str, Rate]
    """the same by trace category, the most frequent first"""


def measure_controls(database: Database, recipe: Recipe) -> list[Control]:
    """One report per control arm; ConfigError when there is none, or one without a draft."""
    arms = [arm for arm in recipe.arms if arm.control]
    if not arms:
        raise ConfigError(
            f"recipe {recipe.name} has no control arm: add one to drafting.arms in "
            f"{recipe.folder / 'recipe.yaml'}, with `control: true`"
        )
    return [_measure(database, recipe, arm) for arm in arms]


def as_text(control: Control) -> Iterator[str]:
    """Lines for people."""
    yield (
        f"arm {control.arm}, {control.model} at {control.teacher}: {control.photographs} "
        f"photographs judged without their label, {control.set_aside} set aside"
    )
    yield f"called fake: {_in_words(control.called_fake)}"
    yield f"with invented traces: {_in_words(control.with_invented_traces)}"
    for category, rate in control.invented.items():
        yield f"  {category}: {_in_words(rate)}"


def _measure(database: Database, recipe: Recipe, arm: Arm) -> Control:
    campaign_id = campaign_id_of(recipe)
    with database.read() as session:
        counts = _count(drafts(session, campaign_id, arm.name))
        num_aside = len(set_aside(session, campaign_id, arm.name))
    if not counts.photographs:
        raise ConfigError(f"arm {arm.name} has no draft yet: run `python -m generation draft`")
    return Control(
        arm=arm.name,
        teacher=arm.teacher,
        model=arm.model,
        photographs=counts.photographs,
        set_aside=num_aside,
        called_fake=_rate(counts.called_fake, counts.photographs),
        with_invented_traces=_rate(counts.with_traces, counts.photographs),
        invented={
            category: _rate(count, counts.photographs)
            for category, count in sorted(counts.invented.items(), key=lambda i: (-i[1], i[0]))
        },
    )


@dataclass(slots=True, kw_only=True)
class _Counts:
    """Photographs, each counted once per line."""

    photographs: int = 0
    called_fake: int = 0
    with_traces: int = 0
    invented: Counter[str]


def _count(found: Iterable[Draft]) -> _Counts:
    counts = _Counts(invented=Counter())
    for draft in found:
        findings = draft.reasoning.findings
        categories = {f.category for f in findings if f.points_to is Authenticity.FAKE}
        counts.photographs += 1
        counts.called_fake += draft.reasoning.verdict is Authenticity.FAKE
        counts.with_traces += bool(categories)
        counts.invented.update(categories)
    return counts


def _rate(count: int, total: int) -> Rate:
    from scipy.stats import binomtest

    interval = binomtest(count, total).proportion_ci(method="wilson")
    return Rate(count=count, share=count / total, low=interval.low, high=interval.high)


def _in_words(rate: Rate) -> str:
    return f"{rate.count} ({rate.share:.1%}, 95 % interval {rate.low:.1%} to {rate.high:.1%})"
