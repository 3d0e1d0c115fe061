"""Toy data and models that several test files share; nothing in them is changed by a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.training.toys import ToySet, make_config, make_set
from training.config import TrainingConfig
from training.inputs import Inputs, read_inputs
from training.model import Assembly
from training.run import prepare_model, prepare_torch


@pytest.fixture(scope="session", autouse=True)
def _offline() -> Iterator[None]:
    """As HF_HUB_OFFLINE=1, which is read when the library is imported: no test asks the network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToySet:
    return make_set(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def config() -> TrainingConfig:
    return make_config()


@pytest.fixture
def inputs(toy: ToySet, config: TrainingConfig) -> Inputs:
    return read_inputs(config, toy.shards, toy.images)


@pytest.fixture
def assembly(config: TrainingConfig, inputs: Inputs) -> Assembly:
    """A tiny LLaVA that has not learnt anything yet."""
    prepare_torch(config)
    return prepare_model(config, inputs)[0]


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture(scope="session")
def plain_assembly(toy: ToySet) -> Assembly:
    """The same, built once; for tests that only use its tokenizer."""
    config = make_config()
    return prepare_model(config, read_inputs(config, toy.shards, toy.images))[0]
