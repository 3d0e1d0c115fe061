from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from typer.testing import CliRunner

from core.errors import ConfigError, PermanentError
from instruct_builder.shards import Manifest
from tests.unit.training.families import FAMILIES, build_family, save_family
from tests.unit.training.toys import ToySet, make_config
from training import export as exporting
from training.checkpoint import open_checkpoint
from training.export import Dtype, app, export
from training.model_card import false_alarms, render_model_card
from training.preprocessing import draw_probe
from training.run import run


@pytest.fixture(scope="module")
def done(toy: ToySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with adapters."""
    folder = tmp_path_factory.mktemp("export") / "run"
    config = make_config(
        model={"kind": "checkpoint", "name": str(save_family("llava"))},
        lora={"rank": 4, "alpha": 8},
        optimiser={"steps": 4, "learning_rate": 0.01, "part_rates": {"tower": 0}},
        data__batch_images=2,
    )
    run(config, shards=toy.shards, images=toy.images, out=folder)
    return folder


@pytest.fixture(scope="module")
def exported(done: Path) -> Path:
    out = done.parent / "model"
    result = CliRunner().invoke(app, [str(done), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "logits differ by at most" in result.output
    return out


def test_the_plain_library_opens_an_export_and_reads_the_same_score(
    done: Path, exported: Path
) -> None:
    """Model and processor from the folder, the score as the card says: no code of ours."""
    facts = json.loads((exported / "checkpoint.json").read_text())
    scoring = facts["scoring"]
    model = AutoModelForImageTextToText.from_pretrained(exported)
    processor = AutoProcessor.from_pretrained(exported)
    text = scoring["prompt"].removeprefix(processor.tokenizer.bos_token)
    inputs = processor(images=draw_probe(), text=text, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[0, -1]
    [[fake]], [[real]] = scoring["fake_tokens"], scoring["real_tokens"]
    log_odds = logits[fake] - logits[real]
    checkpoint = open_checkpoint(done / "checkpoints" / "step-000004")
    ours = exporting.probe_logits(checkpoint.assembly.model, checkpoint)[0, 0]
    assert float(log_odds) == pytest.approx(float(ours[fake] - ours[real]), abs=1e-4)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_an_export_is_a_checkpoint_with_all_that_belongs_to_it(done: Path, exported: Path) -> None:
    opened = open_checkpoint(exported)
    before = open_checkpoint(done / "checkpoints" / "step-000004")
    assert opened.verdict == before.verdict
    assert opened.calibration == before.calibration
    facts = json.loads((exported / "checkpoint.json").read_text())
    assert facts["scoring"]["fake_words"] == [" fake"]
    assert facts["parity"]["largest_difference"] < 1e-4
    assert facts["parity"]["same_first_token"] == facts["parity"]["images"] == 3
    names = {path.name for path in exported.iterdir()}
    assert {"model.safetensors", "README.md", "chat_template.jinja", "config.yaml"} <= names
    assert not [path for path in exported.parent.iterdir() if path.name.startswith(".")]


def test_the_card_says_data_limits_false_alarms_and_terms(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    for part in (
        "license: other", "Simulated generators", "CC0-1.0", "**False alarms:**", "held out",
        "## Uses to refuse", "never a proof", "logits of this export (float32)", "` fake` (token",
    ):  # fmt: skip
        assert part in card, part


def test_text_from_outside_is_only_text_in_the_card(done: Path) -> None:
    manifest = Manifest.model_validate_json((done / "manifest.json").read_bytes())
    evil = "a|b\n# <script>alert(1)</script> [x](javascript:y)\x1b[31m"
    sources = tuple(s.model_copy(update={"name": evil}) for s in manifest.sources)
    facts = json.loads((done / "checkpoints" / "step-000004" / "checkpoint.json").read_text())
    parity = {"largest_difference": 0, "images": 1, "largest_logit": 1, "log_odds_difference": 0}
    card = render_model_card(
        manifest=manifest.model_copy(update={"sources": sources}),
        report=json.loads((done / "report.json").read_text()),
        predictions=[json.loads(x) for x in (done / "predictions.jsonl").read_text().splitlines()],
        facts={**facts, "dtype": "float32", "parity": parity},
        architecture="llava",
    ).decode()
    assert "<script>" not in card.replace("\\<", "")
    assert "\x1b" not in card
    assert r"a\|b \# \<script\>" in card


def test_false_alarms_are_the_photographs_that_are_called_fake() -> None:
    rows: list[dict[str, Any]] = [
        {"label": label, "log_odds": value, "group": str(place)}
        for place, (label, value) in enumerate(
            [("real", 1.0), ("real", -1.0), ("real", -2.0), ("real", -3.0), ("fake", 2.0)]
        )
    ]
    plain: dict[str, Any] = {"scoring": {"threshold": 0.5}}
    rate, images = false_alarms(rows, plain)
    assert rate.startswith("0.250 [") and images == 4
    fitted = {"scale": 1.0, "bias": 0.0, "threshold": 1.5, "images": 9}
    assert false_alarms(rows, {**plain, "calibration": fitted})[0].startswith("0.000 [")
    assert false_alarms(rows[-1:], plain)[1] == 0


def test_an_export_with_other_logits_is_not_published(
    done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(folder: Path) -> Any:
        model = AutoModelForImageTextToText.from_pretrained(folder).eval()
        with torch.no_grad():
            model.lm_head.weight.mul_(1.1)
        return model

    monkeypatch.setattr(exporting, "_open_plainly", broken)
    with pytest.raises(PermanentError, match="not written: its logits differ"):
        export(done, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_fewer_bits_are_measured_too(done: Path, tmp_path: Path) -> None:
    parity = export(done, tmp_path / "model", dtype=Dtype.BFLOAT16)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "model")
    assert model.dtype == torch.bfloat16
    assert parity.largest_difference > 0


def test_what_cannot_be_exported_is_one_clear_line(done: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such checkpoint; there are: step-000004"):
        export(done, tmp_path / "model", step=3)
    with pytest.raises(ConfigError, match="exists; name another"):
        export(done, tmp_path)
    unfinished = Path(shutil.copytree(done, tmp_path / "unfinished"))
    (unfinished / "report.json").unlink()
    with pytest.raises(ConfigError, match="is no finished run"):
        export(unfinished, tmp_path / "model")


@pytest.mark.parametrize("family", FAMILIES)
def test_processors_are_told_what_they_take(family: str) -> None:
    import inspect

    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    assembly = build_family(family)
    settings = assembly.architecture.processor(assembly.model.config)
    processor = getattr(transformers, PROCESSOR_MAPPING_NAMES[family])
    assert set(settings) <= set(inspect.signature(processor.__init__).parameters)
