"""The use case: the chains of a database become a published shard set."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np

from core.errors import ConfigError
from core.ids import seed_of, sha256_text
from core.recipe import Audit, Recipe
from core.records import BenchmarkImage, ReviewLevel, Source, Split
from core.sources import choose_sources
from core.split import connect
from core.topics import topic_among
from db.benchmarks import benchmark_images, relatives
from db.chains import count_chains, newest_chains
from db.engine import Database
from db.images import sources as read_sources
from db.tombstones import tombstones_by_hash, withdrawn_chains
from db.topics import topics_among
from db.work import campaign_id_of
from imaging.overlaps import Kinship, find_overlaps, overlap_warning
from imaging.shortcuts import TooFew, measure_metadata
from imaging.store import ImageStore
from instruct_builder.baseline import TextBaseline
from instruct_builder.card import CARD, load_card_writer, render_card
from instruct_builder.checks import (
    Balance,
    Checks,
    Figures,
    NoNames,
    Options,
    Overlaps,
    Planned,
    RightAnswers,
    Shortcuts,
    Splits,
    UniqueRows,
)
from instruct_builder.columns import Positions, columns_of
from instruct_builder.croissant import CROISSANT, render_croissant
from instruct_builder.general import Apart, GeneralCheck, read_general
from instruct_builder.hashing import scramble
from instruct_builder.making import Hands, Making
from instruct_builder.manifest import BuildFacts, CheckFact, Manifest
from instruct_builder.memory import give_back, uncollected
from instruct_builder.plan import Plan, TooFewRowsError, explain_capacity, quotas_of
from instruct_builder.preview import PREVIEW, Scenes, render_preview
from instruct_builder.questions import VerdictQuestions
from instruct_builder.repetition import NearDuplicates
from instruct_builder.rewordings import Rewordings
from instruct_builder.selection import Member, Pair, Selection, Spec, leave_out, select, state_facts
from instruct_builder.shards import ShardWriter, instructions_of, locked, published
from instruct_builder.staging import FOLDER as STAGING
from instruct_builder.staging import Part, Range, Staging, with_general
from instruct_builder.stopwatch import Spent, Stopwatch
from instruct_builder.templates import read_templates
from instruct_builder.topics import TOPICS, topics_bytes
from instruct_builder.vagueness import Vague
from instruct_builder.variety import Variety
from instruct_builder.verdict_before import VerdictBefore
from instruct_builder.words import ImageColumns, Words, image_columns

CHECKED_ROWS = 16_384
"""rows that are looked at together"""
RECIPE = "recipe.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSummary:
    """What a build did."""

    folder: Path
    manifest: Manifest
    unchanged: bool
    """the set was there already and nothing was written"""
    spent: Mapping[str, Spent]
    """by part: reading, planning, making, checking, publishing"""


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
    rows: int | None = None,
    rewordings: Path | None = None,
    making: Making | None = None,
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
        rows=rows or recipe.settings.build.rows,
        rewordings=None if rewordings is None else Rewordings.read(rewordings),
    )
    audit = recipe.settings.audit
    making = making or Making()
    watch = making.stopwatch
    with watch.part("reading"), uncollected():
        selection = _read_chains(database, spec, source)
    stops = (release or audit.on_shortcut == "stop") and not accept_shortcuts
    with making.hands(_expected_shards(selection, spec)) as hands:
        if published(out) is None:
            hands.wake()
        with watch.part("reading"), uncollected():
            selection, overlaps = _find_overlaps(database, selection, audit)
            facts = _state_facts(database, selection, spec, overlaps)
        if (release or audit.on_overlap == "stop") and not accept_overlaps:
            _refuse_overlaps(facts)
        with locked(out):
            if (present := _find_present(out, facts)) is not None:
                _refuse_shortcuts(present.checks, stops=stops)
                return BuildSummary(folder=out, manifest=present, unchanged=True, spent=watch.spent)
            shortcuts = _find_shortcuts(selection, audit, watch) if stops else None
            _refuse_shortcuts(shortcuts or {}, stops=stops)
            apart = _keep_apart(database, selection, spec) if facts.general else None
            staging = Staging(out / STAGING)
            with watch.part("planning"), uncollected():
                _plan(staging, selection, spec, facts, store, hands, apart)
            with watch.part("making"):
                hands.begin(staging)
                load_card_writer()
                hands.make(staging)
            with watch.part("checking"):
                found = _check(staging, selection, spec, making).facts()
            found |= facts.checks | (shortcuts or _find_shortcuts(selection, audit, watch))
            with watch.part("publishing"), uncollected():
                checked = facts.model_copy(update={"checks": found})
                manifest = _publish(out, staging, selection, spec, checked, store)
    return BuildSummary(folder=out, manifest=manifest, unchanged=False, spent=watch.spent)


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
        said = topics_among(session, [image.image_id for _, image in pairs])
    selection = select(pairs, [chains.known[name] for name in allowed], spec, forbidden)
    found = {image_id: topic_among(spec.recipe.topics, words) for image_id, words in said.items()}
    return replace(selection, topics={i: topic.id for i, topic in found.items() if topic})


def _state_facts(
    database: Database, selection: Selection, spec: Spec, overlaps: Overlaps
) -> BuildFacts:
    known = {
        "checks": Checks([overlaps]).facts(),
        "tombstones": _read_tombstones(database, spec),
    }
    return state_facts(selection, spec).model_copy(update=known)


def _read_tombstones(database: Database, spec: Spec) -> tuple[str, ...]:
    """The images that would be in the set had they not been withdrawn."""
    with database.read() as session:
        return tuple(withdrawn_chains(session, campaign_id_of(spec.recipe), spec.arms))


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


def _keep_apart(database: Database, selection: Selection, spec: Spec) -> Apart:
    """What general instructions may not be about, nor say."""
    held_out = [m for m in selection.members if m.split is not Split.TRAIN]
    with database.read() as session:
        benchmarks = list(benchmark_images(session))

    def withdrawn(hashes: Collection[str]) -> Collection[str]:
        with database.read() as session:
            return tombstones_by_hash(session, hashes)

    return Apart(
        images={member.image.image_id for member in selection.members},
        kept_back=[*(_as_benchmark(m) for m in held_out), *benchmarks],
        withdrawn=withdrawn,
        names=selection.names,
        questions=VerdictQuestions(spec.templates),
    )


def _as_benchmark(member: Member) -> BenchmarkImage:
    image = member.image
    return BenchmarkImage(
        benchmark=member.split,
        name=image.image_id,
        sha256=image.original_sha256,
        phash=image.phash,
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


def _find_shortcuts(selection: Selection, audit: Audit, watch: Stopwatch) -> dict[str, CheckFact]:
    with watch.part("checking"):
        return Checks([Shortcuts(_measure_shortcuts(selection, audit))]).facts()


def _refuse_shortcuts(checks: Mapping[str, CheckFact], *, stops: bool) -> None:
    """A set whose metadata gives the answer away is not published where that matters."""
    found = checks.get(Shortcuts.name)
    warning = found and found.figures.get("warning")
    if warning and stops:
        raise ConfigError(
            f"{warning}. Nothing was published: make photographs and fakes alike in format, size "
            "and JPEG quality, or pass --accept-shortcuts to `python -m instruct_builder build`"
        )


def _expected_shards(selection: Selection, spec: Spec) -> int:
    settings = spec.recipe.settings.build
    rows = spec.rows or len(selection.members) * sum(settings.rows_per_chain.values())
    return max(1, rows // settings.rows_per_shard)


def _publish(
    out: Path,
    staging: Staging,
    selection: Selection,
    spec: Spec,
    facts: BuildFacts,
    store: ImageStore,
) -> Manifest:
    """Give what was made its place and its documents; the manifest comes last."""
    with ShardWriter(out, rows_per_shard=spec.recipe.settings.build.rows_per_shard) as writer:
        used = staging.plan.chain[staging.plan.row_starts[:-1]].tolist()
        writer.add_images((selection.members[i].image, selection.members[i].split) for i in used)
        if staging.general is not None:
            writer.add_images((image, Split.TRAIN) for image in staging.general.images)
        scenes = _scenes(staging, selection, spec)
        for number in range(len(staging.ranges)):
            writer.adopt(staging.make_shard(number))
        writer.add_document(RECIPE, _recipe_bytes(spec.recipe))
        writer.add_document(CARD, render_card(writer.manifest(facts)))
        writer.add_document(CROISSANT, render_croissant(writer.manifest(facts)))
        page = render_preview(scenes, writer.manifest(facts), spec.recipe.taxonomy, store.read)
        writer.add_document(PREVIEW, page)
        if spec.recipe.topics:
            writer.add_document(TOPICS, topics_bytes(selection.topics))
        manifest = writer.publish(facts)
    staging.clear()
    return manifest


def _prepare(staging: Staging, digest: str, selection: Selection, spec: Spec) -> None:
    """Write down what rows are planned and made from."""
    members, settings = selection.members, spec.recipe.settings.build
    taxonomy = spec.recipe.taxonomy
    groups = [(split, len([*group])) for split, group in groupby(m.split for m in members)]
    sizes = [size for _, size in groups]
    quotas = quotas_of(sizes, spec.rows, settings.shares or spec.templates.caps)
    parts = [
        Part(split=split, start=stop - size, stop=stop, quota=quota)
        for (split, size), stop, quota in zip(groups, accumulate(sizes), quotas, strict=True)
    ]
    staging.prepare(
        digest,
        columns_of((member.chain for member in members), taxonomy),
        _image_columns(members),
        Words(spec.templates, taxonomy),
        parts,
        seed=spec.seed,
        rows_per_shard=settings.rows_per_shard,
    )


def _plan(
    staging: Staging,
    selection: Selection,
    spec: Spec,
    facts: BuildFacts,
    store: ImageStore,
    hands: Hands,
    apart: Apart | None,
) -> None:
    """Decide every row of the set, and which rows make a shard."""
    digest = sha256_text(facts.model_copy(update={"checks": {}}).model_dump_json())
    if not staging.is_for(digest):
        _prepare(staging, digest, selection, spec)
        give_back()
    if staging.is_complete:
        return
    settings, numbers = spec.recipe.settings.build, range(len(staging.parts))
    try:
        hands.plan(staging, go_on=apart is None)
    except TooFewRowsError:
        explain_capacity([*map(staging.asker, numbers)], [part.quota for part in staging.parts])
    ranges = [each for number in numbers for each in staging.ranges_of_part(number)]
    general = None
    if settings.general and apart:
        general = read_general(settings.general, _train_rows(ranges), store, apart, seed=spec.seed)
        order, rows = settings.general.order, settings.rows_per_shard
        ranges = with_general(ranges, general.table, order, rows)
    staging.complete(ranges, general)


def _train_rows(ranges: Sequence[Range]) -> int:
    """To train on, without general ones."""
    return sum(each.stop - each.start for each in ranges if each.split is Split.TRAIN)


def _image_columns(members: Sequence[Member]) -> ImageColumns:
    return image_columns(
        {
            "chain_id": [m.chain.chain_id for m in members],
            "image_id": [m.image.image_id for m in members],
            "image_path": [m.image.path for m in members],
            "image_sha256": [m.image.sha256 for m in members],
            "label": [m.image.label for m in members],
            "generator": [m.image.generator for m in members],
            "source": [m.image.source for m in members],
            "split": [m.split for m in members],
            "review_level": [m.chain.review_level for m in members],
        }
    )


def _check(staging: Staging, selection: Selection, spec: Spec, making: Making) -> Checks:
    """Look at the whole plan, and at the rows of a sample of the images."""
    checks = _make_checks(selection, spec, staging)
    plan = staging.plan
    checks.see_plan(Planned(plan, staging.chains, staging.images, staging.words))
    wanted = len(plan) if making.check_all else spec.recipe.settings.checks.sample_rows
    for rows in _sampled(plan, staging, spec.seed, wanted):
        checks.see_rows(staging.picked_rows(rows))
    return checks


def _sampled(plan: Plan, staging: Staging, seed: int, wanted: int) -> Iterator[Positions]:
    """Rows of whole images, about so many in all, some at a time; drawn by hash."""
    starts = plan.row_starts
    lengths = np.diff(starts)
    chosen = np.arange(len(lengths))
    if wanted < len(plan):
        upper = staging.chains.upper[plan.chain[starts[:-1]]]
        order = np.argsort(scramble(upper ^ np.uint64(seed_of("sample", seed))), kind="stable")
        number = int(np.searchsorted(np.cumsum(lengths[order]), wanted)) + 1
        chosen = np.sort(order[:number])
    part = np.cumsum(lengths[chosen]) // CHECKED_ROWS
    for images in np.split(chosen, np.flatnonzero(np.diff(part)) + 1):
        yield np.concatenate([np.arange(starts[i], starts[i + 1]) for i in images])


def _scenes(staging: Staging, selection: Selection, spec: Spec) -> Scenes:
    """The instructions of the images that the preview shows."""
    scenes = Scenes(selection.members, spec.recipe.settings.demo.preview_images)
    shown = {member.image.image_id for member in scenes.members}
    for at, member in enumerate(selection.members):
        if (image_id := member.image.image_id) in shown:
            scenes.instructions[image_id] = instructions_of(staging.rows_of(at))
    return scenes


def _make_checks(selection: Selection, spec: Spec, staging: Staging) -> Checks:
    images = [(member.image, member.split) for member in selection.members]
    general = staging.general
    others = [(image, Split.TRAIN) for image in general.images] if general else []
    limits, holdout = spec.recipe.settings.checks, spec.recipe.settings.split.holdout_generators
    phrases = limits.vague_phrases
    component_of = connect((image.group, image.cluster) for image, _ in images)
    return Checks(
        [
            Splits([*images, *others], holdout, most=limits.in_two_splits),
            UniqueRows(most=limits.repeated),
            RightAnswers(spec.templates, most=limits.wrong_answers),
            Options(spec.recipe.taxonomy, most=limits.wrong_options),
            NoNames(selection.names, most=limits.names),
            Balance(spec.templates, uneven_by=limits.uneven_by),
            TextBaseline(
                spec.templates,
                {image.image_id: component_of[image.group] for image, _ in images},
                most_auc=limits.text_only_auc,
            ),
            VerdictBefore(spec.templates, most_share=limits.verdict_before),
            NearDuplicates(most_rows=limits.near_rows, most_images=limits.alike_images),
            Variety(most_share=limits.pattern_share),
            *([Vague(phrases, most_share=limits.vague_share)] if phrases else []),
            *([GeneralCheck(general, _train_rows(staging.ranges))] if general else []),
        ]
    )


def _recipe_bytes(recipe: Recipe) -> bytes:
    """The resolved recipe, without the folders that it and a general set came from."""
    values = recipe.model_dump(mode="json", exclude={"folder"})
    if recipe.settings.build.general is not None:
        named = values["settings"]["build"]["general"]
        named |= {key: Path(named[key]).name for key in ("file", "images")}
    return (json.dumps(values, indent=2, ensure_ascii=False, sort_keys=True) + "\n").encode()
