"""`README.md` of a shard set, the data-set card: filled from the manifest alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import yaml

from instruct_builder.manifest import Manifest, caveats

CARD = "README.md"
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


def render_card(manifest: Manifest) -> bytes:
    """Markdown with the YAML header that data-set hubs read."""
    header = yaml.safe_dump(_header(manifest), sort_keys=False, allow_unicode=True)
    return f"---\n{header}---\n\n{chr(10).join(_body(manifest))}\n".encode()


def _header(manifest: Manifest) -> dict[str, object]:
    return {
        "pretty_name": f"FakeInstruct, recipe {manifest.recipe.name}",
        "language": ["en"],
        "license": "other",
        "license_name": manifest.licence.statement,
        "task_categories": ["image-text-to-text", "visual-question-answering"],
        "tags": ["image-forensics", *(["simulated"] if manifest.simulated else [])],
        "size_categories": [size_category(manifest.rows)],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "validation" if split == "val" else split, "path": paths}
                    for split, paths in files_by_split(manifest).items()
                ],
            }
        ],
    }


def size_category(rows: int) -> str:
    """The size class that data-set hubs use."""
    return next((name for limit, name in _SIZES if rows < limit), "n>10M")


def files_by_split(manifest: Manifest) -> dict[str, list[str]]:
    """Row files of each split, in order."""
    files: dict[str, list[str]] = {}
    for file in manifest.files:
        if file.split is not None:
            files.setdefault(file.split.value, []).append(file.path)
    return files


def _body(manifest: Manifest) -> Iterable[str]:
    yield "# FakeInstruct"
    yield ""
    yield (
        f"{manifest.rows:,} instructions about the authenticity of {manifest.images:,} images, "
        f"from {manifest.chains:,} reasoning chains, made with recipe `{manifest.recipe.name}` "
        f"(digest `{manifest.recipe.digest[:12]}`, seed {manifest.seed})."
    )
    yield from ("", f"**{_plain(manifest.statement)}**", "")
    yield from (f"* {_plain(line)}" for line in caveats(manifest))
    yield from ("", "## What is in it", "")
    yield from (
        "Each row is a conversation about one image; the image stands before the first user turn. "
        "`target` is the closed answer of the last turn, where there is one. Image files are not "
        "part of the set: `image_path` is relative to the image store it was built from. "
        "`manifest.json` lists every file with its checksum, and every check with its figures.",
        "",
    )
    for column, title in _TABLES.items():
        yield from _table(title, manifest.counts[column])
    if manifest.left_out:
        yield from _table("Chains left out", manifest.left_out)
    yield from ("## Terms", "")
    yield f"Licence: {_plain(manifest.licence.statement)} ({_plain(manifest.licence.because)})."
    yield from ("", "| source | licence |", "|---|---|")
    yield from (f"| {_plain(s.name)} | {_plain(s.licence)} |" for s in manifest.sources)
    yield from ("", "| teacher | simulated | chains |", "|---|---|---|")
    for teacher in manifest.teachers:
        simulated = "yes" if teacher.simulated else "no"
        yield f"| {_plain(teacher.name)} | {simulated} | {teacher.chains:,} |"


_TABLES = {
    "family": "Family",
    "form": "Form",
    "split": "Split",
    "label": "Label",
    "generator": "Generator (`none`: photographs)",
    "review_level": "Review level",
    "source": "Source",
}


def _table(title: str, counts: Mapping[str, int]) -> Iterable[str]:
    yield f"| {title} | number |"
    yield "|---|---:|"
    yield from (f"| {_plain(name)} | {number:,} |" for name, number in counts.items())
    yield ""


def _plain(text: str) -> str:
    """One line that Markdown takes for text: names and licences come from users."""
    line = " ".join(text.split())
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>#|!" else letter for letter in line)
