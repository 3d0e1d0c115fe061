"""Experts: whether they agree, how they do on gold, how fast they are, what they dispute."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import streamlit as st

from core.agreement import Alpha
from core.blind_experts import BlindAgreement
from core.disputes import QueuedDraft
from core.experts import ReviewAgreement, TraceAgreement
from core.preference import Share
from core.recipe import Recipe
from core.records import TaskKind
from dashboard import charts, show
from dashboard.place import Place, recipe_of
from dashboard.studio import first_address, task_address
from db.progress import CampaignSummary
from db.quality import Quality, measure_experts, measure_preferences
from db.studio_tasks import flagged_work, tasks_about

AGREEMENT, EXPERTS, QUEUE, OVERWRITTEN, STUDY = (
    "Agreement",
    "Each expert",
    "Adjudication queue",
    "Work that does not count",
    "Preference study",
)
QUEUE_SHOWN = 200
FLAGS_SHOWN = 500


def show_page(place: Place) -> None:
    """The page."""
    campaign = show.header(place, "Experts")
    if campaign is None:
        return
    recipe = recipe_of(place, campaign)
    measured = place.measure(measure_experts, recipe)
    quality, queue, found = measured.quality, measured.queue, measured.agreement
    if not quality.traces.drafts and found.blind is None:
        show.empty("No expert has said anything yet. Experts check drafts in:", "make annotate")
        return
    cells = st.columns(4)
    reviews, overall = found.reviews, found.reviews.overall
    reviewed = f"{quality.traces.drafts:,} drafts reviewed"
    show.figure(cells[0], "Reviewed by two or more", f"{reviews.images:,} images", reviewed)
    show.figure(cells[1], "Alpha of outcomes", _value(overall.outcome), _interval(overall.outcome))
    show.figure(cells[2], "Alpha of what is left", _value(overall.kept), _interval(overall.kept))
    show.figure(cells[3], "Wait for a ruling", f"{len(queue):,}", "drafts")
    view = show.choose_view((AGREEMENT, EXPERTS, QUEUE, OVERWRITTEN, STUDY))
    if view == AGREEMENT:
        _show_agreement(reviews, found.blind)
    elif view == EXPERTS:
        _show_experts(reviews, quality, found.blind)
    elif view == QUEUE:
        _show_queue(place, campaign, queue)
    elif view == OVERWRITTEN:
        _show_flagged(place, campaign)
    else:
        _show_study(place, recipe)


def _value(alpha: Alpha) -> str:
    return "-" if alpha.value is None else f"{alpha.value:.2f}"


def _interval(alpha: Alpha) -> str:
    if alpha.low is None:
        return f"{alpha.units:,} units, too few for an interval"
    return f"{alpha.low:.2f} to {alpha.high:.2f} of {alpha.units:,} units"


# Agreement


def _show_agreement(reviews: ReviewAgreement, blind: BlindAgreement | None) -> None:
    st.caption(
        "Krippendorff's alpha with 95 % intervals by bootstrap over images: 1 is perfect, 0 is "
        "chance. He asks for 0.8, and draws tentative conclusions from 0.667 on."
    )
    for title, rows in (
        ("trace category", reviews.by_category),
        ("teacher and prompt", reviews.by_teacher_version),
        ("expert, with each other", reviews.by_expert),
    ):
        _draw_agreement(title, rows)
    if reviews.pairs:
        show.table(
            [
                {
                    "experts": " and ".join(pair.experts),
                    "images": pair.images,
                    "Cohen's kappa": pair.kappa,
                    "categories shared": pair.categories,
                    "texts alike": f"{pair.alike.texts} of {pair.alike.of_texts}",
                    "regions alike": f"{pair.alike.regions} of {pair.alike.of_regions}",
                    "times alike": f"{pair.alike.times} of {pair.alike.of_times}",
                }
                for pair in reviews.pairs
            ],
            name="pairs-of-experts",
        )
    if blind is not None:
        st.subheader(f"Blind labels ({blind.images:,} images)", anchor=False)
        _draw_alphas("Category chosen blind, by trace category", blind.by_category)


def _draw_agreement(title: str, rows: Mapping[str, TraceAgreement]) -> None:
    left, right = st.columns(2, gap="large")
    with left:
        outcomes = {name: row.outcome for name, row in rows.items()}
        _draw_alphas(f"Outcome of a trace, by {title}", outcomes)
    with right:
        _draw_alphas(f"Category left or not, by {title}", {n: r.kept for n, r in rows.items()})


def _draw_alphas(title: str, alphas: Mapping[str, Alpha]) -> None:
    frame = pd.DataFrame(
        [
            {
                "name": show.cell(name),
                "value": alpha.value,
                "low": alpha.value if alpha.low is None else alpha.low,
                "high": alpha.value if alpha.high is None else alpha.high,
                "n": alpha.units,
            }
            for name, alpha in alphas.items()
            if alpha.value is not None
        ]
    )
    if frame.empty:
        st.caption(f"{title}: nothing differs, or too few images")
        return
    units = f"alpha ({frame['n'].sum():,} units)"
    charts.intervals(frame, title=title, unit=units, domain=(-0.5, 1.0))


# Each expert


def _show_experts(reviews: ReviewAgreement, quality: Quality, blind: BlindAgreement | None) -> None:
    gold = quality.gold.get(TaskKind.REVIEW, {})
    names = sorted({*quality.paces, *reviews.accuracy, *gold})
    rows = []
    for name in names:
        pace, score = quality.paces.get(name), gold.get(name)
        rows.append(
            {
                "expert": name,
                "images": pace.images if pace else 0,
                "median seconds": pace.median_s if pace else None,
                "mean seconds": pace.mean_s if pace else None,
                "probably right": reviews.accuracy.get(name),
                "gold items": score.items if score else 0,
                "gold precision": score.precision if score else None,
                "gold recall": score.recall if score else None,
            }
        )
    shares = ("probably right", "gold precision", "gold recall")
    show.table(rows, name="experts", columns={name: show.percent(name) for name in shares})
    timed = pd.DataFrame([row for row in rows if row["median seconds"] is not None])
    if not timed.empty:
        timed["expert"] = timed["expert"].map(show.cell)
        charts.bars(
            timed,
            title=f"Median time for a review ({timed['images'].sum():,} images)",
            value="median seconds",
            name="expert",
            unit="seconds",
        )
    if blind is not None:
        _show_blind_experts(blind)
    for kind, scores in quality.gold.items():
        if kind is not TaskKind.REVIEW:
            show.table(
                [
                    {
                        "expert": name,
                        "gold items": score.items,
                        "verdict right": score.right_verdict_share,
                        "precision": score.precision,
                        "recall": score.recall,
                    }
                    for name, score in scores.items()
                ],
                name=f"gold-{kind}",
            )


def _show_blind_experts(blind: BlindAgreement) -> None:
    st.subheader("Blind labels", anchor=False)
    show.table(
        [
            {
                "expert": name,
                "images": each.images,
                "right verdicts": each.right,
                "probably right": each.accuracy,
                "alpha with others": each.verdict.value,
            }
            for name, each in blind.by_expert.items()
        ],
        name="blind-experts",
        columns={name: show.percent(name) for name in ("right verdicts", "probably right")},
    )


# Disagreement, and work that does not count


def _show_queue(place: Place, campaign: CampaignSummary, queue: list[QueuedDraft]) -> None:
    if not queue:
        show.empty("No draft waits for an adjudicator.")
        return
    shown = queue[:QUEUE_SHOWN]
    tasks = place.ask(tasks_about, campaign.campaign_id, [queued.image_id for queued in shown])
    kinds = (TaskKind.ADJUDICATION, TaskKind.REVIEW)
    show.table(
        [
            {
                "image": queued.image_id,
                "disagreement": queued.disagreement,
                "disputed traces": ", ".join(queued.disputed),
                "experts": ", ".join(queued.experts),
                "task": first_address(place, tasks.get(queued.image_id, ()), *kinds),
            }
            for queued in shown
        ],
        name="adjudication-queue",
        columns={"disagreement": show.percent("disagreement"), "task": _link()},
    )
    st.caption(f"{len(shown):,} of {len(queue):,}, the worst first; tasks are made by:")
    st.code("python -m annotation adjudicate", language="sh")


def _show_flagged(place: Place, campaign: CampaignSummary) -> None:
    flags = place.ask(flagged_work, campaign.campaign_id, limit=FLAGS_SHOWN)
    if not flags:
        show.empty("Every annotation counts: none was overwritten, none is unreadable.")
        return
    show.table(
        [
            {
                "fate": str(flag.fate),
                "expert": flag.expert or "",
                "reason": flag.reason or "",
                "image": flag.task.image_id,
                "task": task_address(place, flag.task),
            }
            for flag in flags
        ],
        name="work-that-does-not-count",
        columns={"task": _link()},
    )


def _link() -> object:
    return st.column_config.LinkColumn("task", display_text="open in Label Studio")


# The preference study


def _show_study(place: Place, recipe: Recipe) -> None:
    if recipe.settings.review.preference is None:
        show.empty("The recipe asks for no preferences: name two arms in review.preference.arms.")
        return
    report = place.measure(measure_preferences, recipe)
    if report.result is None:
        show.empty(f"Nobody has judged anything yet; the study asks for {report.wanted:,} votes.")
        return
    found = report.result
    rows = {
        "votes, all independent": found.wins,
        "by image": found.by_image,
        "by expert": found.by_expert,
        "text on the left": found.left,
    }
    charts.intervals(
        pd.DataFrame([_share(name, share) for name, share in rows.items()]),
        title=f"{report.arms[0]} preferred to {report.arms[1]} "
        f"({found.wins.votes:,} of {report.wanted:,} votes)",
        unit="share of votes",
        domain=(0.0, 1.0),
    )
    show.table(
        [{"expert": name, "share": share} for name, share in found.experts.items()],
        name="preferences",
        columns={"share": show.percent(f"prefers {report.arms[0]}")},
    )


def _share(name: str, share: Share) -> dict[str, object]:
    return {
        "name": name,
        "value": share.share,
        "low": share.low,
        "high": share.high,
        "n": share.votes,
    }
