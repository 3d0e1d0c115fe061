"""The use case: FakeChain as files for others, `python -m annotation export`.

Parquet and JSON lines with the same rows, one per image by image id, and a data-set card, which is
written last. Running it again gives the same bytes.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import pyarrow as pa
import pyarrow.parquet as pq

from annotation.card import CARD, ExportFacts, render_card
from annotation.chains import chain_drafts
from annotation.fakechain import Entry, Images, row_of, schema_of
from core.errors import ConfigError
from core.recipe import Recipe
from core.records import NO_VALUE, ImageRecord, ReviewLevel
from core.sources import choose_sources
from db.blind import guidance_among, labels_among
from db.chains import count_chains, newest_chains
from db.engine import Database
from db.images import source_names
from db.images import sources as read_sources
from db.quality import measure_agreement
from db.request_texts import request_texts
from db.reviews import corrections
from db.studio import drafts_by_id
from db.work import campaign_id_of
from imaging.store import ImageStore

BATCH: Final = 500
"""chains that are read and written at a time; one row group"""
BYTES_PER_FILE: Final = 500_000_000
"""of rows in memory, from which on another file is begun"""
COUNTED: Final = ("label", "review_level", "source", "generator", "teacher")
_OURS = re.compile(rf"fakechain-\d{{5}}\.(parquet|jsonl)|{re.escape(CARD)}")

Report = Callable[[int, int], None]
"""told how many chains are done, of how many"""


@dataclass(kw_only=True)
class ExportSummary:
    """What one export wrote."""

    chains: int = 0
    files: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """images whose file cannot be embedded, with the reason, by id"""


def export(  # noqa: PLR0913 - a use case and its options
    database: Database,
    recipe: Recipe,
    store: ImageStore,
    out: Path,
    *,
    images: Images = Images.REFERENCE,
    min_review: ReviewLevel | None = None,
    source: str | None = None,
    report: Report,
) -> ExportSummary:
    """Write the newest chain of each image at or above `min_review` (default: the recipe's).

    ConfigError when there is no such chain, when `out` is anything but an export, or when it
    cannot be written.
    """
    _require_export(out)
    chain_drafts(database, recipe)
    chosen = _choose(database, recipe, min_review, source)
    summary = ExportSummary()
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*COUNTED, "category")}
    with _beside(out) as folder:
        with _Files(folder, images, store) as files:
            for batch in _batches(_entries(database, chosen)):
                kept = [entry for entry in batch if _can_be_shown(entry, store, images, summary)]
                rows = [row_of(entry, images) for entry in kept]
                files.write(rows)
                _count(counts, rows)
                summary.chains += len(kept)
                report(summary.chains + len(summary.left_out), chosen.total)
        facts = _facts(database, recipe, chosen, images, counts, summary)
        (folder / CARD).write_text(render_card(facts), encoding="utf-8")
        summary.files = sorted(path.name for path in folder.iterdir())
    return summary


# What is exported


@dataclass(frozen=True, kw_only=True)
class _Chosen:
    """The chains of an export."""

    campaign_id: str
    arms: tuple[str, ...]
    min_review: ReviewLevel
    sources: Sequence[str]
    total: int


def _choose(
    database: Database, recipe: Recipe, min_review: ReviewLevel | None, source: str | None
) -> _Chosen:
    level = min_review or recipe.settings.review.min_review
    arms = recipe.settings.drafting.chain_arms
    campaign_id = campaign_id_of(recipe)
    with database.read() as session:
        sources = choose_sources(source_names(session), source)
        total = count_chains(
            session, campaign_id=campaign_id, arms=arms, min_review=level, sources=sources
        )
    if not total:
        raise ConfigError(
            f"no chain of {', '.join(sources) or 'any source'} has reached review level {level}: "
            "let experts review drafts and pull, or name a lower level with --min-review"
        )
    return _Chosen(
        campaign_id=campaign_id, arms=arms, min_review=level, sources=sources, total=total
    )


def _entries(database: Database, chosen: _Chosen) -> Iterator[Entry]:
    with database.read() as session:
        chains = newest_chains(
            session,
            campaign_id=chosen.campaign_id,
            arms=chosen.arms,
            min_review=chosen.min_review,
            sources=chosen.sources,
        )
        for pairs in _batches(chains):
            image_ids = [image.image_id for _, image in pairs]
            drafts = drafts_by_id(session, [chain.draft_id for chain, _ in pairs])
            text_ids = {draft.request_text_id for draft in drafts.values()}
            told = request_texts(session, {each for each in text_ids if each is not None})
            labels, guidance = labels_among(session, image_ids), guidance_among(session, image_ids)
            said = corrections(session, image_ids)
            for chain, image in pairs:
                draft = drafts[chain.draft_id]
                of_image = {each.correction_id: each for each in said.get(image.image_id, ())}
                yield Entry(
                    chain=chain,
                    image=image,
                    draft=draft,
                    told=told.get(draft.request_text_id or ""),
                    blind_labels=labels.get(image.image_id, ()),
                    guidance=guidance.get(image.image_id),
                    corrections=[of_image[i] for i in chain.correction_ids if i in of_image],
                )


def _can_be_shown(entry: Entry, store: ImageStore, images: Images, summary: ExportSummary) -> bool:
    image: ImageRecord = entry.image
    if images is Images.EMBED and not store.holds(image.path):
        summary.left_out[image.image_id] = f"{image.path} is not in the image store {store.folder}"
        return False
    return True


def _count(counts: dict[str, Counter[str]], rows: Sequence[dict[str, Any]]) -> None:
    for row in rows:
        for name in COUNTED:
            counts[name][row[name] or NO_VALUE] += 1
        counts["category"].update(finding["category"] for finding in row["findings"])


def _facts(
    database: Database,
    recipe: Recipe,
    chosen: _Chosen,
    images: Images,
    counts: dict[str, Counter[str]],
    summary: ExportSummary,
) -> ExportFacts:
    with database.read() as session:
        sources = read_sources(session)
    return ExportFacts(
        recipe=recipe,
        min_review=chosen.min_review,
        images=images,
        chains=summary.chains,
        left_out=len(summary.left_out),
        counts={name: dict(sorted(count.items())) for name, count in counts.items()},
        sources=[sources[name] for name in sorted(counts["source"])],
        agreement=measure_agreement(database, recipe),
    )


# Files


class _Files:
    """The data files of an export, each format begun anew when one is large enough."""

    def __init__(self, folder: Path, images: Images, store: ImageStore) -> None:
        self._folder = folder
        self._images = images
        self._store = store
        self._schema = schema_of(images)
        self._number = -1
        self._size = BYTES_PER_FILE
        self._parquet: pq.ParquetWriter | None = None
        self._lines: IO[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def write(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows; Parquet holds their pictures too, where it is asked to."""
        if not rows:
            return
        if self._size >= BYTES_PER_FILE:
            self._begin()
        assert self._parquet is not None and self._lines is not None
        for row in rows:
            self._lines.write(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n")
        shown = rows if self._images is not Images.EMBED else map(self._with_picture, rows)
        table = pa.Table.from_pylist(list(shown), schema=self._schema)
        self._parquet.write_table(table, row_group_size=len(rows))
        self._size += table.nbytes

    def _with_picture(self, row: dict[str, Any]) -> dict[str, Any]:
        path = row["image_path"]
        return {**row, "image": {"bytes": self._store.read(path), "path": Path(path).name}}

    def _begin(self) -> None:
        self._close()
        self._number += 1
        self._size = 0
        name = self._folder / f"fakechain-{self._number:05d}"
        self._parquet = pq.ParquetWriter(
            name.with_suffix(".parquet"), self._schema, compression="zstd"
        )
        self._lines = name.with_suffix(".jsonl").open("w", encoding="utf-8", newline="\n")

    def _close(self) -> None:
        if self._parquet is not None and self._lines is not None:
            self._parquet.close()
            self._lines.close()


def _require_export(out: Path) -> None:
    """Never write over what somebody else has put there."""
    if out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is no folder: name another one with --out")
    foreign = sorted(path.name for path in out.glob("*") if not _OURS.fullmatch(path.name))
    if foreign:
        raise ConfigError(f"{out} holds {foreign[0]}, which is no part of an export: name another")


@contextmanager
def _beside(out: Path) -> Iterator[Path]:
    """A new folder, whose files take the place of those in `out` once all are written."""
    place = out.resolve()
    folder = place.with_name(f".{place.name}.partial")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        yield folder
        _publish(folder, place)
    except OSError as error:
        reason = str(error.strerror).lower()
        raise ConfigError(f"{out} cannot be written: {reason}; name another with --out") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(beside: Path, out: Path) -> None:
    """Put the new files in the place of the old ones; the card goes first and comes last."""
    out.mkdir(parents=True, exist_ok=True)
    (out / CARD).unlink(missing_ok=True)
    for path in out.iterdir():
        path.unlink()
    for path in sorted(beside.iterdir(), key=lambda path: (path.name == CARD, path.name)):
        path.replace(out / path.name)


def _batches(items: Iterator[Any]) -> Iterator[list[Any]]:
    while batch := list(islice(items, BATCH)):
        yield batch
