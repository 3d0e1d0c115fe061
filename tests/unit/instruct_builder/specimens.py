"""Chains and shard sets that the tests of the instruction builder start from."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from core.ids import content_id
from core.recipe import DEFAULT_RECIPE, Recipe, load_recipe
from core.records import (
    Authenticity,
    Confidence,
    ImageRecord,
    Instruction,
    Reasoning,
    ReasoningChain,
    Region,
    ReviewLevel,
    Split,
    TraceFinding,
)
from core.sentences import as_sentences
from instruct_builder.columns import Chains, columns_of
from instruct_builder.manifest import (
    BuildFacts,
    FormFact,
    LicenceFact,
    RecipeStamp,
    SourceFact,
    TeacherFact,
)
from instruct_builder.plan import Plan, make_plan
from instruct_builder.shards import Manifest, Placed, instructions_of, rows_table, write_shards
from instruct_builder.templates import Templates, read_templates
from instruct_builder.words import ImageColumns, Words, image_columns
from tests.unit.records import make_image

Pair = tuple[ReasoningChain, ImageRecord]
CORNER = Region(points=((0.05, 0.1), (0.3, 0.1), (0.3, 0.25), (0.05, 0.25)))


@cache
def recipe() -> Recipe:
    return load_recipe(DEFAULT_RECIPE)


@cache
def templates() -> Templates:
    return read_templates(recipe())


def make_pair(
    name: str,
    label: Authenticity = Authenticity.FAKE,
    categories: Sequence[str] = ("texture", "edge"),
    *,
    confidence: Confidence = Confidence.HIGH,
    contradictions: int = 0,
    **changes: Any,
) -> Pair:
    """A chain with one finding in each category, every second one with a region, and its image."""
    drawn = {"label": label, "generator": "sim-nearest" if label is Authenticity.FAKE else None}
    image = make_image(name, **{**drawn, **changes})
    findings = tuple(
        TraceFinding(
            category=category,
            evidence=f"What can be seen of {category} repeats every {place} pixels.",
            points_to=label,
            region=CORNER if place % 2 == 0 else None,
        )
        for place, category in enumerate(categories, start=2)
    )
    chain = ReasoningChain(
        chain_id=content_id("chain", name),
        image_id=image.image_id,
        campaign_id="campaign-1",
        arm="main",
        draft_id=content_id("draft", name),
        teacher="rehearsal",
        correction_ids=(),
        reasoning=Reasoning(
            verdict=label,
            findings=findings,
            conclusion="This follows from what was found."
            if findings
            else "Nothing visible bears this out.",
            confidence=confidence if findings else Confidence.LOW,
        ),
        review_level=ReviewLevel.DRAFT,
        contradictions=contradictions,
    )
    return chain, image


def make_pairs(number: int, **changes: Any) -> list[Pair]:
    """Fakes and photographs in turn, with nothing to four findings in various categories."""
    ids = recipe().taxonomy.ids
    labels = tuple(Authenticity)
    return [
        make_pair(
            f"image {n}",
            labels[n % 2],
            [ids[(n * step + step) % 7] for step in range(1, 1 + n // 2 % 4)],
            confidence=list(Confidence)[n % 3],
            group=f"group {n // 8}",
            **changes,
        )
        for n in range(number)
    ]


def plan_of(pairs: Sequence[Pair], *, seed: int = 1, **options: Any) -> tuple[Plan, Chains]:
    """The plan of these chains, all in one split, and the chains as columns."""
    chains = columns_of((chain for chain, _ in pairs), recipe().taxonomy)
    return make_plan([chains], templates(), recipe().taxonomy, seed=seed, **options), chains


def table_of(pairs: Sequence[Pair], *, seed: int = 1, **options: Any) -> pa.Table:
    """Rows in ROW_SCHEMA, chain by chain."""
    plan, chains = plan_of(pairs, seed=seed, **options)
    return Words(templates(), recipe().taxonomy).table(plan, chains, images_of(pairs))


def images_of(pairs: Sequence[Pair]) -> ImageColumns:
    """What rows say of the images of these chains, all in one split."""
    return image_columns(
        {
            "chain_id": [chain.chain_id for chain, _ in pairs],
            "image_id": [image.image_id for _, image in pairs],
            "image_path": [image.path for _, image in pairs],
            "image_sha256": [image.sha256 for _, image in pairs],
            "label": [image.label for _, image in pairs],
            "generator": [image.generator for _, image in pairs],
            "source": [image.source for _, image in pairs],
            "split": [Split.TRAIN for _ in pairs],
            "review_level": [chain.review_level for chain, _ in pairs],
        }
    )


def expand_all(pairs: Sequence[Pair], *, seed: int = 1, **options: Any) -> list[list[Instruction]]:
    """The instructions of each chain, planned together."""
    rows: dict[str, list[Instruction]] = {chain.chain_id: [] for chain, _ in pairs}
    for row in instructions_of(table_of(pairs, seed=seed, **options)):
        rows[row.chain_id].append(row)
    return list(rows.values())


def place_all(pairs: Sequence[Pair]) -> list[Placed]:
    """Instructions with their images, two thirds for training."""
    cut = len(pairs) * 2 // 3
    return [
        Placed(
            image=image,
            split=Split.TRAIN if number < cut else Split.TEST,
            review_level=chain.review_level,
            instructions=rows,
        )
        for number, ((chain, image), rows) in enumerate(zip(pairs, expand_all(pairs), strict=True))
    ]


def make_facts(**changes: Any) -> BuildFacts:
    values: dict[str, Any] = {
        "recipe": RecipeStamp(name="fakescope", digest="d" * 64),
        "builder_digest": "b" * 64,
        "seed": 1,
        "chains_digest": "c" * 64,
        "arms": ("main",),
        "min_review": ReviewLevel.DRAFT,
        "simulated": True,
        "statement": "simulated teacher, no expert",
        "teachers": (TeacherFact(name="rehearsal", simulated=True, chains=1),),
        "sources": (SourceFact(name="demo", licence="CC0-1.0", may_train=True),),
        "licence": LicenceFact(statement="CC0-1.0", because="the only source"),
        "forms": {
            name: FormFact(family=family, targets=form.targets, states_verdict=form.states_verdict)
            for family, name, form in templates().forms()
        },
        "checks": {},
    }
    return BuildFacts(**{**values, **changes})


def write_set(folder: Path, pairs: Sequence[Pair], *, rows_per_shard: int = 150) -> Manifest:
    """A published shard set of these chains."""
    placed = place_all(pairs)
    return write_shards(
        folder,
        [
            rows_table([item for item in placed if item.split is split])
            for split in Split
            if any(item.split is split for item in placed)
        ],
        [(item.image, item.split) for item in placed],
        make_facts(),
        rows_per_shard=rows_per_shard,
    )


_WORDS = st.sampled_from(
    [
        "the",
        "surface",
        "of",
        "a",
        "wall",
        "repeats",
        "every",
        "two",
        "pixels",
        "and",
        "JPEG",
        "noise",
        "in",
        "{braces}",
        "is",
        "e.g.",
        "3.5",
        "per",
        "cent",
        "<b>bold</b>",
        '"quoted"',
        "None",
        "%s",
        "naïve",
        "光",
        "fence-post;",
        "though,",
        "yes",
        "no",
        "real",
        "fake",
        "A",
        "B",
    ]
)
evidence = st.lists(_WORDS, min_size=2, max_size=14).map(
    lambda words: as_sentences(" ".join(["The", *words]))
)


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Any chain that `build_chain` can make of any draft, with its image."""
    label = draw(st.sampled_from(Authenticity))
    categories = draw(st.lists(st.sampled_from(recipe().taxonomy.ids), max_size=6))
    findings = tuple(
        TraceFinding(
            category=category,
            evidence=draw(evidence),
            points_to=label,
            region=draw(st.sampled_from((None, CORNER))),
        )
        for category in categories
    )
    name = f"image {draw(st.integers(0, 10**9))}"
    chain, image = make_pair(name, label, ())
    reasoning = Reasoning(
        verdict=label,
        findings=findings,
        conclusion=draw(st.one_of(st.just(""), evidence)),
        confidence=draw(st.sampled_from(Confidence)) if findings else Confidence.LOW,
    )
    return (
        ReasoningChain(
            chain_id=chain.chain_id,
            image_id=image.image_id,
            campaign_id=chain.campaign_id,
            arm=chain.arm,
            draft_id=chain.draft_id,
            teacher=chain.teacher,
            correction_ids=(),
            reasoning=reasoning,
            review_level=draw(st.sampled_from(ReviewLevel)),
            contradictions=draw(st.integers(0, 2)),
        ),
        image,
    )


pair_lists = st.lists(pairs(), min_size=1, max_size=12, unique_by=lambda pair: pair[0].chain_id)
