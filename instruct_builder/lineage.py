"""Where one instruction comes from: row, pattern, chain, corrections, draft, call, image file."""

from __future__ import annotations

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from core.chain import deciding
from core.consensus import ruling_on, votes_behind
from core.errors import ConfigError, DataError
from core.ids import sha256_bytes
from core.printable import printable
from core.recipe import Recipe
from core.records import Correction, ImageRecord, Reasoning
from db.engine import Database
from db.lineage import Lineage, lineage
from db.studio import GivenIn
from imaging.store import ImageStore
from instruct_builder.build import RECIPE
from instruct_builder.inspection import read_aloud
from instruct_builder.manifest import Manifest
from instruct_builder.shards import RowGroup, ShardSet
from instruct_builder.templates import Templates, read_templates

WIDTH = 96
MOST_LINES = 3
"""of one quoted text"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """One instruction and what stands behind it, as far as set, database and store know it."""

    place: str
    """folder or address of the set"""
    shard: str
    row: Mapping[str, Any]
    manifest: Manifest
    patterns: tuple[str, ...]
    """of the recipe, question and answer in turn; empty where they cannot be found"""
    lineage: Lineage | None
    file_state: str
    """of the image in the image store"""
    missing: tuple[str, ...]
    """what is not known, and why"""


def trace(
    instruction_id: str,
    folder: Path,
    database: Database | ConfigError,
    store: ImageStore,
    *,
    place: str | None = None,
) -> Trace:
    """Follow an instruction of a shard set back to its image file.

    `database` is the error where there is none: then set and store alone are asked. `place` is
    what the set is called; without it, its folder. ConfigError when the folder is no shard set or
    holds no such instruction.
    """
    place = place or str(folder)
    shards = ShardSet.open(folder)
    if (found_at := _find(shards, instruction_id)) is None:
        raise ConfigError(f"{place} holds no instruction {printable(instruction_id)}")
    group, row = found_at
    patterns, no_patterns = _patterns(folder, row["template_id"])
    found, unknown = _ask(database, row)
    state = _file_state(store, row)
    return Trace(
        place=place,
        shard=group.path,
        row=row,
        manifest=shards.manifest,
        patterns=patterns,
        lineage=found,
        file_state=state,
        missing=(*no_patterns, *unknown),
    )


def _find(shards: ShardSet, instruction_id: str) -> tuple[RowGroup, Mapping[str, Any]] | None:
    for group in shards.row_groups():
        ids = shards.read_row_group(group, ["instruction_id"])["instruction_id"]
        if (place := pc.index(ids, instruction_id).as_py()) >= 0:
            return group, shards.read_row_group(group).slice(place, 1).to_pylist()[0]
    return None


def _patterns(folder: Path, template_id: str | None) -> tuple[tuple[str, ...], list[str]]:
    """The patterns that a template id names, from the recipe that the set carries with it."""
    if template_id is None:
        return (), []
    try:
        values = json.loads((folder / RECIPE).read_bytes())
        templates = read_templates(Recipe.model_validate({**values, "folder": folder}))
        return tuple(chain(*(_patterns_of(turn, templates) for turn in template_id.split()))), []
    except (OSError, ValueError, KeyError, IndexError, ConfigError) as error:
        reason = getattr(error, "strerror", None) or f"{template_id} is not in it"
        return (), [f"the patterns: {RECIPE} of the set cannot tell ({reason})"]


def _patterns_of(turn: str, templates: Templates) -> tuple[str, str]:
    """Question and answer pattern of one turn, `form/q01/a02`; follow-ups count on."""
    name, question, answer = turn.split("/")
    _, form = templates.named[name]
    questions = (*form.questions, *form.follow_ups)
    return questions[int(question[1:]) - 1], form.answer_patterns[int(answer[1:]) - 1][1].text


def _ask(
    database: Database | ConfigError, row: Mapping[str, Any]
) -> tuple[Lineage | None, list[str]]:
    """What the database knows of a row, and what it does not."""
    if row["chain_id"] is None:
        return None, [f"a chain: the row is of the general instruction set {row['source']}"]
    if isinstance(database, ConfigError):
        return None, [f"everything before the chain: {database}"]
    with database.read() as session:
        found = lineage(session, row["chain_id"], row["image_id"])
    return found, [f"{what} is not in {database.place}" for what in _unknown(found, row)]


def _unknown(found: Lineage, row: Mapping[str, Any]) -> Iterator[str]:
    if found.image is None:
        yield f"image {row['image_id']}"
    if found.chain is None:
        yield f"chain {row['chain_id']}, nor what it was made of,"
        return
    gone = set(found.chain.correction_ids) - {c.correction_id for c in found.corrections}
    yield from (f"correction {correction_id}" for correction_id in sorted(gone))
    if found.draft is None:
        yield f"draft {found.chain.draft_id}"
    elif found.attempt is None:
        yield f"attempt {found.draft.attempt_id}"
    elif found.reply is None:
        yield f"the reply to attempt {found.draft.attempt_id}"


def _file_state(store: ImageStore, row: Mapping[str, Any]) -> str:
    """Whether the image store holds the very bytes."""
    if row["image_path"] is None:
        return "none"
    try:
        data = store.read(row["image_path"])
    except DataError:
        return "not in the image store"
    return "there" if sha256_bytes(data) == row["image_sha256"] else "CHANGED: another SHA-256"


def as_values(found: Trace) -> dict[str, Any]:
    """The trace as JSON can hold it."""
    return {
        "shard": f"{found.place}/{found.shard}",
        "row": dict(found.row),
        "recipe": found.manifest.recipe.model_dump(),
        "seed": found.manifest.seed,
        "patterns": found.patterns,
        "lineage": found.lineage,
        "image_file": found.file_state,
        "missing": found.missing,
    }


def as_text(found: Trace) -> Iterator[str]:
    """One screen, from the row to the file; line by line."""
    return map(printable, _lines(found))


def _lines(found: Trace) -> Iterator[str]:
    row, manifest = found.row, found.manifest
    yield f"{row['instruction_id']} in {found.place}/{found.shard}, split {row['split']}"
    yield from _quote(read_aloud(row).splitlines())
    worded = f"pattern {row['template_id']}" if row["template_id"] else "drawn by no pattern"
    yield (
        f"{worded} of recipe {manifest.recipe.name} {manifest.recipe.digest[:12]}, "
        f"seed {manifest.seed}"
    )
    yield from _quote(f"  {' '.join(text.split())}" for text in found.patterns)
    if found.lineage is not None:
        yield from _chain_lines(found.lineage, row["aspect"])
        yield from _rewording_lines(found.lineage, manifest)
        yield from _draft_lines(found.lineage, row["aspect"])
        yield from _vote_lines(found.lineage)
    if row["image_id"] is not None:
        made = f"{row['label']}, {row['generator'] or 'photograph'}" if row["label"] else "no label"
        yield f"image {row['image_id']}, {made}, source {row['source']}"
        yield from _image_lines(found.lineage)
        yield f"  {row['image_path']}: {found.file_state}"
    yield from (f"missing: {what}" for what in found.missing)


def _chain_lines(found: Lineage, aspect: str | None) -> Iterator[str]:
    if (made := found.chain) is None:
        return
    successor = f"; superseded by {found.superseded_by}" if found.superseded_by else ""
    yield (
        f"chain {made.chain_id}, review level {made.review_level}, {_sum_up(made.reasoning)}"
        f"{successor}"
    )
    yield from _evidence(made.reasoning, aspect)
    for correction in found.corrections:
        yield _correction_line(correction)
        if (place := found.given_in.get(correction.correction_id)) is not None:
            yield _annotation_line(place)
    if not made.correction_ids and made.merged_teachers:
        yield f"no correction: {len(made.merged_teachers)} teachers voted, and no human looked"
    elif not made.correction_ids:
        yield "no correction"


def _rewording_lines(found: Lineage, manifest: Manifest) -> Iterator[str]:
    """Whose words the row may be in, where the set was built with rewordings."""
    if manifest.rewordings is not None:
        editors = ", ".join(editor.name for editor in manifest.editors) or "nobody"
        yield (
            f"reworded by {editors}: some texts of the set stand in other words than the chain's; "
            f"table {manifest.rewordings[:12]}, {found.rewriting_calls} calls about the image"
        )


def _draft_lines(found: Lineage, aspect: str | None) -> Iterator[str]:
    if (draft := found.draft) is not None:
        yield f"draft {draft.draft_id} by {draft.teacher}, {_sum_up(draft.reasoning)}"
        yield from _evidence(draft.reasoning, aspect)
        shown = ", ".join(draft.exemplar_ids) or "no exemplar"
        yield (
            f"prompt {draft.prompt_version} of arm {draft.arm}, {shown}; "
            f"`python -m generation prompt {draft.image_id} --arm {draft.arm}` prints it"
        )
    if (attempt := found.attempt) is not None:
        cost = "cost not known" if attempt.cost_usd is None else f"${attempt.cost_usd:.6f}"
        stored = f"reply of {len(found.reply.raw):,} characters" if found.reply else "no reply"
        yield (
            f"attempt {attempt.attempt_id} to {attempt.model}, {attempt.outcome}, {cost}, "
            f"{stored} stored; one of {found.calls} calls about the image"
        )


def _vote_lines(found: Lineage) -> Iterator[str]:
    """Who raised which point, where the draft words what several teachers agree on."""
    if found.draft is None or not found.draft.merged:
        return
    yield f"votes of {len(found.merged)} drafts, counted by a program"
    word = deciding([c for c in found.corrections if c.draft_id == found.draft.draft_id])
    for vote in votes_behind(found.draft, found.merged):
        marked = f", glaring to {', '.join(vote.glaring)}" if vote.glaring else ""
        fate = "kept" if vote.is_kept else "dropped"
        ruling = ruling_on(vote, word)
        ruled = f", {ruling} by {word.expert}" if word and ruling else ""
        yield (
            f"  {vote.category} ({vote.points_to}): {', '.join(vote.arms)}{marked}; {fate}{ruled}"
        )
    for draft in found.merged:
        reply = found.merged_replies.get(draft.attempt_id)
        stored = f"reply of {len(reply.raw):,} characters stored" if reply else "no reply stored"
        yield f"arm {draft.arm}: {draft.draft_id} by {draft.teacher}, {stored}"
        said = [f"{f.category} ({f.points_to}): {f.evidence}" for f in draft.reasoning.findings]
        yield from _quote(f"  {text}" for text in [*said, draft.reasoning.conclusion])
    yield from (f"arm {arm}: no draft, {reason}" for arm, reason in found.set_aside.items())


def _image_lines(found: Lineage | None) -> Iterator[str]:
    if found is None:
        return
    if (image := found.image) is not None:
        licence = f"licence {found.source.licence}" if found.source else "licence unknown"
        yield f"  {_measures(image)}, group {image.group}, {licence}"
    yield from (f"  from {file}" for file in found.files)
    if (stone := found.tombstone) is not None:
        yield f"  WITHDRAWN on {stone.withdrawn_at:%Y-%m-%d}: {stone.reason}"


def _measures(image: ImageRecord) -> str:
    quality = "" if image.jpeg_quality is None else f" of quality {image.jpeg_quality}"
    return f"{image.format}{quality}, {image.width} × {image.height}"


def _sum_up(reasoning: Reasoning) -> str:
    return f"verdict {reasoning.verdict}, {len(reasoning.findings)} findings"


def _evidence(reasoning: Reasoning, aspect: str | None) -> Iterator[str]:
    """What a reasoning says of the aspect that the row is about."""
    said = [f.evidence for f in reasoning.findings if f.category == aspect]
    yield from _quote(f"  {aspect}: {text}" for text in said)


def _correction_line(correction: Correction) -> str:
    done = Counter(outcome.value for outcome in correction.outcomes)
    outcomes = ", ".join(f"{number} {name}" for name, number in sorted(done.items())) or "nothing"
    role = " as adjudicator" if correction.is_adjudication else ""
    return (
        f"correction {correction.correction_id} by {correction.expert}{role}, version "
        f"{correction.version}: {outcomes}"
    )


def _annotation_line(place: GivenIn) -> str:
    task = "a task that is gone" if place.task_id is None else f"task {place.task_id}"
    return (
        f"  annotation {place.annotation_id}, version {place.number}, of {task} in project "
        f"{place.project_id}, Label Studio {place.server}"
    )


def _quote(lines: Iterable[str]) -> Iterator[str]:
    """Each text on a few lines at most."""
    for line in lines:
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        yield from textwrap.wrap(
            line, WIDTH, subsequent_indent=indent, max_lines=MOST_LINES, placeholder=" …"
        )
