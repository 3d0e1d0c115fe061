"""The plots of a report, as images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import precision_recall_curve, roc_curve

from training.detection import Line
from training.metrics import Labels, Scores, reliability

if TYPE_CHECKING:
    from training.robustness import RobustnessLine

SIZE = (4.6, 3.6)
"""inches"""
BINS = 25
LONGEST_LABEL = 48
"""characters"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One plot."""

    name: str
    caption: str
    data_uri: str


def draw_roc(labels: Labels, scores: Mapping[str, Scores], *, on: str) -> Figure:
    """ROC curves of all ways to score, on the same images; `on` says in words which."""
    figure, axes = _axes("called fake among photographs", "called fake among fakes")
    for name, values in scores.items():
        false_rate, true_rate, _ = roc_curve(labels, values)
        axes.plot(false_rate, true_rate, label=name, linewidth=1.5)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    axes.legend(fontsize=6, loc="lower right")
    return _finish(figure, "roc", f"ROC curve on {on}.")


def draw_precision(labels: Labels, scores: Scores) -> Figure:
    """Precision against recall, with what always calling everything fake would have."""
    figure, axes = _axes(
        "share of fakes called fake (recall)", "fakes among those called (precision)"
    )
    precision, recall, _ = precision_recall_curve(labels, scores)
    axes.plot(recall, precision, linewidth=1.5)
    axes.axhline(labels.mean(), color="0.7", linestyle=":")
    axes.set_ylim(0, 1.03)
    return _finish(figure, "precision", "Precision and recall; dotted: everything is called fake.")


def draw_generators(lines: Sequence[Line]) -> Figure:
    """AUROC by generator as bars with intervals, the worst first."""
    from matplotlib.figure import Figure as Canvas

    ordered = sorted(lines, key=lambda line: line.auroc.value)
    figure = Canvas(figsize=(9, 0.8 + 0.34 * len(ordered)), layout="constrained")
    axes = figure.add_subplot()
    values = np.array([line.auroc.value for line in ordered])
    lows = values - [line.auroc.low for line in ordered]
    highs = [line.auroc.high for line in ordered] - values
    axes.barh(
        [f"{_as_label(line.name)} ({line.fakes:,})" for line in ordered],
        values,
        xerr=np.clip([lows, highs], 0, None),
        color="#7fb0de",
        ecolor="#1b1f24",
        capsize=3,
        height=0.65,
    )
    axes.invert_yaxis()
    axes.axvline(0.5, color="0.6", linestyle=":")
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("AUROC against all photographs")
    _lighten(axes)
    caption = "By generator, the worst first, with 95 % intervals; in brackets how many fakes."
    return _finish(figure, "generators", caption)


def draw_robustness(lines: Sequence[RobustnessLine]) -> Figure:
    """AUROC against the strength of each kind of change; dashed: unchanged images."""
    from matplotlib.figure import Figure as Canvas

    unchanged = lines[0].auroc.value
    kinds: list[str | None] = [*dict.fromkeys(line.kind for line in lines if line.kind)] or [None]
    figure = Canvas(figsize=(2.1 * max(len(kinds), 2), 2.6), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        own = sorted(
            (line for line in lines[1:] if line.kind == kind), key=lambda line: line.strength or 0
        )
        strengths = (
            [line.strength for line in own] if kind else [_as_label(line.change) for line in own]
        )
        axes.plot(strengths, [line.auroc.value for line in own], "o-", markersize=4)
        if kind:
            axes.fill_between(
                strengths,
                [line.auroc.low for line in own],
                [line.auroc.high for line in own],
                alpha=0.18,
            )
        axes.axhline(unchanged, color="0.5", linestyle="--", linewidth=1)
        axes.axhline(0.5, color="0.7", linestyle=":", linewidth=1)
        axes.set_title(kind or "chains", fontsize=10)
        axes.set_ylim(0, 1.03)
        _lighten(axes)
    panels[0].set_ylabel("AUROC")
    caption = (
        "AUROC against the strength of each kind of change; dashed: unchanged, dotted: chance."
    )
    return _finish(figure, "robustness", caption)


def draw_reliability(labels: Labels, probabilities: Scores) -> Figure:
    """Share of fakes against the predicted probability."""
    figure, axes = _axes("mean p_fake of a bin", "share of fakes in it")
    points = reliability(labels, probabilities)
    predicted, observed, counts = (np.array(column) for column in zip(*points, strict=True))
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    axes.plot(predicted, observed, color="tab:blue", linewidth=1)
    axes.scatter(predicted, observed, s=10 + 200 * counts / counts.sum(), color="tab:blue")
    return _finish(
        figure, "reliability", "Reliability of p_fake; larger dots stand for more images."
    )


def draw_histogram(labels: Labels, probabilities: Scores) -> Figure:
    """Scores of fakes and of photographs."""
    figure, axes = _axes("p_fake", "images")
    edges = np.linspace(0, 1, BINS + 1)
    for name, chosen in (("photographs", ~labels), ("fakes", labels)):
        axes.hist(probabilities[chosen], bins=edges, alpha=0.6, label=name)
    axes.legend(fontsize=7)
    return _finish(figure, "histogram", "Scores of all images that were tested.")


def draw_losses(steps: Sequence[int], losses: Sequence[Mapping[str, float]]) -> Figure:
    """Training loss by step, one series for each family or form."""
    figure, axes = _axes("step", "loss on answer tokens")
    for key in sorted({key for own in losses for key in own}):
        points = [(step, own[key]) for step, own in zip(steps, losses, strict=True) if key in own]
        axes.plot(*zip(*points, strict=True), ".", markersize=2, label=key)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    return _finish(figure, "losses", "Training loss, one point for each step.")


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    _lighten(axes)
    return figure, axes


def _as_label(text: str) -> str:
    """Names are untrusted: a dollar sign would begin a formula."""
    return text[:LONGEST_LABEL].replace("$", r"\$")


def _lighten(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)


def _finish(figure: Any, name: str, caption: str) -> Figure:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Figure(name, caption, f"data:image/png;base64,{encoded}")
