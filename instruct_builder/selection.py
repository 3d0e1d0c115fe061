"""Which chains enter a set, in which order, and what the manifest says of them. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from core.errors import ConfigError
from core.ids import content_id, seed_of, sha256_text
from core.recipe import General, Recipe, TeacherTerms, is_simulated
from core.records import ImageRecord, ReasoningChain, ReviewLevel, Source, Split
from core.sources import DEMO
from core.split import assign_splits
from instruct_builder.checks import NameFinder
from instruct_builder.general import FAMILY, FORM, fact_of, source_of
from instruct_builder.licence import derive_licence
from instruct_builder.manifest import (
    BuildFacts,
    FormFact,
    RecipeStamp,
    SourceFact,
    TeacherFact,
)
from instruct_builder.rewordings import Rewordings
from instruct_builder.templates import Templates

Pair = tuple[ReasoningChain, ImageRecord]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What is to be built."""

    recipe: Recipe
    templates: Templates
    seed: int
    arms: tuple[str, ...]
    min_review: ReviewLevel
    rows: int | None = None
    """in all; None: what the recipe allows from each chain"""
    rewordings: Rewordings | None = None
    """with which the chains say some of what they say"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A chain that enters the set, with its image and split."""

    chain: ReasoningChain
    image: ImageRecord
    split: Split


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The chains of a set in the order of their rows, and why others are not in it."""

    members: tuple[Member, ...]
    sources: tuple[Source, ...]
    names: NameFinder
    left_out: dict[str, int]
    """chains by reason"""
    editors: Mapping[str, frozenset[str]]
    """who reworded, by chain id"""
    topics: Mapping[str, str] = field(default_factory=dict)
    """what images show, by image id, as far as the recipe knows topics"""


def select(
    pairs: Sequence[Pair], sources: Sequence[Source], spec: Spec, forbidden: dict[str, int]
) -> Selection:
    """Set aside what cannot enter; order the rest by split, then by a hash that mixes all else."""
    pairs, editors = _reword(pairs, spec)
    names = _name_finder(pairs, spec, editors)
    reasons = [_objection(pair, spec, names) for pair in pairs]
    kept = [pair for pair, reason in zip(pairs, reasons, strict=True) if reason is None]
    splits = assign_splits([image for _, image in kept], spec.recipe.settings.split.plan())
    members = [
        Member(chain=chain, image=image, split=splits[image.image_id])
        for chain, image in kept
        if image.image_id in splits
    ]
    held_out = {"held-out generator outside the test groups": len(kept) - len(members)}
    left_out = Counter(reason for reason in reasons if reason is not None)
    left_out.update(forbidden | held_out)
    if not members:
        raise ConfigError(f"none of {len(pairs)} chains can enter the set: {in_words(left_out)}")
    places = {split: place for place, split in enumerate(Split)}
    members.sort(key=lambda m: (places[m.split], seed_of("order", spec.seed, m.image.image_id)))
    return Selection(
        members=tuple(members),
        sources=_used(sources, members),
        names=names,
        left_out={reason: number for reason, number in sorted(left_out.items()) if number},
        editors=editors,
    )


def _reword(
    pairs: Sequence[Pair], spec: Spec
) -> tuple[Sequence[Pair], Mapping[str, frozenset[str]]]:
    """The chains in other words where the build has any, and who reworded which."""
    if spec.rewordings is None:
        return pairs, {}
    reworded = [(*spec.rewordings.apply(chain, seed=spec.seed), image) for chain, image in pairs]
    editors = {chain.chain_id: models for chain, models, _ in reworded if models}
    return [(chain, image) for chain, _, image in reworded], editors


def leave_out(selection: Selection, image_ids: Collection[str], reason: str) -> Selection:
    """The same selection without some images; ConfigError when nothing would be left."""
    members = tuple(m for m in selection.members if m.image.image_id not in image_ids)
    if not members:
        raise ConfigError(f"none of the chains can enter the set: all are {reason}")
    number = len(selection.members) - len(members)
    reasons = selection.left_out | ({reason: number} if number else {})
    return replace(
        selection,
        members=members,
        sources=_used(selection.sources, members),
        left_out=dict(sorted(reasons.items())),
    )


def in_words(left_out: Counter[str]) -> str:
    """`12 name their generator; 3 ...`."""
    return "; ".join(f"{number} {reason}" for reason, number in sorted(left_out.items()) if number)


def _name_finder(
    pairs: Sequence[Pair], spec: Spec, editors: Mapping[str, frozenset[str]]
) -> NameFinder:
    names = {name for chain, _ in pairs for name in chain.teachers}.union(*editors.values())
    names |= {image.source for _, image in pairs}
    names |= {image.generator for _, image in pairs if image.generator}
    return NameFinder(names, spec.templates, spec.recipe.taxonomy)


def _objection(pair: Pair, spec: Spec, names: NameFinder) -> str | None:
    """Why a chain cannot enter, if it cannot."""
    chain, image = pair
    if any(f.category not in spec.recipe.taxonomy for f in chain.reasoning.supporting()):
        return "with a trace category that the recipe does not have"
    if names.find_in_chain(chain, image):
        return "with a text that names a generator, source, teacher or file"
    return None


def _used(sources: Sequence[Source], members: Sequence[Member]) -> tuple[Source, ...]:
    used = {member.image.source for member in members}
    return tuple(source for source in sources if source.name in used)


def state_facts(selection: Selection, spec: Spec) -> BuildFacts:
    """All of the manifest that is known before a row is made; the checks are still missing."""
    chains = [member.chain for member in selection.members]
    counted = Counter(name for chain in chains for name in chain.teachers)
    levels = {member.chain.review_level for member in selection.members}
    edited = Counter(
        model for m in selection.members for model in selection.editors.get(m.chain.chain_id, ())
    )
    general = spec.recipe.settings.build.general
    sources = _source_facts(selection.sources, general)
    teachers = _teacher_facts(counted, spec.recipe)
    editors = _teacher_facts(edited, spec.recipe)
    return BuildFacts(
        recipe=RecipeStamp(name=spec.recipe.name, digest=spec.recipe.digest),
        builder_digest=_builder_digest(),
        seed=spec.seed,
        chains_digest=_chains_digest(selection),
        arms=spec.arms,
        min_review=spec.min_review,
        rows_asked=spec.rows,
        simulated=any(map(is_simulated, counted)),
        statement=_statement(chains, levels),
        teachers=teachers,
        editors=editors,
        rewordings=None if spec.rewordings is None else spec.rewordings.sha256,
        simulated_generators=_simulated(selection.members, spec.recipe),
        sources=sources,
        licence=derive_licence(sources, _all_of(teachers, editors)),
        general=general and fact_of(general),
        forms={
            name: FormFact(family=family, targets=form.targets, states_verdict=form.states_verdict)
            for family, name, form in spec.templates.forms()
        }
        | ({FAMILY: FORM} if general else {}),
        left_out=selection.left_out,
        checks={},
    )


def _source_facts(sources: Sequence[Source], general: General | None) -> tuple[SourceFact, ...]:
    facts = tuple(SourceFact(**asdict(source)) for source in sources)
    if general and any(fact.name == general.name for fact in facts):
        raise ConfigError(f"build.general.name: {general.name!r} is a source of images already")
    return (*facts, source_of(general)) if general else facts


def _teacher_facts(counted: Counter[str], recipe: Recipe) -> tuple[TeacherFact, ...]:
    """The teachers with their terms; a ConfigError for one whose words may not be trained on."""
    facts = []
    for name, chains in sorted(counted.items()):
        terms = recipe.settings.teachers.get(name, TeacherTerms())
        if not terms.may_train:
            raise ConfigError(
                f"recipe {recipe.name}: the words of teacher {name} may not be used for training "
                f"(licence: {terms.licence}); build the chains of another arm"
            )
        facts.append(
            TeacherFact(
                name=name, simulated=is_simulated(name), chains=chains, **terms.model_dump()
            )
        )
    return tuple(facts)


def _all_of(
    teachers: Sequence[TeacherFact], editors: Sequence[TeacherFact]
) -> tuple[TeacherFact, ...]:
    """Each model once, whether it drafted, reworded or both."""
    return tuple({fact.name: fact for fact in (*editors, *teachers)}.values())


def _simulated(members: Sequence[Member], recipe: Recipe) -> tuple[str, ...]:
    used = {member.image.generator for member in members if member.image.source == DEMO}
    return tuple(name for name in sorted(recipe.settings.demo.generators) if name in used)


def _chains_digest(selection: Selection) -> str:
    """Over the ordered chains, their images, topics and splits: whatever can change the set."""
    lines = (
        content_id("row", m.chain.chain_id, m.image.path, m.image.sha256, m.image.label,
                   m.image.generator, m.image.source, m.image.cluster, m.image.group, m.split,
                   *filter(None, [selection.topics.get(m.image.image_id)]))
        for m in selection.members
    )  # fmt: skip
    return sha256_text("\n".join(lines))


def _builder_digest() -> str:
    """Over the code of this package: other code may make other rows of the same chains."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.*")):
        if path.suffix in (".py", ".jinja"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _statement(chains: Sequence[ReasoningChain], levels: set[ReviewLevel]) -> str:
    """Who looked at the images, in a few words."""
    alone = {chain.teacher for chain in chains if not chain.merged_teachers}
    panel = {name for chain in chains for name in chain.merged_teachers}
    kinds = {_kind(name) for name in alone}
    if panel:
        are = " and ".join(sorted({f"{_kind(name)}s" for name in panel}))
        kinds.add(f"{len(panel)} {are} whose votes were counted")
    drafted = " and ".join(sorted(kinds))
    if ReviewLevel.DRAFT not in levels:
        return f"{drafted}, checked by experts"
    return f"{drafted}, {'no expert' if len(levels) == 1 else 'some chains checked by experts'}"


def _kind(teacher: str) -> str:
    return "simulated teacher" if is_simulated(teacher) else "teacher model"
