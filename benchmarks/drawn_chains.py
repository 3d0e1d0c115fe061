"""Chains for measurements: drawn by a seed, about images that do not exist, in a real database.

Photographs and fakes in turn, four to a group, with two to six findings whose categories tell
nothing of the label. Evidence is put together from parts of sentences, so that texts are as
various as a careful teacher's and hold the words of no image.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from core.ids import content_id, image_id_of, sha256_text
from core.recipe import Recipe
from core.records import (
    Authenticity,
    Confidence,
    Draft,
    ImageRecord,
    Reasoning,
    ReasoningChain,
    Region,
    ReviewLevel,
    Source,
    TeacherReply,
    TraceFinding,
    Usage,
)
from db.chains import save_chains
from db.engine import Database
from db.images import save_images, save_source
from db.ledger import DatabaseLedger, save_drafts
from db.work import open_campaign

Pair = tuple[ReasoningChain, ImageRecord]

SOURCE = Source(name="drawn-chains", licence="CC0-1.0")
TEACHER = "drawn-teacher"
GENERATORS = ("drawn-generator-1", "drawn-generator-2", "drawn-generator-3", "drawn-generator-4")
PER_GROUP = 4
SAVED_AT_ONCE = 2_000
SIDES = ((512, 512), (640, 480), (800, 600))

WHERE = tuple(
    f"{part} of {thing}"
    for part in (
        "The left edge", "The right edge", "The upper part", "The lower part", "The middle",
        "The far side", "The near side", "The outline", "The surface", "The shaded side",
        "The lit side", "The corner",
    )
    for thing in (
        "the sleeve", "the window", "the fence", "the wooden table", "the brick wall", "the bowl",
        "the road", "the tree on the left", "the tree on the right", "the hair", "the hand",
        "the lamp", "the door frame", "the roof", "the curtain", "the water", "the leaf", "the car",
        "the bottle", "the stairs", "the chair", "the collar", "the cable", "the bench", "the sign",
    )
)  # fmt: skip
SEEN = {
    Authenticity.FAKE: (
        "repeats the same fine pattern every {n} pixels",
        "dissolves into a smear about {n} pixels wide",
        "shows {n} small steps where a smooth line should be",
        "carries a faint lattice with a period of {n} pixels",
        "changes its direction {n} times without a reason",
        "is softer than its neighbour by about {n} per cent",
        "ends in a ring of {n} pale dots",
        "has {n} parallel seams that nothing explains",
    ),
    Authenticity.REAL: (
        "keeps an irregular grain over {n} pixels",
        "fades with distance over about {n} pixels",
        "shows {n} scratches of different length",
        "follows the light within {n} degrees",
        "bends once, at {n} degrees, as its weight demands",
        "is as sharp as its neighbour within {n} per cent",
        "ends in a natural blur of {n} pixels",
        "has {n} small faults that differ from one another",
    ),
}
WHY = {
    Authenticity.FAKE: (
        "which a lens does not do",
        "which up-sampling would explain",
        "while everything around it stays calm",
        "and the same happens again further down",
        "although the light there does not change",
        "which no material of this kind shows",
        "as if it had been enlarged from a smaller picture",
        "and no shadow goes with it",
    ),
    Authenticity.REAL: (
        "as a lens would have it",
        "which the distance explains",
        "and everything around it does the same",
        "which goes on beyond the next object",
        "as the light there demands",
        "which is usual for this material",
        "as grain of a sensor does",
        "and the shadow goes with it",
    ),
}
CONCLUSIONS = {
    Authenticity.FAKE: (
        "Taken together, this speaks for a generated image.",
        "None of this would come from a camera.",
        "What was found fits a generator better than a lens.",
    ),
    Authenticity.REAL: (
        "Taken together, this speaks for a photograph.",
        "All of this would come from a camera.",
        "What was found fits a lens better than a generator.",
    ),
}


def draw_pairs(number: int, categories: Sequence[str], *, seed: int = 1) -> Iterator[Pair]:
    """So many chains with their images."""
    for place in range(number):
        yield _draw_pair(random.Random(f"{seed} {place}"), place, categories)


def _draw_pair(draw: random.Random, place: int, categories: Sequence[str]) -> Pair:
    label = tuple(Authenticity)[place % 2]
    image = _draw_image(draw, place, label)
    chosen = draw.sample(categories, draw.randint(2, 6))
    reasoning = Reasoning(
        verdict=label,
        findings=tuple(_draw_finding(draw, category, label) for category in chosen),
        conclusion=draw.choice(CONCLUSIONS[label]),
        confidence=draw.choice(list(Confidence)),
    )
    chain = ReasoningChain(
        chain_id=content_id("chain", image.image_id),
        image_id=image.image_id,
        campaign_id="",
        arm="main",
        draft_id=content_id("draft", image.image_id),
        teacher=TEACHER,
        correction_ids=(),
        reasoning=reasoning,
        review_level=ReviewLevel.DRAFT,
        contradictions=0,
    )
    return chain, image


def _draw_image(draw: random.Random, place: int, label: Authenticity) -> ImageRecord:
    digest = sha256_text(f"drawn image {place}")
    width, height = draw.choice(SIDES)
    return ImageRecord(
        image_id=image_id_of(digest),
        sha256=digest,
        original_sha256=digest,
        path=f"{digest[:2]}/{digest[2:4]}/{digest}.jpg",
        width=width,
        height=height,
        format="JPEG",
        jpeg_quality=draw.randint(85, 96),
        phash=digest[:16],
        cluster=image_id_of(digest),
        group=f"drawn-group-{place // PER_GROUP}",
        label=label,
        generator=draw.choice(GENERATORS) if label is Authenticity.FAKE else None,
        source=SOURCE.name,
        size_bytes=draw.randint(20_000, 90_000),
        subsampling="4:2:0",
    )


def _draw_finding(draw: random.Random, category: str, label: Authenticity) -> TraceFinding:
    seen = draw.choice(SEEN[label]).format(n=draw.randint(2, 24))
    left, top = draw.uniform(0, 0.6), draw.uniform(0, 0.6)
    right, bottom = left + draw.uniform(0.1, 0.35), top + draw.uniform(0.1, 0.35)
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return TraceFinding(
        category=category,
        evidence=f"{draw.choice(WHERE)} {seen}, {draw.choice(WHY[label])}.",
        points_to=label,
        region=Region(points=corners) if draw.random() < 0.4 else None,
    )


def store_drawn_chains(database: Database, recipe: Recipe, number: int, *, seed: int = 1) -> None:
    """Put so many chains with their images and drafts into the database."""
    with database.write() as session:
        campaign_id = open_campaign(session, recipe, ceiling_usd=None)
        save_source(session, SOURCE)
    pairs = draw_pairs(number, recipe.taxonomy.ids, seed=seed)
    attempt_id = None
    while part := list(islice(pairs, SAVED_AT_ONCE)):
        with database.write() as session:
            save_images(session, [image for _, image in part])
        if attempt_id is None:
            ledger = DatabaseLedger(database, campaign_id, teacher=TEACHER)
            attempt_id = _store_call(ledger, part[0][1])
        chains = [replace(chain, campaign_id=campaign_id) for chain, _ in part]
        with database.write() as session:
            save_drafts(session, [_draft_of(chain, attempt_id) for chain in chains])
            save_chains(session, chains)


def _store_call(ledger: DatabaseLedger, image: ImageRecord) -> str:
    """The one call that all drafts are said to come from; it cost nothing."""
    request_hash = sha256_text("drawn chains")
    attempt_id = ledger.open_attempt(
        request_hash=request_hash,
        image_id=image.image_id,
        arm="main",
        model=TEACHER,
        reserved_usd=0.0,
    )
    reply = TeacherReply(
        request_hash=request_hash,
        raw="{}",
        content="{}",
        refusal=None,
        finish_reason="stop",
        model=TEACHER,
        usage=Usage(prompt_tokens=0, image_tokens=0, completion_tokens=0),
        request_id=None,
        latency_s=0.0,
    )
    return ledger.store_reply(attempt_id, reply, 0.0).attempt_id


def _draft_of(chain: ReasoningChain, attempt_id: str) -> Draft:
    return Draft(
        draft_id=chain.draft_id,
        image_id=chain.image_id,
        attempt_id=attempt_id,
        campaign_id=chain.campaign_id,
        arm=chain.arm,
        teacher=chain.teacher,
        prompt_version="drawn",
        demonstrations=0,
        reasoning=chain.reasoning,
    )
