"""`README.md` of an export: what it holds, how it is loaded, and under which terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from instruct_builder.card import plain, render_terms
from instruct_builder.manifest import Manifest, caveats

LOADING: Final[Mapping[str, str]] = {
    "llava": (
        "LLaVA: `--data_path train.json --image_folder IMAGES`. A record is `id`, `image` and "
        "`conversations` of `human` and `gpt`; `<image>` stands once, before the first question."
    ),
    "mplug-owl2": (
        "mPLUG-Owl2: `--data_path train.json --image_folder IMAGES`. The records are LLaVA's, with "
        "`<|image|>` before the first question."
    ),
    "sharegpt": (
        "LLaMA-Factory: `dataset_dir` is this folder, `media_dir` IMAGES and `dataset` "
        "`fakeinstruct_train`; `dataset_info.json` describes the files. `<image>` stands once, "
        "before the first question."
    ),
    "trl": (
        '`load_dataset("parquet", data_files="train.parquet")` of the library `datasets` gives '
        "`messages` and `images`, decoded; TRL puts the image before the first question itself."
    ),
    "trl-jsonl": (
        '`load_dataset("json", data_files="train.jsonl")` of the library `datasets` gives '
        "`messages` and `images`, paths relative to IMAGES: work in that folder, and cast the "
        "column to `List(Image())`. TRL puts the image before the first question itself."
    ),
    "webdataset": (
        'webdataset: `WebDataset("train-{000000..NNNNNN}.tar").decode("pil")`. A sample is one '
        "image: its file, and `json` with all its `instructions`; the image stands before the "
        "first question of each."
    ),
    "fakeclue": (
        "FakeVLM's layout: `data_json/train.json` beside `train/`. A record is `image`, `label` "
        "(1 real, 0 fake), `cate`, `width`, `height` and `conversations`, with explained verdicts "
        "alone; `generator` and `group` are beyond that format."
    ),
}
"""what to say to each trainer, by format"""


def render_export_card(manifest: Manifest, format: str, counts: Mapping[str, Any]) -> bytes:
    """Markdown; `counts` are the rows, images and left-out rows of the export."""
    return ("\n".join(_lines(manifest, format, counts)) + "\n").encode()


def _lines(manifest: Manifest, format: str, counts: Mapping[str, Any]) -> Iterator[str]:
    yield f"# FakeInstruct for {format}"
    yield ""
    yield (
        f"{counts['rows']:,} of {manifest.rows:,} instructions on {counts['images']:,} images, "
        f"made with recipe {plain(manifest.recipe.name)} (digest `{manifest.recipe.digest[:12]}`, "
        f"seed {manifest.seed})."
    )
    yield from ("", f"**{plain(manifest.statement)}**", "")
    yield from (f"* {plain(line)}" for line in caveats(manifest))
    yield from (
        f"* Left out: {number:,} {plain(why)}." for why, number in counts["left_out"].items()
    )
    yield from ("", LOADING[format], "")
    yield (
        "IMAGES is `images/` in this folder where the export was made with `--with-images`, else "
        "the image store that the set was built from. `export.json` lists every file with its "
        "checksum."
    )
    yield ""
    yield from render_terms(manifest)
