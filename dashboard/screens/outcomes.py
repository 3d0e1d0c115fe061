"""Evaluations of benchmarks, and predictions about images, as two views of the page on runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.errors import FakeScopeError
from core.records import ImageRecord
from dashboard import charts, pictures, show
from dashboard.outcomes import Evaluation, Predictions, evaluations, predictions
from dashboard.place import Place
from db.images import images_by_hash

MOST_ERRORS = 24
ROWS = 12
"""predictions of one page"""
POST_HOC = "Words come after the score: nothing proves that they are what decided it."


# Evaluations


def show_evaluations(place: Place, choices: Any) -> None:
    """All of them in one table, and one of them at length."""
    known = evaluations(place.home)
    if not known:
        show.empty(
            "No benchmark has been evaluated yet, or not below `evaluations/`:",
            "python -m training.evaluate --checkpoint RUN/checkpoints/step-… --data BENCHMARK "
            f"--out {place.home}/evaluations/NAME",
        )
        return
    names = list(known)
    name = show.choose(choices, "Evaluation", names, key="evaluation", all_of=show.cell(names[0]))
    reports = {each.name: each.report() for each in known.values()}
    show.table([_summary(name, report) for name, report in reports.items()], name="evaluations")
    chosen = known[name or names[0]]
    st.subheader("One of them", anchor=False)
    show.text(show.cell(chosen.name))
    show.say_unreadable(chosen.unreadable())
    _show_evaluation(place, chosen, reports[chosen.name])


def _summary(name: str, report: Mapping[str, Any]) -> dict[str, Any]:
    asked, found = report.get("asked") or {}, report.get("detection") or {}
    whole, verdicts = found.get("whole") or {}, (report.get("answers") or {}).get("verdicts") or {}
    masks = (report.get("masks") or {}).get("scores") or {}
    return {
        "evaluation": name,
        "evaluated": asked.get("scorer"),
        "benchmark": asked.get("benchmark"),
        "fakes": found.get("fakes"),
        "photographs": found.get("photographs"),
        "AUROC": (whole.get("auroc") or {}).get("value"),
        "balanced accuracy": (whole.get("figures") or {}).get("balanced_accuracy"),
        "worst generator": found.get("worst"),
        "verdicts in words": verdicts.get("accuracy"),
        "mask F1": masks.get("f1"),
    }


def _show_evaluation(place: Place, evaluation: Evaluation, report: Mapping[str, Any]) -> None:
    if not report:
        show.empty("Its report comes when it has ended; the same command goes on with it.")
        return
    found = report.get("detection")
    if not found:
        st.caption("No image has both a label and a score.")
        return
    left, right = st.columns(2, gap="large")
    with left:
        _show_generators(found)
    with right:
        _show_ways(report)
    _show_changes(report)
    _show_worst(place, evaluation, report["asked"].get("calibration"))


def _show_generators(found: Mapping[str, Any]) -> None:
    lines = [*([found["whole"]] if found["whole"] else []), *found["generators"]]
    if not lines:
        st.caption("One class only: there is no AUROC.")
        return
    charts.intervals(
        pd.DataFrame([_interval(line["name"], line["auroc"], line["fakes"]) for line in lines]),
        title=f"AUROC by generator ({found['photographs']:,} photographs)",
        unit="AUROC, 95 % interval",
        domain=(0.0, 1.0),
    )


def _show_ways(report: Mapping[str, Any]) -> None:
    ways = [way for way in report.get("ways", ()) if way["auroc"]]
    if ways:
        charts.intervals(
            pd.DataFrame([_interval(way["name"], way["auroc"], way["images"]) for way in ways]),
            title=f"Beside what needs no model ({ways[0]['images']:,} images)",
            unit="AUROC, 95 % interval",
            domain=(0.0, 1.0),
        )


def _show_changes(report: Mapping[str, Any]) -> None:
    changes = report.get("robustness", ())
    if changes:
        charts.intervals(
            pd.DataFrame(
                [_interval(each["change"], each["auroc"], each["images"]) for each in changes]
            ),
            title=f"After changes of the images ({changes[0]['images']:,} images)",
            unit="AUROC, 95 % interval",
            domain=(0.0, 1.0),
        )


def _interval(name: str, found: Mapping[str, float], number: int) -> dict[str, Any]:
    return {"name": show.cell(name), **found, "n": number}


def _show_worst(
    place: Place, evaluation: Evaluation, calibration: Mapping[str, float] | None
) -> None:
    fitted = calibration or {"threshold": 0.0, "bias": 0.0, "scale": 1.0}
    threshold = (fitted["threshold"] - fitted["bias"]) / fitted["scale"]
    found = evaluation.errors(threshold, most=MOST_ERRORS)
    if found.empty:
        st.caption("No image is called wrong.")
        return
    st.subheader("Most confident errors", anchor=False)
    images = known_images(place, images_by_hash, found["sha256"])
    how_sure = [f"log-odds {log_odds:+.2f}" for log_odds in found["log_odds"]]
    show_errors(place, found, images, named="sha256", how_sure=how_sure)


# Predictions


def show_predictions(place: Place, choices: Any) -> None:
    """What a checkpoint says of each image of a file of predictions."""
    known = predictions(place.home)
    if not known:
        show.empty(
            f"There are no predictions in {place.home} or in its folder `predictions/`:",
            "python -m training.predict IMAGES --checkpoint RUN/checkpoints/step-… "
            f"--out {place.home}/predictions/NAME.jsonl",
        )
        return
    names = list(known)
    name = show.choose(choices, "File", names, key="file", all_of=show.cell(names[0]))
    chosen = known[name or names[0]]
    show.say_unreadable(chosen.unreadable())
    counts = chosen.outcomes()
    for column, (outcome, number) in zip(st.columns(4), counts.items(), strict=False):
        show.figure(column, outcome.capitalize(), f"{number:,}", "images")
    charts.histogram(
        chosen.scores(),
        title=f"Probability of fake ({sum(counts.values()):,} images)",
        parts="outcome",
    )
    wanted = show.choose(st, "Verdict", list(counts), key="verdict", all_of="all")
    _show_answers(place, chosen, wanted, counts[wanted] if wanted else sum(counts.values()))


def _show_answers(place: Place, chosen: Predictions, wanted: str | None, total: int) -> None:
    offset = show.turn_pages(total, size=ROWS)
    rows = chosen.page(wanted, limit=ROWS, offset=offset)
    images = known_images(place, images_by_hash, rows["sha256"])
    for row in rows.to_dict("records"):
        image = images.get(row["sha256"])
        left, right = st.columns([1, 5])
        with left:
            if image is not None:
                pictures.small(place, image)
        with right:
            _show_answer(row)
            if image is not None:
                st.caption(f"Here its label is: {pictures.WORDS[image.label]}")
    show.downloads("predictions", lambda: chosen.page(wanted, limit=total, offset=0))


def _show_answer(row: Mapping[Any, Any]) -> None:
    pictures.badge(str(row["outcome"]))
    if row["reason"]:
        show.text(f"{row['name']}\nnot read: {row['reason']}")
        return
    ratio = row["log_likelihood_ratio"]
    sure = "not calibrated" if pd.isna(ratio) else f"log-likelihood ratio {ratio:+.2f}"
    show.text(f"{row['name']}\np(fake) {row['p_fake']:.3f}, {sure}")
    said = json.loads(row["said"]) if isinstance(row["said"], str) else {}
    if isinstance(said, dict) and said:
        st.caption(POST_HOC)
        for question, reply in said.items():
            show.text(f"{question}\n{reply}")


# Pictures of what was scored


def known_images(
    place: Place, find: Callable[..., dict[str, ImageRecord]], names: Iterable[Any]
) -> dict[str, ImageRecord]:
    """Those of the image store; none, and why, where the database cannot be read."""
    wanted = [name for name in names if isinstance(name, str)]
    if place.is_empty:
        return {}
    try:
        return place.ask(find, wanted)
    except FakeScopeError as error:
        show.problem(
            "The pictures are found through the database, which cannot be read.", str(error)
        )
        return {}


def show_errors(
    place: Place,
    found: pd.DataFrame,
    images: Mapping[str, ImageRecord],
    *,
    named: str,
    how_sure: Sequence[str],
) -> None:
    """Wrong images side by side, with their pictures where the store has them."""
    rows = zip(pictures.grid(len(found)), found.to_dict("records"), how_sure, strict=False)
    for column, row, sure in rows:
        with column:
            image = images.get(str(row[named]))
            if image is not None:
                pictures.thumbnail(place, image)
            maker = row["generator"]
            generator = show.cell(maker) if isinstance(maker, str) else "photograph"
            name = show.cell(str(row.get("name") or row[named]))
            st.text(f"{sure}, is {row['label']}\n{generator}\n{name}")
    show.downloads("errors", lambda: found)
