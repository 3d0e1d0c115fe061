"""Figures on teachers and experts, and the queue of the adjudicator, as they are printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from core.agreement import Alpha
from core.blind_experts import (
    BlindAgreement,
    BlindExpert,
    BlindPair,
)
from core.command_line import Row, aligned
from core.disputes import QueuedDraft
from core.experts import (
    LEAST_EXPERTS,
    Mean,
    PairAgreement,
    ReviewAgreement,
    TraceAgreement,
)
from core.gold import GoldScore
from core.quality import Pace, TraceQuality
from db.quality import Agreement, Quality

QUALITY_COLUMNS = ("accepted", "edited", "rejected", "traces", "added", "changed")
GOLD_COLUMNS = ("answered", "verdict right", "precision", "recall")
BLIND_COLUMNS = ("images", "verdict right", "with each other", "probably right")
AGREEMENT_COLUMNS = ("outcome", "left", "regions", "texts")
MOST_SHOWN = 5


def quality_as_text(quality: Quality) -> Iterator[str]:
    """What became of the traces by teacher, category and generator, then the experts' pace."""
    traces = quality.traces
    yield f"{traces.drafts:,} drafts reviewed; each expert's decision on each trace counts as one"
    for title, rows in (
        ("teacher and prompt", {**traces.by_teacher_version, "all": traces.overall}),
        ("trace category", traces.by_category),
        ("generator", traces.by_generator),
    ):
        yield ""
        header = (title, *QUALITY_COLUMNS)
        yield from aligned([header, *(_quality_row(*item) for item in rows.items())], words=1)
    yield ""
    pace_rows = [_pace_row(*item) for item in quality.paces.items()]
    yield from aligned([("expert", "images", "median s", "mean s"), *pace_rows], words=1)
    for kind, scores in quality.gold.items():
        yield ""
        gold_rows = [_gold_row(*item) for item in scores.items()]
        yield from aligned([(f"gold items ({kind})", *GOLD_COLUMNS), *gold_rows], words=1)


def _quality_row(name: str, quality: TraceQuality) -> Row:
    written = quality.accepted + quality.edited + quality.rejected
    return (
        name,
        _percent(quality.accepted_share),
        _percent(quality.edited_share),
        _percent(quality.rejected_share),
        f"{written:,}",
        _percent(quality.added_share),
        _percent(quality.text_changed),
    )


def _pace_row(expert: str, pace: Pace) -> Row:
    return (expert, f"{pace.images:,}", _number(pace.median_s, 1), _number(pace.mean_s, 1))


def _gold_row(expert: str, score: GoldScore) -> Row:
    return (
        expert,
        f"{score.items:,}",
        _percent(score.right_verdict_share),
        _percent(score.precision),
        _percent(score.recall),
    )


def queue_as_text(queue: Sequence[QueuedDraft]) -> Iterator[str]:
    """The drafts that wait for an adjudicator, worst first."""
    yield f"{len(queue):,} drafts wait for an adjudicator"
    if queue:
        header = ("image", "experts", "disputed traces", "disagreement")
        yield from aligned([header, *map(_queue_row, queue)], words=3)


def _queue_row(queued: QueuedDraft) -> Row:
    return (
        queued.image_id,
        ", ".join(queued.experts),
        ", ".join(queued.disputed),
        f"{queued.disagreement:.0%}",
    )


def agreement_as_text(found: Agreement) -> Iterator[str]:
    """The figures for all, by category, teacher and expert, then each two experts; then blind."""
    yield from _reviews_as_text(found.reviews)
    if found.blind is not None:
        yield ""
        yield from _blind_as_text(found.blind)


def _reviews_as_text(found: ReviewAgreement) -> Iterator[str]:
    yield f"{found.images:,} images that two experts or more have reviewed"
    yield ""
    yield f"outcome of a trace (nominal):       {_alpha(found.overall.outcome)}"
    yield f"  Fleiss' kappa:                    {_number(found.fleiss, 2)}"
    yield f"trace category left (nominal):      {_alpha(found.overall.kept)}"
    yield f"  shared by two experts (Jaccard):  {_number(found.categories, 2)}"
    yield f"number of traces left (interval):   {_alpha(found.traces)}"
    yield f"confidence (ordinal):               {_alpha(found.confidence)}"
    yield f"verdict (nominal):                  {_alpha(found.verdict)}"
    yield f"overlap of regions:                 {_mean(found.overall.regions)}"
    yield f"similarity of texts:                {_mean(found.overall.texts)}"
    yield from _agreement_table("trace category", found.by_category)
    yield from _agreement_table("teacher and prompt", found.by_teacher_version)
    yield from _agreement_table("expert, with each other", found.by_expert)
    yield ""
    if found.accuracy:
        rows = [(expert, _percent(share)) for expert, share in found.accuracy.items()]
        yield from aligned([("expert", "probably right (Dawid-Skene)"), *rows], words=1)
    else:
        yield f"how often each is right (Dawid-Skene): not known with fewer than {LEAST_EXPERTS}"
    if found.pairs:
        yield ""
        header = ("pair of experts", "images", "Cohen's kappa", "categories", "alike")
        yield from aligned([header, *map(_pair_row, found.pairs)], words=1)
        yield from _warnings(found)


def _blind_as_text(found: BlindAgreement) -> Iterator[str]:
    yield f"{found.images:,} images that two experts or more have labelled blind"
    yield ""
    yield f"verdict (nominal):                  {_alpha(found.verdict)}"
    yield f"confidence (ordinal):               {_alpha(found.confidence)}"
    yield f"trace category chosen (nominal):    {_alpha(found.chosen)}"
    yield f"  shared by two experts (Jaccard):  {_number(found.categories, 2)}"
    known = {name: alpha for name, alpha in found.by_category.items() if alpha.value is not None}
    if known:
        yield ""
        rows = [(name, _alpha(alpha)) for name, alpha in known.items()]
        yield from aligned([("trace category", "chosen"), *rows], words=1)
    yield ""
    expert_rows = [_blind_expert_row(*item) for item in found.by_expert.items()]
    yield from aligned([("blind expert", *BLIND_COLUMNS), *expert_rows], words=1)
    if found.pairs:
        yield ""
        header = ("pair of experts", "images", "Cohen's kappa", "alike")
        yield from aligned([header, *map(_blind_pair_row, found.pairs)], words=1)


def _blind_expert_row(expert: str, row: BlindExpert) -> Row:
    return (
        expert,
        f"{row.images:,}",
        _percent(row.right),
        _alpha(row.verdict),
        _percent(row.accuracy),
    )


def _blind_pair_row(pair: BlindPair) -> Row:
    return (
        " and ".join(pair.experts),
        f"{pair.images:,}",
        _number(pair.kappa, 2),
        f"answers {pair.same_answers} of {pair.of_answers}, times {pair.same_times} of "
        f"{pair.of_times}",
    )


def _agreement_table(title: str, rows: Mapping[str, TraceAgreement]) -> Iterator[str]:
    known = {name: row for name, row in rows.items() if row.kept.value is not None}
    if known:
        yield ""
        header = (title, *AGREEMENT_COLUMNS)
        yield from aligned([header, *(_agreement_row(*item) for item in known.items())], words=1)


def _agreement_row(name: str, row: TraceAgreement) -> Row:
    return (name, _alpha(row.outcome), _alpha(row.kept), _mean(row.regions), _mean(row.texts))


def _pair_row(pair: PairAgreement) -> Row:
    alike = pair.alike
    return (
        " and ".join(pair.experts),
        f"{pair.images:,}",
        _number(pair.kappa, 2),
        _number(pair.categories, 2),
        f"texts {alike.texts} of {alike.of_texts}, regions {alike.regions} of "
        f"{alike.of_regions}, times {alike.times} of {alike.of_times}",
    )


def _warnings(found: ReviewAgreement) -> Iterator[str]:
    for pair in found.pairs:
        image_ids = pair.alike.image_ids
        if image_ids:
            more = ", ..." if len(image_ids) > MOST_SHOWN else ""
            yield (
                f"warning: {' and '.join(pair.experts)} wrote or drew nearly the same in "
                f"{len(image_ids)} images; either can see the other's answer: "
                f"{', '.join(image_ids[:MOST_SHOWN])}{more}"
            )


def _alpha(alpha: Alpha) -> str:
    if alpha.value is None:
        return "- (no difference)" if alpha.units else "-"
    interval = "" if alpha.low is None else f" ({alpha.low:.2f} to {alpha.high:.2f})"
    return f"{alpha.value:.2f}{interval}"


def _mean(mean: Mean) -> str:
    return "-" if mean.value is None else f"{mean.value:.2f} ({mean.pairs:,})"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
