from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE
from tests.unit.training.toys import make_config
from training.config import align_first, dump_config, go_on_from, load_config
from training.run import run_stages

TRAINING = DEFAULT_RECIPE / "training"


def test_an_override_changes_one_setting_and_keeps_the_rest() -> None:
    plain = load_config(TRAINING / "tiny.yaml")
    changed = load_config(
        TRAINING / "tiny.yaml", ["optimiser.learning_rate=1e-4", "data.mix.holistic=0"]
    )
    assert changed.optimiser.learning_rate == 1e-4
    assert changed.data.mix == {**plain.data.mix, "holistic": 0}
    assert changed.model == plain.model


def test_the_resolved_settings_read_back_as_the_same(tmp_path: Path) -> None:
    config = load_config(TRAINING / "tiny.yaml", ["seed=7"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimiser.learnig_rate=1", "did you mean learning_rate?"),
        ("model.vision.hiden_size=1", "did you mean hidden_size?"),
        ("seed", "write key=value"),
        ("seed.inner=1", "seed holds no settings"),
        ("seed=[", "not valid YAML"),
        ("data.mix={verdict: -1}", "must not be negative"),
        ("model.kind=huge", "model"),
        ("optimiser.epochs=1", "either steps or epochs"),
        ("optimiser.warmup_share=0.1", "either warmup_steps or warmup_share"),
    ],
)
def test_a_wrong_override_is_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(TRAINING / "tiny.yaml", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_settings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.yaml"
    path.write_text("")
    with pytest.raises(ConfigError, match="holds no settings"):
        load_config(path)


def test_an_alignment_trains_the_projector_and_the_instructions_follow() -> None:
    stage = {"steps": 3, "learning_rate": 0.01, "mix": {"verdict": 1}}
    path = TRAINING / "llava-1.5-7b-lora.yaml"
    config = load_config(path, [f"alignment={stage}"])
    assert config.alignment is not None
    first = align_first(config, config.alignment)
    assert (first.optimiser.steps, first.optimiser.learning_rate) == (3, 0.01)
    assert [first.optimiser.rate_of(part) for part in ("tower", "projector", "language")] == [
        0,
        1,
        0,
    ]
    assert (first.lora, first.data.mix, first.alignment) == (None, {"verdict": 1}, None)
    second = go_on_from(config, Path("/runs/one-alignment/checkpoints/step-000003"))
    assert second.model.kind == "checkpoint"
    assert second.model.name == "/runs/one-alignment/checkpoints/step-000003"
    assert (second.lora, second.optimiser, second.data) == (
        config.lora,
        config.optimiser,
        config.data,
    )


def test_several_processes_do_not_align(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = make_config(alignment={"steps": 3, "learning_rate": 0.01})
    with pytest.raises(ConfigError, match="it takes one process"):
        run_stages(config, shards=tmp_path, images=tmp_path, out=tmp_path / "run")
