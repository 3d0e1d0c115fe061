"""`README.md` of an exported model: what it learnt from, how far it can be believed, under what
terms. Filled from the manifest of the shards and the report of the run alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from huggingface_hub import ModelCard, ModelCardData

from core.printable import printable
from core.records import Authenticity
from instruct_builder.shards import Manifest
from training.calibrate import Calibration
from training.metrics import Interval, Scored, bootstrap

RESAMPLES, SEED = 1000, 1
HINT: Final = "A verdict about a person's picture is a hint, never a proof."
REFUSED: Final = (
    "Deciding about a person, in court, at work, at school or in moderation, without a human who "
    "looks at the image and at other evidence.",
    "Telling whether a claim in or about an image is true; it only looks for traces of generators.",
    "Images whose generator is not among those named here, as if the figures held for them.",
    "Showing its reasons as proof: they are written after the fact.",
    "Searching for or building generators that it does not notice.",
)


def render_model_card(
    *,
    manifest: Manifest,
    report: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    architecture: str,
) -> bytes:
    """Markdown with the header that hubs read, as their own library writes it.

    `facts` are those of the exported checkpoint: scoring, calibration, type and logit parity.
    """
    header = ModelCardData(
        license="other",
        license_name="as-stated-under-terms",
        license_link="README.md",
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        language=["en"],
        tags=["image-forensics", architecture, *(["simulated"] if report["simulated"] else [])],
    ).to_yaml()
    parts = (
        _head(report),
        _data(manifest),
        _figures(report, predictions, facts),
        _uses(report),
        _terms(manifest),
        _reading(facts),
    )
    body = "\n".join(line for part in parts for line in part)
    return str(ModelCard(f"---\n{header}\n---\n\n{body}\n")).encode()


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"# {plain(report['title'])}\n"
    for line in report["simulated"]:
        yield f"> **{plain(line)}**\n"
    yield (
        "Says whether an image is a photograph or was made by a generator, how sure it is, and by "
        f"which visible traces. {HINT}\n"
    )


def _data(manifest: Manifest) -> Iterator[str]:
    yield "## What it learnt from\n"
    yield (
        f"{manifest.rows:,} instructions about {manifest.images:,} images (FakeInstruct, recipe "
        f"{plain(manifest.recipe.name)}; all splits). Who looked at them: "
        f"{plain(manifest.statement)}.\n"
    )
    generators = manifest.image_counts.get("generator", {})
    named = ", ".join(f"{plain(name)} ({count:,})" for name, count in generators.items() if name)
    yield f"Generators of its images: {named or 'none'}.\n"
    yield "| source or teacher | licence | terms |\n|---|---|---|"
    for part in (*manifest.sources, *manifest.teachers):
        yield f"| {plain(part.name)} | {plain(part.licence)} | {plain(part.terms) or 'none'} |"
    yield ""


def _figures(
    report: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
) -> Iterator[str]:
    yield "## How good it is, as measured\n"
    yield (
        f"On {report['images']:,} images of {report['photographs']:,} photographs that training "
        "never saw; AUROC with 95 % intervals, clustered by photograph.\n"
    )
    yield "| scored by | seen generators | held-out generators |\n|---|---|---|"
    for line in report["table"]:
        cells = (_interval(line[key]) for key in ("seen", "held_out"))
        yield f"| {plain(line['name'])} | {' | '.join(cells)} |"
    yield "\n| generator | fakes | called fake |\n|---|---|---|"
    for line in report["generators"]:
        held_out = ", held out" if line["is_held_out"] else ""
        yield f"| {plain(line['generator'])}{held_out} | {line['images']} | {line['found']:.2f} |"
    rate, images = false_alarms(predictions, facts)
    yield (f"\n**False alarms:** {rate} of {images:,} photographs were called fake{_at(facts)}.\n")
    yield f"{plain(report['comparison'])}\n"


def false_alarms(
    predictions: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]
) -> tuple[str, int]:
    """Share of the photographs that are called fake with its interval, and their number."""
    log_odds = np.array([row["log_odds"] for row in predictions], float)
    calibration = Calibration(**facts["calibration"]) if facts.get("calibration") else None
    threshold = facts["scoring"]["threshold"]
    called = (
        calibration.calls_fake(log_odds)
        if calibration is not None
        else log_odds >= np.log(threshold / (1 - threshold))
    )
    labels = [row["label"] == Authenticity.FAKE for row in predictions]
    scored = Scored.of(labels, called, [row["group"] for row in predictions])
    photographs = int((~scored.labels).sum())
    if not photographs:
        return "none (no photograph was tested)", 0
    if not scored.has_both_classes:
        return f"{_share(scored):.3f}", photographs
    return str(bootstrap([scored], _share, resamples=RESAMPLES, seed=SEED)), photographs


def _share(scored: Scored) -> float:
    return float(scored.scores[~scored.labels].mean())


def _at(facts: Mapping[str, Any]) -> str:
    if facts.get("calibration"):
        threshold = facts["calibration"]["threshold"]
        return f", at the threshold of the validation split (log-likelihood ratio {threshold:+.2f})"
    return f" at p(fake) {facts['scoring']['threshold']}"


def _uses(report: Mapping[str, Any]) -> Iterator[str]:
    yield "## Limits\n"
    for caveat in report["caveats"]:
        yield f"* {plain(caveat)}"
    yield "\n## Uses to refuse\n"
    for use in REFUSED:
        yield f"* {use}"
    yield ""


def _terms(manifest: Manifest) -> Iterator[str]:
    licence = manifest.licence
    yield "## Terms\n"
    yield (
        f"The model inherits the licence of the set that it was trained on: "
        f"**{plain(licence.statement)}**, because of {plain(licence.because)}."
    )
    for condition in licence.conditions:
        yield f"* {plain(condition)}"
    yield "\nThe terms of the checkpoint that training started from hold besides.\n"


def _reading(facts: Mapping[str, Any]) -> Iterator[str]:
    scoring, parity = facts["scoring"], facts["parity"]
    yield "## How a score is read\n"
    yield (
        "The prompt and the beginning of the answer are given; p(fake) comes from the logits of "
        "the next token (FakeScope, arXiv 2503.24267). `checkpoint.json` holds all of this for "
        "programs.\n"
    )
    yield f"* prompt: `{_code(scoring['prompt'])}`"
    yield f"* words for fake: {_words(scoring, 'fake')}; for real: {_words(scoring, 'real')}"
    yield f"* put together by: {scoring['reduce']}"
    if facts.get("calibration"):
        fitted = facts["calibration"]
        yield (
            f"* log-likelihood ratio = {fitted['scale']:.4g} x log-odds {fitted['bias']:+.4g}, "
            f"fitted on {fitted['images']} validation images"
        )
    yield (
        f"* logits of this export ({facts['dtype']}) differ from the checkpoint's by at most "
        f"{parity['largest_difference']:.2g} over {parity['images']} drawn pictures (the largest "
        f"is {parity['largest_logit']:.3g}), log-odds by {parity['log_odds_difference']:.2g}"
    )
    yield (
        "\n```python\nfrom transformers import AutoModelForImageTextToText, AutoProcessor\n\n"
        'model = AutoModelForImageTextToText.from_pretrained("DIR")\n'
        'processor = AutoProcessor.from_pretrained("DIR")\n```'
    )


def _words(scoring: Mapping[str, Any], label: str) -> str:
    pairs = zip(scoring[f"{label}_words"], scoring[f"{label}_tokens"], strict=True)
    return ", ".join(
        f"`{_code(word)}` (token {' '.join(map(str, tokens))})" for word, tokens in pairs
    )


def _interval(value: Mapping[str, float] | None) -> str:
    return str(Interval(**value)) if value else "none"


def _code(text: str) -> str:
    return repr(text)[1:-1].replace("`", "'")


def plain(text: str) -> str:
    """Text that came from outside, on one line and without a meaning to Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", printable(" ".join(text.split())))
