"""python -m training.export RUN --out DIR: a finished run as a model to hand over.

Adapters are merged; weights, tokenizer, processor, calibration, word sets and a card lie in the
layout of the Hugging Face libraries, so that `AutoModelForImageTextToText.from_pretrained(DIR)` and
servers open it without a line of this project.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.command_line import one_line_errors
from core.errors import ConfigError, PermanentError
from instruct_builder.shards import MANIFEST, Manifest
from training.run_folder import CONFIG, PREDICTIONS, RunFolder

if TYPE_CHECKING:
    from torch import Tensor

    from training.checkpoint import Checkpointed
    from training.model import Assembly

CARD, REPORT = "README.md", "report.json"
PROCESSOR = "processor_config.json"
CARRIED = ("title", "scoring", "calibration")
"""what an export takes over from the manifest of its checkpoint"""
PROBES = ((333, 211), (128, 128), (97, 260))
"""sizes of the drawn pictures that both models are given"""

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


class Dtype(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitParity:
    """How far the exported model is from the checkpoint, at the place of the verdict."""

    images: int
    largest_logit: float
    """of the checkpoint, in absolute value"""
    largest_difference: float
    """between two logits of the same token"""
    log_odds_difference: float
    """largest, of the soft score"""
    same_first_token: int
    """images for which both find the same token the most probable"""


@app.command()
@one_line_errors()
def main(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder of the model; must not exist yet.")],
    step: Annotated[
        int | None, typer.Option(help="Of its checkpoint; by default the one that was validated.")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Type of the weights.")] = Dtype.FLOAT32,
) -> None:
    """Merge, write, read back with the plain library, compare logits, and publish with a card."""
    parity = export(run, out, step=step, dtype=dtype)
    typer.echo(
        f"{out}: logits differ by at most {parity.largest_difference:.2g} (the largest is "
        f"{parity.largest_logit:.3g}), log-odds of fake by {parity.log_odds_difference:.2g}, over "
        f"{parity.images} drawn pictures\ncard: {out / CARD}"
    )


def export(
    run: Path, out: Path, *, step: int | None = None, dtype: Dtype = Dtype.FLOAT32
) -> LogitParity:
    """Write the model of a run to a new folder, which appears whole or not at all.

    ConfigError when the run is not finished or `out` is taken; PermanentError when the exported
    model does not give the logits of the checkpoint.
    """
    import torch

    from training.adapters import merge_adapters
    from training.checkpoint import open_checkpoint, read_manifest, write_manifest

    if out.exists():
        raise ConfigError(f"{out} exists; name another folder with --out")
    checkpoint = find_checkpoint(run, step)
    opened = open_checkpoint(checkpoint)
    if opened.assembly.base is not None and opened.assembly.base.quantised:
        raise ConfigError(
            f"{run}: adapters on 4-bit weights cannot be merged without a loss; evaluate and "
            "predict take its checkpoint without an export"
        )
    before = probe_logits(opened.assembly.model, opened)
    merged = merge_adapters(opened.assembly)
    merged.model.to(getattr(torch, dtype))
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        merged.save(partial)
        _write_processor(merged, partial)
        parity = compare_logits(before, probe_logits(_open_plainly(partial), opened), opened)
        _check(parity, dtype, out)
        recorded = read_manifest(checkpoint)
        facts: dict[str, Any] = {"dtype": dtype.value, "parity": asdict(parity)}
        facts |= {name: recorded[name] for name in CARRIED if name in recorded}
        (partial / CARD).write_bytes(_card_of(run, facts, merged))
        for name in (CONFIG, REPORT):
            shutil.copyfile(run / name, partial / name)
        write_manifest(partial, recorded["step"], facts, merged)
        partial.rename(out)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{out}: cannot be written: {reason}; free some space") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return parity


def find_checkpoint(run: Path, step: int | None) -> Path:
    """The checkpoint of a finished run that its report is about, or that of a step."""
    from training.checkpoint import read_manifest

    if not (run / REPORT).is_file():
        raise ConfigError(f"{run} is no finished run: it has no {REPORT}")
    folder = RunFolder(run)
    found = sorted(folder.checkpoints.glob("step-*"))
    reported = [path for path in found if "calibration" in read_manifest(path)]
    wanted = (reported or found)[-1:] if step is None else [folder.checkpoint(step)]
    if not wanted or not wanted[0].is_dir():
        there = ", ".join(path.name for path in found) or "none"
        raise ConfigError(f"{run}: no such checkpoint; there are: {there}")
    return wanted[0]


def probe_logits(model: Any, opened: Checkpointed) -> Tensor:
    """(images, stems, vocabulary) where the verdict is read, for some drawn pictures."""
    import torch

    from training.collate import collate
    from training.preprocessing import draw_probe

    images = [draw_probe().resize(size) for size in PROBES]
    rows = []
    for image in images:
        for prompt in opened.verdict.prompts:
            batch = collate([prompt], [image], opened.assembly)
            with torch.no_grad():
                logits = model(**batch.inputs, use_cache=False, logits_to_keep=1).logits
            rows.append(logits[0, -1].float())
    return torch.stack(rows).reshape(len(images), -1, rows[0].numel())


def _open_plainly(folder: Path) -> Any:
    """As anybody would who has never heard of this project."""
    from transformers import AutoModelForImageTextToText

    return AutoModelForImageTextToText.from_pretrained(folder).eval()


def compare_logits(before: Tensor, after: Tensor, opened: Checkpointed) -> LogitParity:
    """Logits of the checkpoint and of the exported model, both (images, stems, vocabulary)."""
    from training.score import score_words

    one, other = score_words(before, opened.verdict), score_words(after, opened.verdict)
    first, again = (logits[:, 0].argmax(-1) for logits in (before, after))
    return LogitParity(
        images=len(before),
        largest_logit=float(before.abs().max()),
        largest_difference=float((before - after).abs().max()),
        log_odds_difference=float((one - other).abs().max()),
        same_first_token=int((first == again).sum()),
    )


def _check(parity: LogitParity, dtype: Dtype, out: Path) -> None:
    import torch

    from training.parity import TOLERANCES

    allowed = TOLERANCES[getattr(torch, dtype)] * parity.largest_logit
    if not parity.largest_difference <= allowed:
        raise PermanentError(
            f"{out}: not written: its logits differ from the checkpoint's by "
            f"{parity.largest_difference:.2g}, at most {allowed:.2g} is allowed in {dtype}"
        )


def _write_processor(assembly: Assembly, folder: Path) -> None:
    """What the processor of this architecture wants to know besides images and tokens."""
    settings = assembly.architecture.processor(assembly.model.config)
    text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
    (folder / PROCESSOR).write_text(text, encoding="utf-8")


def _card_of(run: Path, facts: dict[str, Any], assembly: Assembly) -> bytes:
    from training.model_card import render_model_card

    lines: Sequence[str] = (run / PREDICTIONS).read_text(encoding="utf-8").splitlines()
    return render_model_card(
        manifest=Manifest.model_validate_json((run / MANIFEST).read_bytes()),
        report=RunFolder(run).read_report(),
        predictions=[json.loads(line) for line in lines],
        facts=facts,
        architecture=assembly.model.config.model_type,
    )


if __name__ == "__main__":
    app()
