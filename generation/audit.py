"""The use case: what gives away real and fake without looking at a picture, as JSON and a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.errors import ConfigError, DataError
from core.records import Authenticity, ImageRecord
from core.sources import choose_sources
from db.engine import Database
from db.images import labelled_images, source_names
from imaging.shortcuts import (
    LabelTable,
    MetadataScore,
    MixedCluster,
    TooFew,
    groups_of_both_labels,
    label_tables,
    measure_metadata,
    mixed_clusters,
)
from imaging.store import ImageStore

JSON_FILE = "audit.json"
PAGE = "audit.html"
MOST_SHOWN = 50
"""mixed clusters on the page; the JSON file holds all"""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What was found in the labelled images of some sources."""

    sources: tuple[str, ...]
    real: int
    fake: int
    groups: int
    groups_of_both_labels: int
    clusters: int
    mixed_clusters: tuple[MixedCluster, ...]
    """near-duplicates that hold both labels or several groups"""
    tables: tuple[LabelTable, ...]
    threshold: float
    metadata: MetadataScore | TooFew
    with_bytes: MetadataScore | TooFew
    """bytes per pixel added: they depend on the picture too, so this one warns of nothing"""

    @property
    def warning(self) -> str | None:
        """One sentence without its full stop, when metadata is a shortcut."""
        if isinstance(self.metadata, TooFew) or self.metadata.low <= self.threshold:
            return None
        return self.metadata.warning(self.threshold)


def audit(
    database: Database, store: ImageStore, *, source: str | None, threshold: float
) -> AuditReport:
    """Look at all labelled images of a source; None: of all sources but the demo.

    Raises ConfigError when there is no such source or no labelled image.
    """
    with database.read() as session:
        sources = choose_sources(source_names(session), source)
        images = list(labelled_images(session, sources=sources))
    if not images:
        raise ConfigError("no labelled image to audit: `python -m generation ingest` takes them in")
    return report_on(images, bytes_of=_file_sizes(images, store), threshold=threshold)


def report_on(
    images: Sequence[ImageRecord], *, bytes_of: Mapping[str, int], threshold: float
) -> AuditReport:
    """The report on labelled images and the sizes of their files by image id."""
    return AuditReport(
        sources=tuple(sorted({image.source for image in images})),
        real=sum(image.label is Authenticity.REAL for image in images),
        fake=sum(image.label is Authenticity.FAKE for image in images),
        groups=len({image.group for image in images}),
        groups_of_both_labels=groups_of_both_labels(images),
        clusters=len({image.cluster for image in images}),
        mixed_clusters=tuple(mixed_clusters(images)),
        tables=label_tables(images),
        threshold=threshold,
        metadata=measure_metadata(images),
        with_bytes=measure_metadata(images, bytes_of=bytes_of),
    )


def _file_sizes(images: Sequence[ImageRecord], store: ImageStore) -> dict[str, int]:
    """Bytes by image id; a file that is not there is left out."""
    sizes = {}
    for image in images:
        try:
            sizes[image.image_id] = store.path(image.path).stat().st_size
        except (OSError, DataError):
            continue
    return sizes


def as_json(report: AuditReport) -> str:
    """The whole report; the same images give the same text."""
    values = {**asdict(report), "warning": report.warning}
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def as_text(report: AuditReport) -> Iterator[str]:
    """The figures that decide, line by line."""
    yield (
        f"{', '.join(report.sources)}: {report.real:,} photographs and {report.fake:,} fakes "
        f"in {report.groups:,} groups"
    )
    yield f"metadata alone (AUC 0.5 tells nothing): {describe_score(report.metadata)}"
    yield f"with bytes per pixel: {describe_score(report.with_bytes)}"
    yield (
        "near-duplicate clusters that hold both labels or several groups: "
        f"{len(report.mixed_clusters):,} of {report.clusters:,}"
    )
    yield f"groups that hold photographs and fakes: {report.groups_of_both_labels:,}"
    if report.warning is not None:
        yield f"warning: {report.warning}"


def describe_score(score: MetadataScore | TooFew) -> str:
    """`AUC 0.52, 95 % interval ...`, or why there is no figure; 0.5 tells nothing, 1 everything."""
    if isinstance(score, TooFew):
        return f"too few: {score.reason}"
    return (
        f"AUC {score.auc:.2f}, 95 % interval {score.low:.2f} to {score.high:.2f}, "
        f"{score.real + score.fake:,} images"
    )


def render_page(report: AuditReport) -> str:
    """One self-contained HTML page; every name in it is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scores = (
        ("Metadata alone", report.metadata),
        ("With bytes per pixel", report.with_bytes),
    )
    return environment.get_template("audit.jinja").render(
        report=report,
        scores=[(title, score, describe_score(score)) for title, score in scores],
        alone=_alone(report.with_bytes),
        clusters=report.mixed_clusters[:MOST_SHOWN],
    )


def _alone(score: MetadataScore | TooFew) -> list[tuple[str, float]]:
    """Each feature with its AUC, the most telling first."""
    found = {} if isinstance(score, TooFew) else score.alone
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))


def write_audit(report: AuditReport, out: Path) -> Path:
    """Write `audit.json` and `audit.html` into `out`; returns the path of the page."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / JSON_FILE).write_text(as_json(report), encoding="utf-8", errors="backslashreplace")
        page = render_page(report)
        (out / PAGE).write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        reason = str(error.strerror).lower()
        raise ConfigError(f"{out} cannot be written: {reason}; choose --out") from None
    return out / PAGE
