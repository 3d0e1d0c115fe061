"""The plots of a report, as images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.metrics import roc_curve

from training.metrics import Labels, Scores, reliability

SIZE = (4.6, 3.6)
"""inches"""
BINS = 25


@dataclass(frozen=True, slots=True)
class Figure:
    """One plot."""

    name: str
    caption: str
    data_uri: str


def draw_roc(labels: Labels, scores: Mapping[str, Scores]) -> Figure:
    """ROC curves of all ways to score, on the same images."""
    figure, axes = _axes("called fake among photographs", "called fake among fakes")
    for name, values in scores.items():
        false_rate, true_rate, _ = roc_curve(labels, values)
        axes.plot(false_rate, true_rate, label=name, linewidth=1.5)
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    axes.legend(fontsize=6, loc="lower right")
    return _finish(figure, "roc", "ROC curves on seen generators and unseen photographs.")


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
    return _finish(figure, "histogram", "Token soft scores on the whole test split.")


def draw_losses(steps: Sequence[int], losses: Sequence[float], keys: Sequence[str]) -> Figure:
    """Training loss by step, one series for each family or form."""
    figure, axes = _axes("step", "loss on answer tokens")
    for key in sorted(set(keys)):
        own = [(s, x) for s, x, name in zip(steps, losses, keys, strict=True) if name == key]
        axes.plot(*zip(*own, strict=True), ".", markersize=2, label=key)
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)
    return _finish(figure, "losses", "Training loss, one point for each step.")


def _axes(x: str, y: str) -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=SIZE, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _finish(figure: Any, name: str, caption: str) -> Figure:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, metadata={"Software": None})
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Figure(name, caption, f"data:image/png;base64,{encoded}")
