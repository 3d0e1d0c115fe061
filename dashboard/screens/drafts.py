"""Drafts: what a teacher saw, was told and answered, and what experts made of it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from core.consensus import ruling_on, votes_behind
from core.records import Authenticity, Correction, Draft, TraceFinding, TraceOutcome
from dashboard import pictures, show
from dashboard.place import Place
from db.browse import (
    UNLABELLED,
    DraftDetails,
    DraftFilter,
    DraftLine,
    Fault,
    categories,
    draft_details,
    drafts_page,
    first_drafts,
    values_of_images,
)
from db.progress import CampaignSummary, arm_names

PER_PAGE = 12
DOWNLOADED = 100_000
"""rows of a file at most"""
POINTS = {Authenticity.FAKE: "fake", Authenticity.REAL: "real"}


def show_page(place: Place) -> None:
    """The page."""
    campaign = show.header(place, "Drafts")
    if campaign is None:
        return
    wanted = _filter(place, campaign)
    total, lines = place.ask(first_drafts, wanted, limit=PER_PAGE)
    st.caption(f"{total:,} drafts; choose one in the list")
    if not total:
        show.empty(
            "No such draft. Loosen the filters, or draft more:", "python -m generation draft"
        )
        return
    offset = show.turn_pages(total, size=PER_PAGE)
    if offset:
        lines = place.ask(drafts_page, wanted, limit=PER_PAGE, offset=offset)
    chosen = _choose(lines)
    show.downloads(
        "drafts",
        lambda: pd.DataFrame(map(_line, place.read(drafts_page, wanted, limit=DOWNLOADED))),
    )
    details = place.ask(draft_details, chosen)
    if details is None:
        show.empty("The draft that the address names is not here.")
        return
    _show_details(place, details)


def _filter(place: Place, campaign: CampaignSummary) -> DraftFilter:
    values = place.ask(values_of_images)
    arms = place.ask(arm_names, campaign.campaign_id)
    traces = place.ask(categories)
    cells = st.columns([3, 2, 3, 2, 3, 2])
    faults = [str(fault) for fault in Fault]
    fault = show.choose(cells[0], "Look at", faults, key="fault", all_of="All drafts")
    labels = ["real", "fake", UNLABELLED]
    generators = values["generator"]
    return DraftFilter(
        campaign_id=campaign.campaign_id,
        fault=Fault(fault) if fault else None,
        label=show.choose(cells[1], "Label", labels, key="label", all_of="All"),
        generator=show.choose(cells[2], "Generator", generators, key="generator", all_of="All"),
        arm=show.choose(cells[3], "Arm", arms, key="arm", all_of="All"),
        category=show.choose(cells[4], "Trace category", traces, key="category", all_of="All"),
        image_id=show.find_image(cells[5]),
    )


def _choose(lines: Sequence[DraftLine]) -> str:
    """The draft that was chosen: it stands in the address."""
    frame = pd.DataFrame(map(_line, lines)).drop(columns="draft")
    shown = frame.map(lambda value: show.cell(value) if isinstance(value, str) else value)
    event = st.dataframe(
        shown,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key="drafts",
        alt="Table: drafts",
    )
    rows = event.selection.rows
    if rows and rows[0] < len(lines):
        st.query_params["draft"] = lines[rows[0]].draft_id
    return str(st.query_params.get("draft", lines[0].draft_id))


def _line(line: DraftLine) -> dict[str, object]:
    return {
        "image": line.image_id,
        "label": str(line.label or UNLABELLED),
        "generator": line.generator or "",
        "verdict": str(line.verdict),
        "findings": line.findings,
        "calls": line.calls,
        "corrections": line.corrections,
        "arm": line.arm,
        "teacher": line.teacher,
        "draft": line.draft_id,
    }


# One draft


def _show_details(place: Place, details: DraftDetails) -> None:
    draft, image = details.draft, details.image
    findings = draft.reasoning.findings
    left, right = st.columns([5, 6], gap="large")
    with left:
        pictures.marked(place, image, findings)
        st.text("\n".join([image.image_id, *map(show.cell, details.files)]))
        st.text(
            f"label {image.label or UNLABELLED} · {show.cell(image.generator or 'photograph')} · "
            f"{image.width} × {image.height} {image.format}"
        )
    with right:
        st.subheader(f"Verdict: {draft.reasoning.verdict}", anchor=False)
        st.text(
            f"{show.cell(draft.teacher)} · {draft.prompt_version} · {draft.reasoning.confidence}"
        )
        for number, finding in enumerate(findings, start=1):
            _show_finding(number, finding)
        if not findings:
            st.caption("No finding")
        show.text(draft.reasoning.conclusion)
    parts = {
        "Corrections": lambda: _show_corrections(details),
        "What the teacher was sent": lambda: _show_request(details),
        "What it answered": lambda: _show_reply(details),
        "Calls and cost": lambda: _show_calls(details),
    }
    chosen = show.choose_view(list(parts), key="part")
    parts[chosen]()


def _show_finding(number: int, finding: TraceFinding) -> None:
    with st.container(border=True, gap="small"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            points_to = POINTS[finding.points_to]
            st.badge(f"{number} · {points_to}", color=pictures.BADGES[points_to])
            st.text(show.cell(finding.category) + (" · region" if finding.region else ""))
        show.text(finding.evidence)


def _show_corrections(details: DraftDetails) -> None:
    if details.merged:
        st.caption(f"{len(details.merged)} drafts, whose votes a program has counted")
        show.table(votes(details.draft, details.merged, details.word), name="votes")
    if not details.corrections:
        show.empty("No expert has corrected this draft.", "make annotate")
    for correction in reversed(details.corrections):
        seconds = details.seconds.get(correction.correction_id)
        kind = "ruling" if correction.is_adjudication else "correction"
        time = "" if seconds is None else f" · {seconds:,.0f} s"
        with st.container(border=True):
            st.text(f"{show.cell(correction.expert)} · {kind} {correction.version}{time}")
            if correction.rejects_image:
                st.badge("rejects the image", color="red")
            changes = "\n".join(difference(details.draft, correction))
            st.code(show.shortened(changes), language="diff", wrap_lines=True)


def difference(draft: Draft, correction: Correction) -> Iterator[str]:
    """A draft and what an expert left of it, as lines: `-` before, `+` after, ` ` as it was."""
    left = correction.drafted()
    for position, (finding, outcome) in enumerate(
        zip(draft.reasoning.findings, correction.outcomes, strict=False)
    ):
        before = f"{finding.category}: {finding.evidence}"
        if outcome is TraceOutcome.REJECTED:
            yield f"- {before}"
        elif outcome is TraceOutcome.ACCEPTED:
            yield f"  {before}"
        else:
            after = left[position]
            yield f"- {before}"
            yield f"+ {after.category}: {after.evidence}"
            yield from _changed_words(finding.evidence, after.evidence)
            if after.region != finding.region:
                yield "@@ another region @@"
    for finding in correction.added():
        yield f"+ {finding.category}: {finding.evidence}"
    old, new = draft.reasoning.conclusion, correction.reasoning.conclusion
    yield from [f"  {old}"] if old == new else [f"- {old}", f"+ {new}"]


def _changed_words(before: str, after: str) -> Iterator[str]:
    old, new = before.split(), after.split()
    for kind, i, j, k, m in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind != "equal":
            yield f"@@ {' '.join(old[i:j]) or 'nothing'} → {' '.join(new[k:m]) or 'nothing'} @@"


def votes(
    draft: Draft, merged: Sequence[Draft], word: Correction | None
) -> list[dict[str, object]]:
    """One line for each point that any of the merged drafts raises; what was kept comes first."""
    behind = sorted(votes_behind(draft, merged), key=lambda vote: not vote.is_kept)
    return [
        {
            "point": vote.category,
            "speaks for": POINTS[vote.points_to],
            "raised by": ", ".join(vote.arms),
            "glaring to": ", ".join(vote.glaring),
            "votes": "kept" if vote.is_kept else "dropped",
            "experts": str(ruling_on(vote, word) or ""),
        }
        for vote in behind
    ]


def _show_request(details: DraftDetails) -> None:
    draft, request = details.draft, details.request
    seen = [
        {
            "picture": view.name,
            "part": f"{view.width} × {view.height} at {view.left}, {view.top}",
            "sent": f"{view.sent_width} × {view.sent_height}",
            "bytes": view.num_bytes,
        }
        for view in draft.seen
    ]
    exemplars = f"{draft.demonstrations} demonstrations"
    st.caption(f"{len(seen)} pictures of the image, {exemplars}, {draft.bytes_sent:,} bytes")
    if seen:
        show.table(seen, name="pictures-sent", columns={"bytes": show.count("bytes")})
    if request is None:
        show.empty("The words were not stored yet when this draft was made.")
        return
    for title, words in (
        ("Instructions", request.instructions),
        ("Question", request.question),
        ("Form of the reply", _indented(request.reply_schema)),
    ):
        st.markdown(f"**{title}**")
        st.code(show.shortened(words), language=None, wrap_lines=True, height=220)


def _show_reply(details: DraftDetails) -> None:
    reply = details.reply
    if reply is None:
        show.empty("The reply is not stored; a takedown drops it.")
        return
    st.text(
        f"{show.cell(reply.model)} · {show.cell(reply.finish_reason)} · {reply.latency_s:.2f} s · "
        f"{show.cell(reply.request_id or 'no request id')}"
    )
    said = reply.content if reply.content is not None else reply.refusal or reply.raw
    st.code(show.shortened(_indented(said)), language=None, wrap_lines=True, height=360)


def _show_calls(details: DraftDetails) -> None:
    show.table(
        [
            {
                "call": number,
                "outcome": str(call.outcome),
                "model": call.model,
                "cost": call.cost_usd,
                "reserved": call.reserved_usd,
                "tokens in": call.usage.prompt_tokens if call.usage else None,
                "tokens out": call.usage.completion_tokens if call.usage else None,
                "reason": call.reason or "",
            }
            for number, call in enumerate(details.attempts, start=1)
        ],
        name="calls",
        columns={"cost": show.dollars("cost"), "reserved": show.dollars("reserved")},
    )


def _indented(words: str) -> str:
    """JSON on several lines; what is none, as it is."""
    try:
        value: Any = json.loads(words)
    except ValueError:
        return words
    return json.dumps(value, indent=2, ensure_ascii=False)
