"""`README.md` of a FakeChain export, the data-set card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import yaml

from annotation.fakechain import Images
from annotation.quality import agreement_as_text
from core.markdown import count_table, plain
from core.recipe import Recipe, is_simulated
from core.records import NO_VALUE, ReviewLevel, Source
from db.quality import Agreement

CARD: Final = "README.md"
CAVEATS: Final = (
    "Reasonings are written by a teacher that knew the label: they say after the fact what can be "
    "seen. They are post-hoc rationales, not the cause of any decision, and no proof of how an "
    "image was made.",
    "`review_level` says how much a record was checked: `draft` not at all, `expert` by one "
    "expert, `agreed` by several who agree, `adjudicated` by somebody who settled their dispute.",
    "Experts appear under pseudonyms. What they and teachers wrote is untrusted text: show it as "
    "text, and never run it.",
)
SIMULATED: Final = (
    "Drafts are the rehearsal teacher's, which is simulated: they are good for trying the platform "
    "out, and for nothing else."
)
PICTURES: Final[Mapping[Images, str]] = {
    Images.NONE: "Pictures are not part of the set; `image_sha256` names their files.",
    Images.REFERENCE: "Pictures are not part of the set; `image_path` is relative to the image "
    "store that it was made from.",
    Images.EMBED: "Each Parquet row holds its picture in `image`; the JSON lines name its file.",
}
TABLES: Final[Mapping[str, str]] = {
    "label": "Label",
    "review_level": "Review level",
    "category": "Trace category, findings",
    "source": "Source",
    "generator": f"Generator (`{NO_VALUE}`: photographs)",
    "teacher": "Teacher",
}


@dataclass(frozen=True, kw_only=True)
class ExportFacts:
    """What the card says of an export."""

    recipe: Recipe
    min_review: ReviewLevel
    images: Images
    chains: int
    left_out: int
    counts: Mapping[str, Mapping[str, int]]
    """by column and value"""
    sources: Sequence[Source]
    agreement: Agreement


def render_card(facts: ExportFacts) -> str:
    """Markdown with the YAML header that data-set hubs read."""
    header = yaml.safe_dump(_header(facts), sort_keys=False, allow_unicode=True)
    return "\n".join(["---", f"{header}---", "", *_body(facts)]) + "\n"


def _header(facts: ExportFacts) -> dict[str, object]:
    files = {"split": "chains", "path": "fakechain-*.parquet"}
    return {
        "pretty_name": f"FakeChain, recipe {facts.recipe.name}",
        "language": ["en"],
        "license": "other",
        "license_name": ", ".join(sorted({source.licence for source in facts.sources})),
        "task_categories": ["image-text-to-text", "image-classification"],
        "tags": ["image-forensics", *(["simulated"] if _is_simulated(facts) else [])],
        "configs": [{"config_name": "default", "data_files": [files]}],
    }


def _is_simulated(facts: ExportFacts) -> bool:
    return any(map(is_simulated, facts.counts["teacher"]))


def _unchecked(facts: ExportFacts) -> Iterator[str]:
    """How many records no expert has checked, and who stands behind those."""
    if drafts := facts.counts["review_level"].get(ReviewLevel.DRAFT, 0):
        arms = map(facts.recipe.arm, facts.recipe.settings.drafting.chain_arms)
        voters = max(len(arm.merge.arms) if arm.merge else 1 for arm in arms)
        who = f"up to {voters} teachers voted on each" if voters > 1 else "a teacher wrote them"
        yield f"At {drafts:,} of these records no human has looked: {who}."


def _body(facts: ExportFacts) -> Iterator[str]:
    yield "# FakeChain"
    yield ""
    yield (
        f"{facts.chains:,} reasonings about the authenticity of as many images, at review level "
        f"`{facts.min_review}` or above, made with recipe `{facts.recipe.name}`."
    )
    yield ""
    yield from (f"* {line}" for line in (*CAVEATS, *_unchecked(facts)))
    if _is_simulated(facts):
        yield f"* {SIMULATED}"
    yield from ("", "## What is in it", "")
    yield (
        "One row per image, in Parquet and as JSON lines. `generator` is null for photographs, as "
        "in FakeInstruct. `findings` are the traces, each with a "
        "category, the words, what it points to, and where there is one a region: `polygon` in "
        "fractions of width and height, or `mask` in the uncompressed run lengths of COCO. "
        "`blind_labels` is what experts said before they were told anything, `guidance` the "
        "categories that steered the teacher, `prompt` what it was told, `exemplar_ids` its "
        "demonstrations, `corrections` what experts did with each trace of its draft, "
        "`merged_teachers` whose findings the teacher worded where a program has counted votes."
    )
    yield ""
    yield PICTURES[facts.images]
    if facts.left_out:
        yield f"{facts.left_out:,} images are left out, because their files were not there."
    yield ""
    for column, title in TABLES.items():
        yield from count_table(title, facts.counts[column])
    yield from ("## How far experts agree", "", "```text")
    yield from agreement_as_text(facts.agreement)
    yield from (
        "```",
        "",
        "## Terms",
        "",
        "| source | licence | may be trained on |",
        "|---|---|---|",
    )
    for source in facts.sources:
        allowed = "yes" if source.may_train else "no, for evaluation only"
        yield f"| {plain(source.name)} | {plain(source.licence)} | {allowed} |"
