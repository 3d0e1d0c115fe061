"""The use case: the chains of a database become a published shard set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

from core.errors import ConfigError
from core.recipe import Audit, Recipe
from core.records import ReviewLevel, Source, Split
from core.sources import choose_sources
from db.benchmarks import benchmark_images, relatives
from db.chains import count_chains, newest_chains
from db.engine import Database
from db.images import sources as read_sources
from db.work import campaign_id_of
from imaging.overlaps import Kinship, find_overlaps, overlap_warning
from imaging.shortcuts import TooFew, measure_metadata
from imaging.store import ImageStore
from instruct_builder.card import CARD, render_card
from instruct_builder.checks import (
    Balance,
    Checks,
    Figures,
    NoNames,
    Options,
    Overlaps,
    RightAnswers,
    Shortcuts,
    Splits,
    UniqueRows,
)
from instruct_builder.expand import expand_chain
from instruct_builder.families import Plan, plan_asks
from instruct_builder.manifest import BuildFacts, Manifest
from instruct_builder.preview import PREVIEW, Scenes, render_preview
from instruct_builder.selection import Member, Pair, Selection, Spec, leave_out, select, state_facts
from instruct_builder.shards import (
    Placed,
    ShardWriter,
    locked,
    published,
    rows_table,
)
from instruct_builder.templates import read_templates

BLOCK = 500
"""chains that are expanded at a time"""
RECIPE = "recipe.json"

Report = Callable[[int, int], None]
"""chains done, chains in all"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """What a build did."""

    folder: Path
    manifest: Manifest
    unchanged: bool
    """the set was there already and nothing was written"""


def build(  # noqa: PLR0913 - a use case and its options
    database: Database,
    recipe: Recipe,
    store: ImageStore,
    out: Path,
    *,
    min_review: ReviewLevel | None = None,
    seed: int | None = None,
    source: str | None = None,
    arm: str | None = None,
    release: bool = False,
    accept_shortcuts: bool = False,
    accept_overlaps: bool = False,
    report: Report | None = None,
) -> BuildSummary:
    """Build a shard set in `out`, or do nothing when it is there already.

    What is not given comes from the recipe. Chains of the demo are left out as soon as other
    sources have chains, unless `source` names it. Raises ConfigError when there is nothing to
    build, the folder cannot be written, or metadata tells real from fake or a benchmark holds
    images to train on in a `release` (in any build, if the recipe says so) and that is not
    accepted; PermanentError when a check fails.
    """
    spec = Spec(
        recipe=recipe,
        templates=read_templates(recipe),
        seed=recipe.settings.build.seed if seed is None else seed,
        arms=(arm,) if arm else recipe.settings.drafting.chain_arms,
        min_review=min_review or recipe.settings.review.min_review,
    )
    audit = recipe.settings.audit
    selection = _read_chains(database, spec, source)
    selection, overlaps = _find_overlaps(database, selection, audit)
    facts = state_facts(selection, spec).model_copy(update={"checks": Checks([overlaps]).facts()})
    if (release or audit.on_overlap == "stop") and not accept_overlaps:
        _refuse_overlaps(facts)
    stops = (release or audit.on_shortcut == "stop") and not accept_shortcuts
    with locked(out):
        if (present := _find_present(out, facts)) is not None:
            _refuse_shortcuts(present, stops=stops)
            return BuildSummary(folder=out, manifest=present, unchanged=True)
        shortcuts = Shortcuts(_measure_shortcuts(selection, audit))
        facts = facts.model_copy(update={"checks": Checks([overlaps, shortcuts]).facts()})
        _refuse_shortcuts(facts, stops=stops)
        manifest = _write(out, selection, spec, facts, store, report or _report_nothing)
    return BuildSummary(folder=out, manifest=manifest, unchanged=False)


def _report_nothing(done: int, total: int) -> None:
    """For callers that show no progress."""


@dataclass(frozen=True, slots=True)
class _Chains:
    """The newest chains of the arms of a set, as the database has them."""

    count: Callable[..., int]
    read: Callable[..., Iterator[Pair]]
    known: dict[str, Source]


def _read_chains(database: Database, spec: Spec, source: str | None) -> Selection:
    campaign_id = campaign_id_of(spec.recipe)
    with database.read() as session:
        chains = _Chains(
            partial(count_chains, session, campaign_id=campaign_id, arms=spec.arms),
            partial(newest_chains, session, campaign_id=campaign_id, arms=spec.arms),
            read_sources(session),
        )
        names = _choose(chains, source)
        forbidden = _forbid(chains, names, spec, source)
        allowed = [name for name in names if chains.known[name].may_train]
        pairs = list(chains.read(min_review=spec.min_review, sources=allowed))
        if not pairs:
            raise ConfigError(_explain_nothing(chains, allowed, spec))
    return select(pairs, [chains.known[name] for name in allowed], spec, forbidden)


def _choose(chains: _Chains, source: str | None) -> Sequence[str]:
    """The source asked for; else all that have chains, but the demo only when it is alone."""
    if source is not None:
        return choose_sources(chains.known, source)
    return choose_sources([name for name in chains.known if chains.count(sources=[name])], None)


def _forbid(
    chains: _Chains, names: Sequence[str], spec: Spec, source: str | None
) -> dict[str, int]:
    """Chains of sources that may not be trained on, by reason; asked for by name, an error."""
    forbidden = [name for name in names if not chains.known[name].may_train]
    if forbidden and (source is not None or len(forbidden) == len(names)):
        raise ConfigError(
            f"source {forbidden[0]!r} may not be used for training "
            f"(licence: {chains.known[forbidden[0]].licence}); build from another source"
        )
    return {
        f"of source {name}, which may not be used for training": chains.count(
            min_review=spec.min_review, sources=[name]
        )
        for name in forbidden
    }


def _explain_nothing(chains: _Chains, names: Sequence[str], spec: Spec) -> str:
    """How many chains there are at lower levels, and what to pass to get them."""
    there = {level: chains.count(min_review=level, sources=names) for level in ReviewLevel}
    lower = [level for level in ReviewLevel if level.rank < spec.min_review.rank and there[level]]
    if not lower:
        return (
            f"recipe {spec.recipe.name}, arm {', '.join(spec.arms)}: there is no chain yet; "
            "`make build-instruct` drafts and chains before it builds"
        )
    best = lower[-1]
    return (
        f"no chain has reached review level {spec.min_review}, {there[best]} are at {best}; "
        f"review them first, or pass --min-review {best} (make: MIN_REVIEW={best})"
    )


def _find_present(out: Path, facts: BuildFacts) -> Manifest | None:
    """The manifest of the set in `out`, if it is the one that would be built."""
    present = published(out)
    if present is None:
        return None
    same = all(
        getattr(present, name) == getattr(facts, name)
        for name in BuildFacts.model_fields
        if name != "checks"
    )
    measured = all(present.checks.get(name) == fact for name, fact in facts.checks.items())
    return present if same and measured else None


def _find_overlaps(
    database: Database, selection: Selection, audit: Audit
) -> tuple[Selection, Overlaps]:
    """What benchmarks hold of the images to train on; left out of the selection if so told.

    The test split may overlap: nothing is learnt from it.
    """
    trained = [member.image for member in selection.members if member.split is not Split.TEST]
    with database.read() as session:
        benchmarks = list(benchmark_images(session))
        found = find_overlaps(
            trained, benchmarks, relatives=relatives(session, trained) if benchmarks else ()
        )
    figures: Figures = {"benchmarks": len({image.benchmark for image in benchmarks})}
    for kinship in Kinship:
        images = {overlap.image_id for overlap in found if overlap.kinship is kinship}
        figures[f"images_{kinship.name.lower()}"] = len(images)
    if audit.on_overlap == "leave_out":
        ids = {overlap.image_id for overlap in found}
        figures["left_out"] = len(ids)
        return leave_out(selection, ids, "in a registered benchmark too"), Overlaps(figures)
    if found and audit.on_overlap != "ignore":
        figures["warning"] = overlap_warning(found)
    return selection, Overlaps(figures)


def _refuse_overlaps(facts: BuildFacts) -> None:
    """A set that was trained on what it will be tested with is not published where that matters."""
    if warning := str(facts.checks[Overlaps.name].figures.get("warning", "")):
        raise ConfigError(
            f"{warning}. Nothing was published: let the recipe leave these images out (`audit: "
            "on_overlap: leave_out`), or pass --accept-overlaps to `python -m instruct_builder "
            "build`"
        )


def _measure_shortcuts(selection: Selection, audit: Audit) -> Figures:
    score = measure_metadata(member.image for member in selection.members)
    if isinstance(score, TooFew):
        return {"too_few": score.reason, "threshold": audit.metadata_auc}
    figures: Figures = {
        "photographs": score.real,
        "fakes": score.fake,
        "independent_groups": score.components,
        "metadata_auc": score.auc,
        "low": score.low,
        "high": score.high,
        "threshold": audit.metadata_auc,
    }
    figures.update({f"auc_of_{name.replace(' ', '_')}": auc for name, auc in score.alone.items()})
    if audit.on_shortcut != "ignore" and score.low > audit.metadata_auc:
        figures["warning"] = score.warning(audit.metadata_auc)
    return figures


def _refuse_shortcuts(facts: BuildFacts, *, stops: bool) -> None:
    """A set whose metadata gives the answer away is not published where that matters."""
    warning = str(facts.checks[Shortcuts.name].figures.get("warning", ""))
    if warning and stops:
        raise ConfigError(
            f"{warning}. Nothing was published: make photographs and fakes alike in format, size "
            "and JPEG quality, or pass --accept-shortcuts to `python -m instruct_builder build`"
        )


def _write(
    out: Path,
    selection: Selection,
    spec: Spec,
    facts: BuildFacts,
    store: ImageStore,
    report: Report,
) -> Manifest:
    """Make the rows, check them, and only then publish."""
    checks = _make_checks(selection, spec)
    scenes = Scenes(selection.members, spec.recipe.settings.demo.preview_images)
    with ShardWriter(out, rows_per_shard=spec.recipe.settings.build.rows_per_shard) as writer:
        for placed in _expand(selection, spec, report):
            table = rows_table(placed)
            checks.see(table)
            writer.add_rows(table)
            writer.add_images((item.image, item.split) for item in placed)
            scenes.see(placed)
        checked = facts.model_copy(update={"checks": checks.facts() | facts.checks})
        writer.add_document(RECIPE, _recipe_bytes(spec.recipe))
        writer.add_document(CARD, render_card(writer.manifest(checked)))
        page = render_preview(scenes, writer.manifest(checked), spec.recipe.taxonomy, store.read)
        writer.add_document(PREVIEW, page)
        return writer.publish(checked)


def _make_checks(selection: Selection, spec: Spec) -> Checks:
    chains = [member.chain for member in selection.members]
    images = [(member.image, member.split) for member in selection.members]
    return Checks(
        [
            Splits(images, spec.recipe.settings.split.holdout_generators),
            UniqueRows(),
            RightAnswers(spec.templates, chains),
            Options(spec.templates, spec.recipe.taxonomy, chains),
            NoNames(selection.names),
            Balance(spec.templates),
        ]
    )


def _expand(selection: Selection, spec: Spec, report: Report) -> Iterator[list[Placed]]:
    """Rows of the members in their order; each split is planned, and so balanced, by itself."""
    done = 0
    for _, group in groupby(selection.members, key=lambda member: member.split):
        members = list(group)
        chains = [member.chain for member in members]
        plan = plan_asks(chains, spec.templates, spec.recipe.taxonomy, seed=spec.seed)
        for start in range(0, len(members), BLOCK):
            placed = [_place(member, plan) for member in members[start : start + BLOCK]]
            yield [item for item in placed if item.instructions]
            done += len(placed)
            report(done, len(selection.members))


def _place(member: Member, plan: Plan) -> Placed:
    return Placed(
        image=member.image,
        split=member.split,
        review_level=member.chain.review_level,
        instructions=expand_chain(member.chain, member.image, plan),
    )


def _recipe_bytes(recipe: Recipe) -> bytes:
    """The resolved recipe, without the folder that it came from."""
    values = recipe.model_dump(mode="json", exclude={"folder"})
    return (json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()
