"""`README.md` of a shard set, the data-set card: filled from the manifest alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any, Final

from core.records import NO_VALUE, ReviewLevel
from instruct_builder.manifest import CheckFact, Manifest, caveats, review_levels

CARD = "README.md"
HUB_LICENCES: Final = frozenset(
    {
        "apache-2.0", "mit", "bsd-3-clause", "cc0-1.0", "cc-by-2.0", "cc-by-3.0", "cc-by-4.0",
        "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0",
        "cc-by-nc-4.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0",
    }
)  # fmt: skip
"""licences that data-set hubs know by these names"""
PERSONAL_DATA: Final = (
    "Images may show people, and image files are not part of this set. Metadata, with places, "
    "cameras and names, was cut out of the copies that teachers, experts and models see. The texts "
    "are about traces in images; nobody has looked whether one describes a person. Experts are not "
    "named. An image that somebody wants gone is withdrawn with `python -m instruct_builder "
    "takedown`: its rows leave the set, its id stays in the list of tombstones of `manifest.json`, "
    "and no training accepts it any more."
)
LIMITS: Final = (
    "The labels are those of the sources; nothing here checks where an image really comes from.",
    "The traces are those of the generators that are named below. Another generator leaves others.",
    "Texts are put together from patterns and what was found in each image, so wording repeats.",
    "Nothing here is fit to decide about a person: a detector trained on it errs, and confidently.",
)
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def load_card_writer() -> None:
    """Import the library of the hub, which takes a while; for when there is time."""
    import_module("huggingface_hub.repocard")


def render_card(manifest: Manifest) -> bytes:
    """Markdown with the YAML header that data-set hubs read, as their own library writes it."""
    from huggingface_hub import DatasetCard, DatasetCardData

    header = DatasetCardData(**_header(manifest)).to_yaml()
    body = "\n".join(_body(manifest))
    return str(DatasetCard(f"---\n{header}\n---\n\n{body}\n")).encode()


def _header(manifest: Manifest) -> dict[str, Any]:
    return {
        "pretty_name": title(manifest),
        "language": ["en"],
        **_hub_licence(manifest.licence.statement),
        "annotations_creators": _annotators(manifest),
        "task_categories": ["image-text-to-text", "visual-question-answering"],
        "tags": ["image-forensics", *(["simulated"] if manifest.simulated else [])],
        "size_categories": [size_category(manifest.rows)],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": hub_split(split), "path": paths}
                    for split, paths in files_by_split(manifest).items()
                ],
            }
        ],
    }


def title(manifest: Manifest) -> str:
    """What the set is called."""
    return f"FakeInstruct, recipe {manifest.recipe.name}"


def _hub_licence(statement: str) -> dict[str, str]:
    """The licence as hubs spell it; anything else is said in the card."""
    name = "-".join(statement.lower().split())
    if name in HUB_LICENCES:
        return {"license": name}
    if statement.startswith("unknown"):
        return {"license": "unknown"}
    return {"license": "other", "license_name": "as-stated-under-terms", "license_link": CARD}


def _annotators(manifest: Manifest) -> list[str]:
    checked = review_levels(manifest) - {ReviewLevel.DRAFT}
    return ["machine-generated", *(["expert-generated"] if checked else [])]


def size_category(rows: int) -> str:
    """The size class that data-set hubs use."""
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def hub_split(split: str) -> str:
    """The name that data-set hubs have for a split."""
    return "validation" if split == "val" else split


def files_by_split(manifest: Manifest) -> dict[str, list[str]]:
    """Row files of each split, in order."""
    files: dict[str, list[str]] = {}
    for file in manifest.files:
        if file.split is not None:
            files.setdefault(file.split.value, []).append(file.path)
    return files


def _body(manifest: Manifest) -> Iterator[str]:
    yield "# FakeInstruct"
    yield ""
    yield (
        f"{manifest.rows:,} instructions about the authenticity of {manifest.images:,} images, "
        f"from {manifest.chains:,} reasoning chains, made with recipe `{manifest.recipe.name}` "
        f"(digest `{manifest.recipe.digest[:12]}`, seed {manifest.seed})."
    )
    yield from ("", f"**{plain(manifest.statement)}**", "")
    yield from (f"* {plain(line)}" for line in caveats(manifest))
    yield from ("", "## What is in it", "")
    yield from (
        "Each row is a conversation about one image; the image stands before the first user turn. "
        "`target` is the closed answer of the last turn, where there is one. Image files are not "
        "part of the set: `image_path` is relative to the image store it was built from. "
        "`manifest.json` lists every file with its checksum; `croissant.json` describes them to "
        "programs.",
        "",
    )
    for column, heading in _TABLES.items():
        yield from _table(heading, manifest.counts[column])
    if manifest.left_out:
        yield from _table("Chains left out", manifest.left_out)
    yield from render_terms(manifest)
    yield from ("", "## Checks before it was published", "")
    yield from (_check(name, check) for name, check in manifest.checks.items())
    yield from ("", "## Limits", "", *(f"* {limit}" for limit in LIMITS))
    yield from ("", "## Personal data", "", PERSONAL_DATA, "")
    yield f"Withdrawn images: {len(manifest.tombstones):,}."


def render_terms(manifest: Manifest) -> Iterator[str]:
    """The licence of the set, and the terms of each source and teacher, as Markdown."""
    yield from ("## Terms", "")
    yield f"Licence: {plain(manifest.licence.statement)} ({plain(manifest.licence.because)})."
    asked = manifest.licence.conditions
    yield from (f"* Asked of whoever uses it: {plain(condition)}." for condition in asked)
    yield from ("", "| source of images | licence | terms |", "|---|---|---|")
    for source in manifest.sources:
        yield f"| {plain(source.name)} | {plain(source.licence)} | {plain(source.terms)} |"
    yield from ("", "| teacher | simulated | chains | licence | terms |", "|---|---|---:|---|---|")
    for teacher in manifest.teachers:
        simulated = "yes" if teacher.simulated else "no"
        terms = f"{plain(teacher.licence)} | {plain(teacher.terms)}"
        yield f"| {plain(teacher.name)} | {simulated} | {teacher.chains:,} | {terms} |"


def _check(name: str, check: CheckFact) -> str:
    figures = ", ".join(f"{plain(key)} {plain(str(n))}" for key, n in check.figures.items())
    return f"* **{plain(name)}**: {plain(check.says)} ({figures or 'no figure'})."


_TABLES = {
    "family": "Family",
    "form": "Form",
    "split": "Split",
    "label": "Label",
    "generator": f"Generator (`{NO_VALUE}`: photographs)",
    "review_level": "Review level",
    "source": "Source",
}


def _table(heading: str, counts: Mapping[str, int]) -> Iterable[str]:
    yield f"| {heading} | number |"
    yield "|---|---:|"
    yield from (f"| {plain(name)} | {number:,} |" for name, number in counts.items())
    yield ""


def plain(text: str) -> str:
    """One line that Markdown takes for text: names and licences come from users."""
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|!" else letter for letter in line)
