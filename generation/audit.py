"""The use case: what gives away real and fake without looking at a picture, as JSON and a page."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.errors import ConfigError
from core.recipe import RecipeFile
from core.records import Authenticity, BenchmarkImage, ImageRecord, Source, Split
from core.sources import choose_sources
from db.benchmarks import benchmark_images, relatives, shared_files
from db.engine import Database
from db.images import labelled_images, source_names
from db.images import sources as read_sources
from imaging.crossings import SplitCheck, check_splits
from imaging.neighbours import NEAR
from imaging.overlaps import (
    Kinship,
    Overlap,
    count_by_benchmark,
    find_overlaps,
    overlap_warning,
)
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

JSON_FILE = "audit.json"
PAGE = "audit.html"
MOST_SHOWN = 50
"""rows of a list on the page; the JSON file holds all"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an audit looks at."""

    images: Sequence[ImageRecord]
    """labelled ones of the audited sources"""
    may_train: bool = True
    """of what is for evaluation only it does not matter which benchmarks hold it"""
    benchmarks: Sequence[BenchmarkImage] = ()
    relatives: Sequence[ImageRecord] = ()
    """images of other sources in the groups of the audited ones"""
    shared: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """files of one source that are images of another (or the same) already, by both names"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFiles:
    """Files that are the same picture as an image that was there before, which is held once."""

    source: str
    held_by: str
    files: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Benchmark:
    """A registered benchmark, and how many of the audited images are in it too."""

    name: str
    images: int
    overlaps: dict[Kinship, int]


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
    shared: tuple[SharedFiles, ...]
    tables: tuple[LabelTable, ...]
    threshold: float
    metadata: MetadataScore | TooFew
    with_bytes: MetadataScore | TooFew
    """bytes per pixel added: they depend on the picture too, so this one warns of nothing"""
    splits: tuple[SplitCheck, ...]
    """the recipe's, then those that know less"""
    may_train: bool
    benchmarks: tuple[Benchmark, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def shortcut(self) -> str | None:
        """One sentence without its full stop, when metadata is a shortcut."""
        if isinstance(self.metadata, TooFew) or self.metadata.low <= self.threshold:
            return None
        return self.metadata.warning(self.threshold)

    @property
    def overlap(self) -> str | None:
        """One sentence without its full stop, when benchmarks hold audited images too."""
        return overlap_warning(self.overlaps) if self.overlaps else None

    @property
    def warnings(self) -> list[str]:
        return [warning for warning in (self.shortcut, self.overlap) if warning is not None]


def audit(database: Database, *, source: str | None, settings: RecipeFile) -> AuditReport:
    """Look at all labelled images of a source; None: of all that may be trained on but the demo.

    Raises ConfigError when there is no such source or no labelled image.
    """
    with database.read() as session:
        known = read_sources(session)
        names = _choose(source_names(session), known, source)
        images = list(labelled_images(session, sources=names))
        may_train = any(known[name].may_train for name in names)
        benchmarks = list(benchmark_images(session)) if may_train else []
        evidence = Evidence(
            images=images,
            may_train=may_train,
            benchmarks=benchmarks,
            relatives=relatives(session, images) if benchmarks else (),
            shared=shared_files(session, names),
        )
    if not images:
        raise ConfigError("no labelled image to audit: `python -m generation ingest` takes them in")
    return report_on(evidence, settings)


def _choose(present: Sequence[str], known: Mapping[str, Source], source: str | None) -> list[str]:
    """The source asked for; else those that may be trained on, and where none may, all."""
    names = list(choose_sources(present, source))
    return [name for name in names if source or known[name].may_train] or names


def report_on(evidence: Evidence, settings: RecipeFile) -> AuditReport:
    """The report on what was read from a database."""
    images = evidence.images
    overlaps = find_overlaps(images, evidence.benchmarks, relatives=evidence.relatives)
    return AuditReport(
        sources=tuple(sorted({image.source for image in images})),
        real=sum(image.label is Authenticity.REAL for image in images),
        fake=sum(image.label is Authenticity.FAKE for image in images),
        groups=len({image.group for image in images}),
        groups_of_both_labels=groups_of_both_labels(images),
        clusters=len({image.cluster for image in images}),
        mixed_clusters=tuple(mixed_clusters(images)),
        shared=tuple(
            SharedFiles(source=source, held_by=held_by, files=files)
            for (source, held_by), files in evidence.shared.items()
        ),
        tables=label_tables(images),
        threshold=settings.audit.metadata_auc,
        metadata=measure_metadata(images),
        with_bytes=measure_metadata(images, with_bytes=True),
        splits=check_splits(images, settings.split.plan()),
        may_train=evidence.may_train,
        benchmarks=_benchmarks(evidence.benchmarks, overlaps),
        overlaps=tuple(overlaps),
    )


def _benchmarks(
    images: Sequence[BenchmarkImage], overlaps: Sequence[Overlap]
) -> tuple[Benchmark, ...]:
    counts = count_by_benchmark(overlaps)
    sizes = Counter(image.benchmark for image in images)
    return tuple(
        Benchmark(name=name, images=number, overlaps=dict(counts.get(name, {})))
        for name, number in sorted(sizes.items())
    )


def as_json(report: AuditReport) -> str:
    """The whole report; the same images give the same text."""
    values = {**asdict(report), "warnings": report.warnings}
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
    for check in report.splits:
        yield (
            f"split {check.way}: {check.groups:,} groups and {check.clusters:,} near-duplicate "
            f"clusters in several splits, {check.exposed:,} images of val and test with a relative "
            "in train"
        )
    for benchmark in report.benchmarks:
        yield f"overlap with {benchmark.name} ({benchmark.images:,} images): {_found(benchmark)}"
    if not report.benchmarks:
        yield f"overlap with benchmarks: {_why_no_benchmark(report)}"
    yield from (f"warning: {warning}" for warning in report.warnings)


def _why_no_benchmark(report: AuditReport) -> str:
    return "none is registered" if report.may_train else "not looked for, nothing trains on this"


def _found(benchmark: Benchmark) -> str:
    counts = (f"{number:,} {kinship}" for kinship, number in benchmark.overlaps.items())
    return ", ".join(counts) or "none"


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
        splits=list(Split),
        kinships=list(Kinship),
        most=MOST_SHOWN,
        near=NEAR,
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
