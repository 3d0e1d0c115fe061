"""A large installation from a seed: database rows and a shard set, made without images or calls.

Rows are inserted in bulk, so that a benchmark does not wait for what it does not measure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import insert

from core.ids import image_id_of, sha256_text
from core.recipe import DEFAULT_RECIPE, Recipe
from core.records import (
    AttemptOutcome,
    Authenticity,
    Confidence,
    ImageRecord,
    ReviewLevel,
    Split,
    TraceOutcome,
    WorkState,
)
from db.engine import Database
from db.tables import (
    AttemptRow,
    ChainRow,
    CorrectionRow,
    DraftRow,
    FindingRow,
    ImageRow,
    OutcomeRow,
    ReasoningRow,
    Row,
    SourceRow,
    WorkRow,
    table_of,
)
from db.work import employ, open_campaign
from instruct_builder.manifest import LicenceFact, RecipeStamp, SourceFact, TeacherFact
from instruct_builder.shards import ROW_SCHEMA, BuildFacts, write_shards

GENERATORS = tuple(f"generator-{number}" for number in range(1, 8))
SOURCES = ("collection-a", "collection-b", "collection-c")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
BLOCK = 5_000
SET_ASIDE_EVERY = 50
EXPERTS = ("expert-1", "expert-2", "expert-3")
IMAGES_PER_TABLE = 5_000

Rows = dict[type[Row], list[dict[str, Any]]]


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    images: int
    reviewed: int
    """drafts that two experts have corrected"""
    rows_per_image: int


def make_images(count: int) -> list[ImageRecord]:
    """Fakes and photographs in turn; every tenth image has a near-duplicate of the other label."""
    images = []
    for number in range(count):
        digest = sha256_text(f"seeded {number}")
        is_fake = number % 2 == 0
        images.append(
            ImageRecord(
                image_id=image_id_of(digest),
                sha256=digest,
                original_sha256=digest,
                path=f"{digest[:2]}/{digest[2:4]}/{digest}.jpg",
                width=512 + 64 * (number % 9),
                height=512 + 64 * (number % 7),
                format="PNG" if number % 11 == 0 else "JPEG",
                jpeg_quality=None if number % 11 == 0 else 75 + number % 25,
                phash=digest[:16],
                cluster=f"cluster-{number // 2 if number % 20 < 2 else -number}",
                group=f"group-{number // 2}",
                label=Authenticity.FAKE if is_fake else Authenticity.REAL,
                generator=GENERATORS[number // 2 % len(GENERATORS)] if is_fake else None,
                source=SOURCES[number % len(SOURCES)],
                size_bytes=40_000 + number,
                subsampling=None if number % 11 == 0 else ("4:2:0", "4:4:4")[number % 2],
            )
        )
    return images


def fill_database(
    database: Database, recipe: Recipe, images: Sequence[ImageRecord], size: Size
) -> str:
    """A draft with five findings of every image, some corrected by two experts; the campaign."""
    with database.write() as session:
        session.execute(insert(table_of(SourceRow)), [_source(name) for name in SOURCES])
        campaign_id = open_campaign(session, recipe, ceiling_usd=None)
        employ(session, campaign_id, recipe_folder=str(DEFAULT_RECIPE), rehearsal_url=None)
    numbers = np.random.default_rng(11)
    for start in range(0, len(images), BLOCK):
        rows: Rows = {}
        for number, image in enumerate(images[start : start + BLOCK], start):
            _add_image(rows, image, number, campaign_id, recipe)
            if number < size.reviewed:
                _add_corrections(rows, image, number, recipe, numbers)
        with database.write() as session:
            for row, values in rows.items():
                session.execute(insert(table_of(row)), values)
    return campaign_id


def _source(name: str) -> dict[str, Any]:
    return {"name": name, "licence": "CC0-1.0", "may_train": True, "terms": ""}


def _add_image(
    rows: Rows, image: ImageRecord, number: int, campaign_id: str, recipe: Recipe
) -> None:
    put = _putter(rows)
    group = image.group
    names = [column.key for column in table_of(ImageRow).columns if column.key != "photo_group"]
    put(ImageRow, **{name: getattr(image, name) for name in names}, photo_group=group)
    is_aside = number % SET_ASIDE_EVERY == SET_ASIDE_EVERY - 1
    own = {"campaign_id": campaign_id, "arm": "main", "image_id": image.image_id}
    put(
        WorkRow,
        **own,
        work_id=f"work-{number:08}",
        state=WorkState.QUARANTINED if is_aside else WorkState.CHAINED,
        tries=1,
        reason=f"the reply was cut off after {number % 7} findings" if is_aside else None,
    )
    for attempt in range(2 if number % 10 == 0 else 1):
        put(
            AttemptRow,
            **own,
            attempt_id=f"attempt-{number:08}-{attempt}",
            request_hash=f"{number:064x}",
            number=attempt + 1,
            model="teacher",
            outcome=AttemptOutcome.REPLIED,
            reserved_usd=0.01,
            cost_usd=0.002,
            prompt_tokens=900,
            completion_tokens=200,
            started_at=NOON + timedelta(minutes=number % 20_000),
            finished_at=NOON + timedelta(minutes=number % 20_000),
        )
    draft_id, chain_id = f"draft-{number:08}", f"chain-{number:08}"
    for reasoning_id in (draft_id, chain_id):
        _add_reasoning(put, reasoning_id, image, _findings(number, recipe))
    put(
        DraftRow,
        **own,
        draft_id=draft_id,
        attempt_id=f"attempt-{number:08}-0",
        teacher="teacher",
        prompt_version="acoti-00000000",
        demonstrations=2,
        exemplar_ids=(),
        uncovered=(),
        seen=(),
        bytes_sent=40_000,
        created_at=NOON,
    )
    put(
        ChainRow,
        **own,
        chain_id=chain_id,
        draft_id=draft_id,
        teacher="teacher",
        review_level=ReviewLevel.DRAFT,
        contradictions=int(number % 40 == 0),
        created_at=NOON,
    )


def _findings(number: int, recipe: Recipe) -> list[str]:
    """The categories of five findings."""
    ids = recipe.taxonomy.ids
    return [ids[(number + step) % len(ids)] for step in range(5)]


def _add_reasoning(
    put: Callable[..., None], reasoning_id: str, image: ImageRecord, categories: Sequence[str]
) -> None:
    put(
        ReasoningRow,
        reasoning_id=reasoning_id,
        verdict=image.label,
        conclusion="The traces together decide it.",
        confidence=Confidence.HIGH,
    )
    for position, category in enumerate(categories):
        put(
            FindingRow,
            reasoning_id=reasoning_id,
            position=position,
            category=category,
            points_to=image.label,
            evidence=f"The {category} of {reasoning_id} repeats every {position + 2} pixels.",
        )


def _add_corrections(
    rows: Rows, image: ImageRecord, number: int, recipe: Recipe, numbers: np.random.Generator
) -> None:
    """Two of three experts accept most findings and reject some."""
    put = _putter(rows)
    for turn in range(2):
        expert = EXPERTS[(number + turn) % len(EXPERTS)]
        correction_id = f"correction-{number:08}-{turn}"
        is_kept = numbers.random(5) < 0.85
        categories = [c for c, kept in zip(_findings(number, recipe), is_kept, strict=True) if kept]
        _add_reasoning(put, correction_id, image, categories)
        put(
            CorrectionRow,
            correction_id=correction_id,
            image_id=image.image_id,
            draft_id=f"draft-{number:08}",
            expert=expert,
            version=1,
            is_adjudication=False,
            rejects_image=False,
            created_at=NOON,
        )
        for position, kept in enumerate(is_kept):
            outcome = TraceOutcome.ACCEPTED if kept else TraceOutcome.REJECTED
            put(OutcomeRow, correction_id=correction_id, position=position, outcome=outcome)


def _putter(rows: Rows) -> Callable[..., None]:
    def put(row: type[Row], **values: Any) -> None:
        rows.setdefault(row, []).append(values)

    return put


# Shards


def write_set(folder: Path, images: Sequence[ImageRecord], size: Size) -> None:
    """A shard set with so many short instructions on each image; a tenth of them for testing."""
    split_of = [Split.TEST if number % 10 == 0 else Split.TRAIN for number in range(len(images))]
    write_shards(
        folder,
        _tables(images, split_of, size.rows_per_image),
        zip(images, split_of, strict=True),
        BuildFacts(
            recipe=RecipeStamp(name="seeded", digest="d" * 64),
            builder_digest="b" * 64,
            seed=1,
            chains_digest="c" * 64,
            arms=("main",),
            min_review=ReviewLevel.DRAFT,
            simulated=True,
            statement="made from a seed for a benchmark",
            teachers=(TeacherFact(name="teacher", simulated=True, chains=len(images)),),
            sources=tuple(SourceFact(name=name, licence="CC0-1.0") for name in SOURCES),
            licence=LicenceFact(statement="CC0-1.0", because="all sources"),
            forms={},
            checks={},
        ),
        rows_per_shard=100_000,
    )


def _tables(
    images: Sequence[ImageRecord], split_of: Sequence[Split], per_image: int
) -> Iterator[pa.Table]:
    for split in (Split.TRAIN, Split.TEST):
        own = [number for number, its in enumerate(split_of) if its is split]
        for start in range(0, len(own), IMAGES_PER_TABLE):
            yield _table(images, own[start : start + IMAGES_PER_TABLE], split, per_image)


def _table(
    images: Sequence[ImageRecord], numbers: Sequence[int], split: Split, per_image: int
) -> pa.Table:
    places = [(number, turn) for number in numbers for turn in range(per_image)]
    columns: dict[str, list[Any]] = {
        "instruction_id": [f"ins-{number:08}-{turn:02}" for number, turn in places],
        "chain_id": [f"chain-{number:08}" for number, _ in places],
        "image_id": [images[number].image_id for number, _ in places],
        "image_path": [images[number].path for number, _ in places],
        "image_sha256": [images[number].sha256 for number, _ in places],
        "family": [("verdict", "fine_grained", "holistic", "discussion")[t % 4] for _, t in places],
        "form": [f"form_{turn:02}" for _, turn in places],
        "template_id": [f"template-{turn:02}" for _, turn in places],
        "aspect": [None if turn % 4 != 1 else f"aspect-{number % 12}" for number, turn in places],
        "messages": [
            [
                {"role": "user", "content": f"What does part {turn} of the picture show?"},
                {"role": "assistant", "content": f"Texture {number} repeats there {turn} times."},
            ]
            for number, turn in places
        ],
        "target": [None for _ in places],
        "label": [str(images[number].label) for number, _ in places],
        "generator": [images[number].generator for number, _ in places],
        "source": [images[number].source for number, _ in places],
        "split": [str(split) for _ in places],
        "review_level": ["draft" for _ in places],
    }
    return pa.table(columns, schema=ROW_SCHEMA)
