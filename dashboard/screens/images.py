"""Images and audit: what is there, near-duplicates side by side, and what metadata gives away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import streamlit as st

from core.recipe import DEFAULT_RECIPE, load_recipe
from core.records import ImageRecord
from dashboard import charts, pictures, show
from dashboard.place import Place
from db.browse import (
    UNLABELLED,
    Cluster,
    ImageFilter,
    MetadataCount,
    clusters_page,
    count_clusters,
    count_wanted,
    images_page,
    metadata_counts,
    values_of_images,
)
from db.images import labelled_images
from db.provenance import ProvenanceCount, commonest_values, count_provenance
from imaging.shortcuts import LabelTable, MetadataScore, TooFew, label_tables, measure_metadata

GALLERY, CLUSTERS, SHORTCUTS, PROVENANCE = "Gallery", "Near-duplicates", "Shortcuts", "Provenance"
PER_PAGE = 24
CLUSTERS_PER_PAGE = 8
VALUES = 12
"""of one property that are shown"""
DOWNLOADED = 100_000
"""rows of a file at most"""


def show_page(place: Place) -> None:
    """The page."""
    st.title("Images and audit", anchor=False)
    if place.is_empty or not any(place.ask(values_of_images).values()):
        show.nothing_yet()
        return
    wanted = _filter(place)
    view = show.choose_view((GALLERY, CLUSTERS, SHORTCUTS, PROVENANCE))
    {
        GALLERY: _show_gallery,
        CLUSTERS: _show_clusters,
        SHORTCUTS: _show_shortcuts,
        PROVENANCE: _show_provenance,
    }[view](place, wanted)


def _filter(place: Place) -> ImageFilter:
    values = place.ask(values_of_images)
    cells = st.columns(5)
    return ImageFilter(
        source=show.choose(cells[0], "Source", values["source"], key="source", all_of="All"),
        label=show.choose(
            cells[1], "Label", ["real", "fake", UNLABELLED], key="label", all_of="All"
        ),
        generator=show.choose(
            cells[2], "Generator", values["generator"], key="generator", all_of="All"
        ),
        format=show.choose(cells[3], "Format", values["format"], key="format", all_of="All"),
        image_id=show.find_image(cells[4]),
    )


# Gallery


def _show_gallery(place: Place, wanted: ImageFilter) -> None:
    total = place.ask(count_wanted, wanted)
    st.caption(f"{total:,} images")
    offset = show.turn_pages(total, size=PER_PAGE)
    images = place.ask(images_page, wanted, limit=PER_PAGE, offset=offset)
    for column, image in zip(pictures.grid(len(images)), images, strict=False):
        with column:
            pictures.thumbnail(place, image)
            st.text(f"{image.image_id}\n{_facts(image)}")
    show.downloads(
        "images",
        lambda: pd.DataFrame(
            [_line(image) for image in place.read(images_page, wanted, limit=DOWNLOADED)]
        ),
    )


def _facts(image: ImageRecord) -> str:
    quality = f" q{image.jpeg_quality}" if image.jpeg_quality else ""
    size = f"{image.width} × {image.height} {image.format}{quality}"
    return f"{show.cell(image.generator or 'photograph')[:40]}\n{size}"


def _line(image: ImageRecord) -> dict[str, object]:
    names = ("image_id", "sha256", "label", "generator", "source", "width", "height", "format")
    rest = ("jpeg_quality", "subsampling", "cluster", "group")
    return {name: getattr(image, name) for name in (*names, *rest)}


# Near-duplicates


def _show_clusters(place: Place, wanted: ImageFilter) -> None:
    mixed = st.toggle(
        "Only those that hold both labels or several groups",
        value=True,
        key="mixed",
        bind="query-params",
        help="Pairs of a photograph and a fake made from it, or one picture in two groups",
    )
    total = place.ask(count_clusters, wanted, mixed=mixed)
    st.caption(f"{total:,} clusters of near-duplicates")
    if not total:
        show.empty("No such near-duplicates among these images.")
        return
    offset = show.turn_pages(total, size=CLUSTERS_PER_PAGE)
    for cluster in place.ask(
        clusters_page, wanted, mixed=mixed, limit=CLUSTERS_PER_PAGE, offset=offset
    ):
        _show_cluster(place, cluster)


def _show_cluster(place: Place, cluster: Cluster) -> None:
    images = cluster.images[: pictures.COLUMNS]
    groups = len({image.group for image in cluster.images})
    left_out = len(cluster.images) - len(images)
    with st.container(border=True):
        more = f" · {left_out} more not shown" if left_out else ""
        st.text(f"{show.cell(cluster.name)} · {len(cluster.images)} images · {groups} groups{more}")
        for column, image in zip(pictures.grid(len(images)), images, strict=False):
            with column:
                pictures.thumbnail(place, image)
                st.text(f"{image.image_id}\n{show.cell(image.group)[:40]}")


# Shortcuts


def _show_shortcuts(place: Place, wanted: ImageFilter) -> None:
    counts = place.ask(metadata_counts, replace(wanted, label=None))
    labelled = sum(each.images for each in counts if each.label is not None)
    st.caption(f"{labelled:,} labelled images; a property that parts the colours is a shortcut")
    if not labelled:
        show.empty("None of these images has a label.")
        return
    _show_metadata_score(place, wanted, labelled)
    tables = tables_of(counts)
    for column, found in zip(pictures.grid(len(tables), columns=2), tables, strict=False):
        with column:
            _draw_label_table(found)
    with st.expander("The same as a table", icon=":material/table_rows:"):
        show.table(
            [
                {"property": found.title, "value": row.value, "real": row.real, "fake": row.fake}
                for found in tables
                for row in found.rows
            ],
            name="label-tables",
            columns={name: show.count(name) for name in ("real", "fake")},
        )


def tables_of(counts: Sequence[MetadataCount]) -> tuple[LabelTable, ...]:
    """The audit's tables, from counts."""
    return label_tables(counts, numbers=[each.images for each in counts])


def _draw_label_table(found: LabelTable) -> None:
    rows = [
        {"value": show.cell(row.value), "label": label, "images": number}
        for row in found.rows
        for label, number in (("real", row.real), ("fake", row.fake))
        if number
    ]
    charts.bars(
        pd.DataFrame(rows),
        title=f"{found.title} ({sum(row.real + row.fake for row in found.rows):,} images)",
        value="images",
        name="value",
        unit="images",
        parts=("label", {label: charts.LABELS[label] for label in ("real", "fake")}),
        order=[show.cell(row.value) for row in found.rows],
    )


def _show_metadata_score(place: Place, wanted: ImageFilter, labelled: int) -> None:
    key = f"metadata {wanted.source}"
    if st.button(
        "Measure how well metadata alone tells real from fake",
        help="Cross-validates a small forest on format, size, quality and subsampling: "
        "up to a minute. All labelled images of the source, whatever else is filtered.",
    ):
        st.session_state[key] = True
    if not st.session_state.get(key):
        return
    with st.spinner("measuring"):
        score = _measure(place, wanted.source, labelled)
    if isinstance(score, TooFew):
        show.empty("There are too few images to say anything:")
        show.text(score.reason)
        return
    threshold = load_recipe(DEFAULT_RECIPE).settings.audit.metadata_auc
    cells = st.columns([1, 3])
    interval = f"95 % interval {score.low:.3f} to {score.high:.3f}"
    show.figure(cells[0], "AUC of metadata alone", f"{score.auc:.3f}", interval)
    with cells[1]:
        alone = sorted(score.alone.items(), key=lambda item: -item[1])
        charts.bars(
            pd.DataFrame([{"property": name, "AUC": auc} for name, auc in alone]),
            title=f"Each property alone ({score.real:,} real, {score.fake:,} fake)",
            value="AUC",
            name="property",
            unit="AUC (0.5 tells nothing)",
        )
    if score.low > threshold:
        st.warning(score.warning(threshold).capitalize() + ".", icon=":material/warning:")


@st.cache_data(max_entries=8, show_spinner=False)
def _measure(_place: Place, source: str | None, labelled: int) -> MetadataScore | TooFew:
    sources = None if source is None else [source]
    with _place.database().read() as session:
        return measure_metadata(labelled_images(session, sources=sources))


# Provenance


def _show_provenance(place: Place, wanted: ImageFilter) -> None:
    found = place.ask(count_provenance)
    if not found:
        show.empty("The metadata of the files says nothing of where any image comes from.")
        return
    st.caption("What the files' own metadata says; anybody can write anything there")
    left, right = st.columns([3, 2], gap="large")
    with left:
        _draw_provenance(found)
    with right:
        names = [each.name for each in found]
        name = show.choose(st, "Values of", names, key="name", all_of=show.cell(names[0]))
        name = name or names[0]
        values = place.ask(commonest_values, name, most=VALUES)
        show.table(
            [
                {"value": v.value, "real": v.real, "fake": v.fake, "no label": v.unlabelled}
                for v in values
            ],
            name="provenance-values",
        )


def _draw_provenance(found: Sequence[ProvenanceCount]) -> None:
    rows = [
        {"name": show.cell(each.name), "label": label, "images": number}
        for each in found
        for label, number in zip(
            ("real", "fake", UNLABELLED), (each.real, each.fake, each.unlabelled), strict=True
        )
        if number
    ]
    charts.bars(
        pd.DataFrame(rows),
        title=f"Images whose metadata says something ({len(found)} kinds of statement)",
        value="images",
        name="name",
        unit="images",
        parts=("label", charts.LABELS),
    )
