"""`report.json` and `report.html` of an evaluation, made from its predictions alone."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
from scipy.special import expit

from core.errors import ConfigError
from core.ids import image_id_of
from core.records import Authenticity, BenchmarkImage, ImageRecord
from imaging.overlaps import Overlap, find_overlaps
from imaging.shortcuts import MetadataScore, TooFew, measure_metadata
from imaging.simulate import GENERATORS
from instruct_builder.shards import ShardSet
from training.answer_figures import AnswerFigures, measure_answers, tried
from training.answers import Replies, read_replies
from training.benchmarks import Benchmark, Examined, ImageFacts, Refused
from training.detection import Detection, ScoredImage, measure_detection
from training.evaluation import Asked, Done, EvaluationFolder
from training.figures import (
    Figure,
    draw_generators,
    draw_histogram,
    draw_precision,
    draw_reliability,
    draw_robustness,
    draw_roc,
)
from training.judge import Judge, Judging, judge_answers
from training.masks import Marked, MaskFigures, measure_masks
from training.probe import BASELINES
from training.published import read_published
from training.report import POST_HOC, REPORT_HTML, REPORT_JSON, write_atomically
from training.robustness import ROBUSTNESS, RobustnessLine, measure_robustness
from training.text_metrics import TextSettings, open_embedding
from training.ways import Way, measure_ways

WORST: Final = 12
"""most confident errors that the page shows"""
THUMBNAIL: Final = 160
"""pixels of the longer side"""
REASONS: Final = 5
"""refused files that the page names"""
DEFAULT_TEXTS: Final = TextSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a report needs besides the evaluation's folder."""

    shards: Path | None = None
    """what was trained on"""
    texts: TextSettings = DEFAULT_TEXTS
    references: tuple[Path, ...] = ()
    """files of expected answers that the benchmark itself does not hold"""
    judge: Judge | None = None
    """who marks the answers"""
    masks: Path | None = None
    """the model's masks"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All that an evaluation has to show."""

    asked: Asked
    detection: Detection | None
    """None: no image has both a label and a score"""
    metadata: MetadataScore | TooFew
    """how far a classifier gets that sees no pixel"""
    overlaps: tuple[Overlap, ...] | None
    """benchmark images that were trained on; None: nobody said what was trained on"""
    refused: tuple[Refused, ...]
    unlabelled: int
    unscored: int
    """labelled images without a score; the figures leave them out"""
    unsaid: int
    """images whose reply says no verdict, so that its beginning was scored"""
    answers: AnswerFigures | None
    """None: nothing was answered in words"""
    judging: Judging | None
    """how the marks came about; None: nobody judged"""
    ways: tuple[Way, ...]
    """ways to score the images with both labels, the model first"""
    robustness: tuple[RobustnessLine, ...]
    """empty: no change was tried"""
    masks: MaskFigures | None
    """None: the model has no masks, or the benchmark marks nothing"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One of the most confident errors, with its picture."""

    image: ScoredImage
    data_uri: str


def report_evaluation(folder: EvaluationFolder, benchmark: Benchmark, wanted: Wanted) -> str:
    """Write both reports of a finished evaluation; returns the text for a terminal."""
    done = folder.done()
    scored = [image for each in done.predicted if (image := each.scored()) is not None]
    evaluation = _evaluate(folder, benchmark, wanted, done, scored)
    worst = _most_confident_errors(scored, evaluation.asked)
    page = _render(evaluation, _draw(scored, evaluation), list(_picture(worst, benchmark)))
    write_atomically(folder.path / REPORT_HTML, page)
    text = json.dumps(asdict(evaluation), indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder.path / REPORT_JSON, text + "\n")
    return render_text(evaluation, folder.path)


def _evaluate(
    folder: EvaluationFolder,
    benchmark: Benchmark,
    wanted: Wanted,
    done: Done,
    scored: Sequence[ScoredImage],
) -> Evaluation:
    asked = folder.asked()
    facts = [each.facts for each in done.predicted]
    records = [_record(each) for each in facts or _facts_of(benchmark, asked.limit)]
    metadata = measure_metadata(records)
    answers, judging = _measure_answers(folder, benchmark, wanted)
    unlabelled = sum(each.label is None for each in facts)
    return Evaluation(
        asked=asked,
        detection=measure_detection(scored, asked.calibration) if scored else None,
        metadata=metadata,
        overlaps=_overlaps(records, wanted.shards) if wanted.shards else None,
        refused=done.refused,
        unlabelled=unlabelled,
        unscored=len(facts) - unlabelled - len(scored),
        unsaid=sum(each.read_at == "start" for each in done.predicted),
        answers=answers,
        judging=judging,
        ways=measure_ways(scored, folder.rows(BASELINES), metadata, asked.calibration),
        robustness=measure_robustness(scored, folder.rows(ROBUSTNESS), asked.calibration),
        masks=_measure_masks(benchmark, wanted.masks, asked.limit) if wanted.masks else None,
    )


def _facts_of(benchmark: Benchmark, limit: int | None) -> Iterator[ImageFacts]:
    """For evaluations that scored nothing: their images may have been trained on too."""
    return (facts for facts, _ in _readable(benchmark, (), limit))


def _measure_answers(
    folder: EvaluationFolder, benchmark: Benchmark, wanted: Wanted
) -> tuple[AnswerFigures | None, Judging | None]:
    replies = folder.replies()
    if not replies:
        return None, None
    questions = benchmark.questions(limit=folder.asked().limit)
    if wanted.references:
        expected = read_replies(wanted.references, questions).texts
        questions = [
            replace(each, reference=expected.get((each.image, each.key), each.reference))
            for each in questions
        ]
    answers = tried(Replies(replies).to(questions))
    marks, judging = (
        judge_answers(answers, wanted.judge, folder.path) if wanted.judge else ({}, None)
    )
    embed = open_embedding(wanted.texts.embedding) if wanted.texts.embedding else None
    return measure_answers(answers, wanted.texts, embed=embed, marks=marks), judging


def _measure_masks(benchmark: Benchmark, folder: Path, limit: int | None) -> MaskFigures:
    traces = {found.name: found.traces for found in islice(benchmark.files(), limit)}
    others = {name for name, own in traces.items() if not own}
    if len(others) == len(traces):
        raise ConfigError(f"{benchmark.path} marks no trace that masks could be compared with")
    images = (
        Marked(facts.name, facts.width, facts.height, traces[facts.name])
        for facts, _ in _readable(benchmark, others, limit)
    )
    return measure_masks(images, folder)


def _readable(
    benchmark: Benchmark, without: Collection[str], limit: int | None
) -> Iterator[Examined]:
    return (
        each
        for each in benchmark.read(without=without, limit=limit)
        if not isinstance(each, Refused)
    )


def _record(facts: ImageFacts) -> ImageRecord:
    """As the measurements of a collection take it; of near-duplicates nothing is known here."""
    image_id = image_id_of(facts.sha256)
    return ImageRecord(
        image_id=image_id,
        sha256=facts.sha256,
        original_sha256=facts.sha256,
        path=facts.name,
        width=facts.width,
        height=facts.height,
        format=facts.format,
        jpeg_quality=facts.jpeg_quality,
        phash=facts.phash,
        cluster=image_id,
        group=facts.group,
        label=None if facts.label is None else Authenticity(facts.label),
        generator=facts.generator,
        source="benchmark",
        size_bytes=facts.size_bytes,
        subsampling=facts.subsampling,
    )


def _overlaps(images: Sequence[ImageRecord], shards: Path) -> tuple[Overlap, ...]:
    trained = [
        BenchmarkImage(
            benchmark=f"{shards} ({row['split']})",
            name=row["image_id"],
            sha256=row["original_sha256"],
            phash=row["phash"],
        )
        for row in ShardSet.open(shards).images().to_pylist()
        if row["split"] != "test"
    ]
    return tuple(find_overlaps(images, trained))


def _most_confident_errors(scored: Sequence[ScoredImage], asked: Asked) -> list[ScoredImage]:
    """Those on the wrong side of the threshold, the farthest first."""
    calibration = asked.calibration
    threshold = (0.0 if calibration is None else (calibration.threshold - calibration.bias)) / (
        1.0 if calibration is None else calibration.scale
    )

    def distance(image: ScoredImage) -> float:
        sign = 1 if image.label is Authenticity.REAL else -1
        return sign * (image.log_odds - threshold)

    wrong = [image for image in scored if distance(image) > 0]
    return sorted(wrong, key=lambda image: (-distance(image), image.name))[:WORST]


def _picture(errors: Sequence[ScoredImage], benchmark: Benchmark) -> Iterable[Shown]:
    wanted = {image.name: image for image in errors}
    others = {found.name for found in benchmark.files()} - wanted.keys()
    pictures = {facts.name: image for facts, image in _readable(benchmark, others, None)}
    for name, image in wanted.items():
        if (picture := pictures.get(name)) is not None:
            buffer = io.BytesIO()
            picture.thumbnail((THUMBNAIL, THUMBNAIL))
            picture.save(buffer, "JPEG", quality=85)
            data = base64.b64encode(buffer.getvalue()).decode()
            yield Shown(image, f"data:image/jpeg;base64,{data}")


def _draw(scored: Sequence[ScoredImage], evaluation: Evaluation) -> list[Figure]:
    labels = np.array([image.label is Authenticity.FAKE for image in scored], bool)
    if not labels.any() or labels.all():
        return []
    log_odds = np.array([image.log_odds for image in scored])
    calibration, found = evaluation.asked.calibration, evaluation.detection
    probabilities = calibration.probabilities(log_odds) if calibration else expit(log_odds)
    return [
        draw_roc(labels, {"all images": log_odds}, on="all images of the benchmark"),
        draw_precision(labels, log_odds),
        draw_reliability(labels, probabilities),
        draw_histogram(labels, probabilities),
        *([draw_generators(found.generators)] if found else []),
        *([draw_robustness(evaluation.robustness)] if evaluation.robustness else []),
    ]


def caveats(evaluation: Evaluation) -> list[str]:
    """What has to be kept in mind when reading the figures; the gravest first."""
    lines = []
    found = evaluation.detection
    simulated = [line.name for line in found.generators if line.name in GENERATORS] if found else []
    if simulated:
        lines.append(
            f"Simulated generators: {', '.join(simulated)}. Their figures say nothing about real "
            "ones."
        )
    if learnt := evaluation.asked.simulated_generators:
        lines.append(
            f"The checkpoint learnt fakes of simulated generators ({', '.join(learnt)}): its "
            "figures say nothing about a detector that has learnt from real ones."
        )
    if evaluation.overlaps is None:
        lines.append(
            "Whether these images were trained on was not checked: name the shards with --shards."
        )
    elif not evaluation.overlaps:
        lines.append("None of these images is in the training data, as it is or nearly so.")
    else:
        lines.append(
            f"{len({each.image_id for each in evaluation.overlaps}):,} of these images are in the "
            "training data, as they are or nearly so: the figures are too good."
        )
    if isinstance(evaluation.metadata, MetadataScore) and evaluation.metadata.low > 0.6:
        lines.append(
            f"Without a look at a pixel, metadata tells real from fake here with an AUROC of "
            f"{evaluation.metadata.auc:.3f}: a detector may do so too."
        )
    if evaluation.detection is not None and evaluation.asked.calibration is None:
        lines.append("The scores are not calibrated: their threshold is even odds of the raw ones.")
    if evaluation.unsaid:
        lines.append(
            f"{evaluation.unsaid:,} replies say no verdict: their score was read where they begin."
        )
    if evaluation.refused or evaluation.unscored:
        lines.append(
            f"{len(evaluation.refused):,} files could not be read and {evaluation.unscored:,} have "
            "no score; the figures leave them out."
        )
    return [*lines, POST_HOC]


def render_text(evaluation: Evaluation, folder: Path) -> str:
    """A few lines for a terminal."""
    found, lines = evaluation.detection, []
    if found is None:
        has_more = evaluation.answers or evaluation.masks
        lines += [] if has_more else ["no image has both a label and a score"]
    elif found.whole is None:
        side = "fakes" if found.fakes else "photographs"
        share = found.found if found.fakes else found.alarms
        lines.append(f"{found.fakes + found.photographs:,} {side} only; called fake: {share:.3f}")
    else:
        figures = found.whole.figures
        lines += [
            f"{found.fakes:,} fakes and {found.photographs:,} photographs",
            f"AUROC              {found.whole.auroc}",
            f"balanced accuracy  {figures['balanced_accuracy']:.3f}; called fake: "
            f"{found.found:.3f} of fakes, {found.alarms:.3f} of photographs",
            f"equal error rate   {figures['equal_error_rate']:.3f}",
            f"Cllr               {figures['cllr']:.3f} bits",
        ]
        if len(found.generators) > 1:
            lines.append(
                f"by generator       macro mean of AUROC {found.macro['auroc']:.3f}, "
                f"worst: {found.worst}"
            )
    lines += [f"{way.name}: AUROC {way.auroc}" for way in evaluation.ways[1:] if way.auroc]
    if evaluation.answers:
        lines += _render_answers(evaluation.answers, evaluation.judging)
    lines += _render_masks(evaluation.masks) if evaluation.masks else []
    return "\n".join([*lines, *caveats(evaluation), f"report: {folder / REPORT_HTML}"])


def _render_answers(answers: AnswerFigures, judging: Judging | None) -> list[str]:
    simulated = " (simulated: by counted words)" if judging and judging.simulated else ""
    lines = [f"{answers.answered:,} of {answers.questions:,} questions answered in words"]
    if verdicts := answers.verdicts:
        lines.append(
            f"verdicts           accuracy {verdicts.accuracy:.3f}, F1 of fakes "
            f"{verdicts.f1_fake:.3f}, of photographs {verdicts.f1_real:.3f}, "
            f"macro {verdicts.f1_macro:.3f}; "
            f"without a verdict {verdicts.unanswered:.3f}"
        )
    for axis in answers.axes:
        if axis.scores is None:
            lines.append(f"{axis.axis:<18} nothing to compare with: its answers are withheld")
            continue
        scores = axis.scores
        similarity = "n/a" if scores.similarity is None else f"{scores.similarity:.3f}"
        lines.append(
            f"{axis.axis:<18} BLEU-1 {scores.bleu_1:.3f}, BLEU-2 {scores.bleu_2:.3f}, "
            f"ROUGE-L {scores.rouge_l:.3f}, similarity {similarity}"
            + (f", judged {axis.marks.average:.3f} of 2{simulated}" if axis.marks else "")
        )
    return lines


def _render_masks(masks: MaskFigures) -> list[str]:
    rows = {
        "masks": masks.scores,
        "nothing marked": masks.nothing_marked,
        "everything marked": masks.everything_marked,
    }
    lines = [
        f"{name:<18} mean IoU {row.mean_iou:.3f}, foreground IoU {row.foreground_iou:.3f}, "
        f"foreground F1 {row.f1:.3f}"
        for name, row in rows.items()
    ]
    unusable = f"{masks.missing:,} without a mask, {len(masks.refused):,} masks cannot be used"
    return [*lines, f"{masks.images:,} images; {unusable}, taken as nothing marked"]


def _render(evaluation: Evaluation, figures: Sequence[Figure], worst: Sequence[Shown]) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    template = environment.get_template("evaluation.jinja")
    values: dict[str, Any] = {
        "title": f"Evaluation on {evaluation.asked.layout}",
        "evaluation": evaluation,
        "asked": asdict(evaluation.asked),
        "caveats": caveats(evaluation),
        "figures": figures,
        "worst": worst,
        "published": read_published(evaluation.asked.layout),
        "refused": evaluation.refused[:REASONS],
        "is_scored": isinstance(evaluation.metadata, MetadataScore),
    }
    return template.render(values)
