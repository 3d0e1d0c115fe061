"""FakeInstruct: what a set is made of, its checks, its rows as conversations, two sets compared."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from core.errors import FakeScopeError
from dashboard import charts, pictures, sets, show
from dashboard.place import Place
from db.lineage import Lineage, lineage
from instruct_builder.shards import ShardSet

COMPOSITION, CHECKS, READER, ROW, DIFFERENCE = (
    "Composition",
    "Balance and leaks",
    "Reader",
    "Lineage of a row",
    "Difference of two builds",
)
COLUMNS = (("family", "label", "split", "review_level", "generator"), ("form", "aspect"))
"""by which rows are drawn, on the left and on the right"""
PER_PAGE = 4
AVATARS = {"user": ":material/person:", "assistant": ":material/smart_toy:"}
"""in grey: other colours would say real or fake"""
FIGURES_SHOWN = 400


def show_page(place: Place) -> None:
    """The page."""
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    left.title("FakeInstruct", anchor=False)
    known = sets.folders(place.home)
    if not known:
        show.empty("There is no shard set yet. This makes one:", "make build-instruct")
        return
    names = list(known)
    name = show.choose(right, "Shard set", names, key="set", all_of=show.cell(names[0]))
    folder = known[name or names[0]]
    shards = sets.opened(folder)
    _show_headline(shards)
    view = show.choose_view((COMPOSITION, CHECKS, READER, ROW, DIFFERENCE))
    if view == COMPOSITION:
        _show_composition(shards)
    elif view == CHECKS:
        _show_checks(shards)
    elif view == READER:
        _show_reader(place, shards)
    elif view == ROW:
        _show_lineage(place, shards)
    else:
        _show_difference(place, shards)


def _show_headline(shards: ShardSet) -> None:
    manifest = shards.manifest
    cells = st.columns(4)
    per_image = f"{manifest.rows / manifest.images:,.1f} an image" if manifest.images else "-"
    show.figure(cells[0], "Instructions", f"{manifest.rows:,}", per_image)
    show.figure(cells[1], "Images", f"{manifest.images:,}", f"{manifest.chains:,} chains")
    files = sum(file.split is not None for file in manifest.files)
    size = sum(file.bytes for file in manifest.files) / 2**20
    show.figure(cells[2], "Shards", f"{files:,}", f"{size:,.0f} MiB")
    warnings = sets.warnings_in(manifest.checks)
    checks = f"{len(manifest.checks):,} checks passed"
    show.figure(cells[3], "Warnings", f"{len(warnings):,}", checks)
    seed = f"seed {manifest.seed} · at least {manifest.min_review}"
    st.text(f"{show.cell(manifest.statement)} · recipe {show.cell(manifest.recipe.name)} · {seed}")
    if manifest.simulated:
        st.caption("Simulated: the rehearsal teacher, a program that measures pixels, wrote this.")


# Composition


def _show_composition(shards: ShardSet) -> None:
    counts = sets.count_by(shards)
    for column, names in zip(st.columns(2, gap="large"), COLUMNS, strict=True):
        with column:
            for name in names:
                _draw_counts(counts, name)
    with st.expander("All counts", icon=":material/table_rows:"):
        show.table(counts, name="composition", columns={"rows": show.count("rows")})


def _draw_counts(counts: pd.DataFrame, name: str) -> None:
    """Rows by one column, parted by label."""
    grouped = counts.assign(part=counts["label"].replace(sets.NONE, "no label"))
    frame = grouped.groupby([name, "part"])["rows"].sum().reset_index()
    frame["value"] = frame[name].map(show.cell)
    charts.bars(
        frame,
        title=f"By {name.replace('_', ' ')} ({frame['rows'].sum():,} instructions)",
        value="rows",
        name="value",
        unit="instructions",
        parts=("part", charts.LABELS),
    )


# Checks


def _show_checks(shards: ShardSet) -> None:
    manifest = shards.manifest
    for warning in sets.warnings_in(manifest.checks):
        show.problem("A check warns:", warning)
    show.table(
        [
            {
                "check": name.replace("_", " "),
                "says": check.says,
                "figures": len(check.figures),
                "warns": "warning" in check.figures,
            }
            for name, check in manifest.checks.items()
        ],
        name="checks",
    )
    names = list(manifest.checks)
    chosen = show.choose(st, "Figures of", names, key="check", all_of=names[0]) if names else None
    if names:
        figures = manifest.checks[chosen or names[0]].figures
        shown = list(figures.items())[:FIGURES_SHOWN]
        show.table(
            [{"figure": name, "value": str(value)} for name, value in shown],
            name=f"check-{show.cell(chosen or names[0])}",
        )
    if manifest.left_out:
        st.subheader("Chains that did not enter", anchor=False)
        show.table(
            [{"reason": why, "chains": number} for why, number in manifest.left_out.items()],
            name="left-out",
        )


# Reader


def _show_reader(place: Place, shards: ShardSet) -> None:
    counts = sets.count_by(shards)
    names = ("family", "form", "label", "split", "aspect", "generator")
    chosen: list[tuple[str, str]] = []
    for column, name in zip(st.columns(len(names)), names, strict=True):
        values = sorted(map(str, counts[name].unique()))
        value = show.choose(column, name.capitalize(), values, key=name, all_of="All")
        if value is not None:
            chosen.append((name, value))
    wanted = sets.RowFilter(tuple(chosen))
    total = sets.count_rows_wanted(counts, wanted)
    st.caption(f"{total:,} instructions")
    if not total:
        show.empty("No instruction is like that. Loosen the filters.")
        return
    offset = show.turn_pages(total, size=PER_PAGE)
    for row in sets.page_of_rows(shards, wanted, limit=PER_PAGE, offset=offset):
        _show_row(place, row, leads_on=True)


def _show_row(place: Place, row: dict[str, Any], *, leads_on: bool = False) -> None:
    """A conversation under its image; `leads_on`: with a way to its lineage."""
    with st.container(border=True):
        left, right = st.columns([1, 4], gap="medium")
        with left:
            if row["image_path"]:
                pictures.of_hash(place, row["image_path"], row["image_id"])
            pictures.badge(row["label"])
        with right:
            facts = (row["family"], row["form"], row["aspect"], row["split"], row["review_level"])
            st.text(" · ".join(show.cell(str(fact)) for fact in facts if fact))
            for message in row["messages"]:
                role = message["role"] if message["role"] in AVATARS else "user"
                with st.chat_message(role, avatar=AVATARS[role]):
                    show.text(message["content"])
            target = f" · answer {show.cell(row['target'])}" if row["target"] else ""
            st.text(f"{row['instruction_id']}{target}")
            if leads_on:
                st.button(
                    "Where it comes from",
                    key=f"lineage of {row['instruction_id']}",
                    on_click=_open_lineage,
                    args=(row["instruction_id"],),
                    type="tertiary",
                    icon=":material/account_tree:",
                )


def _open_lineage(instruction_id: str) -> None:
    st.session_state.update(view=ROW, row=instruction_id)
    st.query_params["row"] = instruction_id  # its field is still to come, and writes only changes


# Lineage


def _show_lineage(place: Place, shards: ShardSet) -> None:
    typed = st.text_input(
        "Instruction id", key="row", bind="query-params", placeholder="as the reader shows it"
    )
    if not typed:
        first = sets.page_of_rows(shards, sets.RowFilter(), limit=1, offset=0)
        typed = first[0]["instruction_id"] if first else ""
    row = sets.find_row(shards, typed)
    if row is None:
        show.problem("There is no such row in this set.", typed)
        return
    _show_row(place, row)
    if row["chain_id"] is None:
        show.empty("This row is about no image of ours: no chain stands behind it.")
        return
    try:
        found = place.ask(lineage, row["chain_id"], row["image_id"])
    except FakeScopeError as error:
        show.problem("Where it comes from is in the database, which cannot be read.", str(error))
        return
    show.table(list(_steps(row, found)), name="lineage")


def _steps(row: dict[str, Any], found: Lineage) -> list[dict[str, str]]:
    """From the row back to the user's file."""
    steps = [("row", row["instruction_id"], f"template {row['template_id']}")]
    if found.chain is not None:
        findings = len(found.chain.reasoning.findings)
        newest = f", superseded by {found.superseded_by}" if found.superseded_by else ""
        said = f"{found.chain.review_level}, {findings} findings{newest}"
        steps.append(("chain", found.chain.chain_id, said))
    for correction in found.corrections:
        outcomes = ", ".join(map(str, correction.outcomes))
        steps.append(("correction", correction.correction_id, f"{correction.expert}: {outcomes}"))
    if found.draft is not None:
        version = f"{found.draft.teacher}, prompt {found.draft.prompt_version}"
        steps.append(("draft", found.draft.draft_id, version))
    if found.attempt is not None:
        cost = (
            "cost unknown" if found.attempt.cost_usd is None else f"${found.attempt.cost_usd:.6f}"
        )
        steps.append(("call", found.attempt.attempt_id, f"{cost}; {found.calls} calls in all"))
    if found.recipe is not None:
        steps.append(("campaign", found.recipe, f"drafting digest {found.drafting_digest}"))
    if found.image is not None:
        size = f"{found.image.width} × {found.image.height} {found.image.format}"
        steps.append(("image", found.image.image_id, f"{size}, SHA-256 {found.image.sha256}"))
    if found.source is not None:
        steps.append(("source", found.source.name, f"licence {found.source.licence}"))
    steps += [("file", name, "") for name in found.files]
    if found.tombstone is not None:
        steps.append(("withdrawn", found.tombstone.image_id, found.tombstone.reason))
    return [{"step": step, "what": what, "facts": facts} for step, what, facts in steps]


# Difference


def _show_difference(place: Place, shards: ShardSet) -> None:
    others = {
        name: folder for name, folder in sets.folders(place.home).items() if folder != shards.folder
    }
    if not others:
        show.empty(
            "There is only one shard set here; a second one for comparison:",
            "python -m instruct_builder build --out data/fakeinstruct-2",
        )
        return
    names = list(others)
    name = show.choose(st, "Older set", names, key="old", all_of=show.cell(names[0]))
    old = sets.opened(others[name or names[0]])
    facts = sets.facts_that_differ(old, shards)
    if facts:
        show.table(facts, name="facts-that-differ")
    found = sets.difference(old, shards)
    show.table(
        found,
        name="difference",
        columns={n: show.count(n) for n in ("both", "removed", "added")},
    )
    frame = found.melt("family", var_name="fate", value_name="rows")
    charts.bars(
        frame,
        title=f"Instructions by family ({frame['rows'].sum():,} in either set)",
        value="rows",
        name="family",
        unit="instructions",
        parts=("fate", {"both": charts.NEITHER, "removed": "#CC79A7", "added": "#009E73"}),
    )
    st.caption("By instruction id; `python -m instruct_builder diff` tells changed texts and why.")
