"""Runs: loss and validation while a run goes on, its report, runs compared, worst errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import charts, show
from dashboard.place import FRESH_SECONDS, Place
from dashboard.run_folders import Run, runs
from dashboard.screens.outcomes import known_images, show_errors, show_evaluations, show_predictions
from db.images import images_by_id

CURVES, REPORT, GENERATORS, CALIBRATION, ERRORS, EVALUATIONS, PREDICTIONS = (
    "Curves",
    "Report",
    "Runs by generator",
    "Calibration",
    "Most confident errors",
    "Evaluations",
    "Predictions",
)
OF_A_RUN = (CURVES, REPORT, GENERATORS, CALIBRATION, ERRORS)
MOST_ERRORS = 24
MOST_POINTS = 400
"""of a curve; more are averaged"""


def show_page(place: Place) -> None:
    """The page."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title("Runs", anchor=False)
    view = show.choose_view((*OF_A_RUN, EVALUATIONS, PREDICTIONS))
    if view == EVALUATIONS:
        show_evaluations(place, right)
    elif view == PREDICTIONS:
        show_predictions(place, right)
    else:
        _show_run(place, right, view)


def _show_run(place: Place, choices: Any, view: str) -> None:
    known = runs(place.home)
    if not known:
        show.empty("No run has been started yet. The small model takes minutes:", "make train")
        return
    names = list(known)
    name = show.choose(choices, "Run", names, key="run", all_of=show.cell(names[0]))
    run = known[name or names[0]]
    report = run.report()
    if report.get("simulated"):
        st.warning("This run is simulated, as its own report says.", icon=":material/science:")
        show.text("\n".join(map(str, report["simulated"])))
    _show_headline(run, report)
    if view == CURVES:
        every = None if run.is_finished else FRESH_SECONDS
        st.fragment(_show_curves, run_every=every)(run)
    elif view == REPORT:
        _show_report(report)
    elif view == GENERATORS:
        _compare_generators(list(known.values()))
    elif view == CALIBRATION:
        _show_calibration(run)
    else:
        _show_errors(place, run)


def _show_headline(run: Run, report: dict[str, Any]) -> None:
    cells = st.columns(4)
    state = "finished" if run.is_finished else "under way, or ended early"
    steps = report.get("training", {}).get("steps") or max(
        (int(line.get("step", 0)) for line in run.metrics()), default=0
    )
    show.figure(cells[0], "Steps", f"{steps:,}", state)
    figures = report.get("figures", {})
    images = f"{report.get('images', 0):,} test images"
    show.figure(cells[1], "AUROC", _number(figures.get("auroc")), images)
    photographs = f"{report.get('photographs', 0):,} photographs"
    show.figure(
        cells[2], "Balanced accuracy", _number(figures.get("balanced_accuracy")), photographs
    )
    calibrated = (report.get("calibrated") or figures).get("calibration_error")
    show.figure(cells[3], "Calibration error", _number(calibrated), "after calibration")


def _show_curves(run: Run) -> None:
    lines = run.metrics()
    losses = pd.DataFrame(
        [{"step": line["step"], "loss": line["loss"]} for line in lines if "loss" in line]
    )
    values = pd.DataFrame(
        [
            {"step": line["step"], "AUROC": line["val_auroc"], "curve": "validation"}
            for line in lines
            if line.get("val_auroc") is not None
        ]
    )
    if losses.empty:
        show.empty("No step has been logged yet.")
        return
    left, right = st.columns(2, gap="large")
    with left:
        block = -(-len(losses) // MOST_POINTS)
        means = losses.groupby(losses.index // block).mean().assign(curve="training")
        charts.lines(
            means,
            title=f"Training loss ({len(losses):,} steps)",
            x="step",
            y="loss",
            series="curve",
            unit=("step", "loss (nats a token)"),
        )
    with right:
        if values.empty:
            st.caption("This run has not validated.")
            return
        charts.lines(
            values,
            title=f"AUROC on validation images ({len(values):,} times)",
            x="step",
            y="AUROC",
            series="curve",
            unit=("step", "AUROC"),
        )


def _show_report(report: dict[str, Any]) -> None:
    if not report:
        show.empty("The report comes when the run has ended.")
        return
    rows = [
        {"name": f"{line['name']} · {columns}", **_interval(line.get(key)), "n": report["images"]}
        for line in report.get("table", ())
        for key, columns in (("seen", "seen generators"), ("held_out", "held-out generators"))
        if line.get(key)
    ]
    if rows:
        frame = pd.DataFrame(rows)
        frame["name"] = frame["name"].map(show.cell)
        charts.intervals(
            frame,
            title=f"AUROC on unseen photographs ({report['photographs']:,} photographs)",
            unit="AUROC, 95 % interval",
            domain=(0.0, 1.0),
        )
    figures, calibrated = report.get("figures", {}), report.get("calibrated") or {}
    show.table(
        [
            {
                "figure": name.replace("_", " "),
                "raw": figures.get(name),
                "calibrated": calibrated.get(name),
            }
            for name in dict.fromkeys([*figures, *calibrated])
        ],
        name="figures",
    )
    for caveat in report.get("caveats", ()):
        show.text(f"• {caveat}")


def _compare_generators(known: Sequence[Run]) -> None:
    rows = [
        {
            "generator": show.cell(str(line["generator"])),
            "run": show.cell(run.name),
            "AUROC": line["auroc"]["value"],
            "called fake": line["found"],
            "images": line["images"],
            "held out": line["is_held_out"],
        }
        for run in known
        for line in run.report().get("generators", ())
    ]
    if not rows:
        show.empty("No run has a report yet.")
        return
    frame = pd.DataFrame(rows)
    charts.dots(
        frame,
        title=f"AUROC by generator ({len(known):,} runs)",
        value="AUROC",
        name="generator",
        series="run",
    )
    show.table(
        frame, name="runs-by-generator", columns={"called fake": show.percent("called fake")}
    )


def _show_calibration(run: Run) -> None:
    show.say_unreadable(run.unreadable())
    found, scores = run.reliability(), run.scores()
    if found.empty:
        show.empty("The predictions come when the run has ended.")
        return
    st.caption(
        "Probabilities where fakes are as many as photographs, calibrated where the run has a "
        "calibration."
    )
    left, right = st.columns(2, gap="large")
    with left:
        charts.reliability(found, title=f"Reliability ({int(found['n'].sum()):,} test images)")
    with right:
        charts.histogram(scores, title=f"Scores ({int(scores['images'].sum()):,} test images)")


def _show_errors(place: Place, run: Run) -> None:
    show.say_unreadable(run.unreadable())
    found = run.errors(most=MOST_ERRORS)
    if found.empty:
        show.empty("No test image is called wrong, or the run has not ended.")
        return
    images = known_images(place, images_by_id, found["image_id"])
    how_sure = [f"p(fake) {p_fake:.3f}" for p_fake in found["p_fake"]]
    show_errors(place, found, images, named="image_id", how_sure=how_sure)


def _interval(found: dict[str, float]) -> dict[str, float]:
    return {name: found[name] for name in ("value", "low", "high")}


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
