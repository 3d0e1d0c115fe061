from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE
from training.config import dump_config, load_config

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
