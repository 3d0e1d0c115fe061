from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import ConfigError
from tests.unit.training.events import read_events
from training import trackers
from training.trackers import Tracked, Write, check_trackers, flatten, reporting


def test_figures_of_families_have_their_names() -> None:
    record = {"step": 3, "loss": 1, "losses": {"verdict": 0.5}, "mfu": None, "cache_hits": 2}
    assert flatten(record) == {"loss": 1.0, "losses/verdict": 0.5, "cache_hits": 2.0}


def test_what_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--track tensorbord: not known; there are tensorboard"):
        check_trackers(["tensorbord"])
    monkeypatch.setitem(trackers.TRACKERS, "absent_tracker", trackers.open_wandb)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"not installed; pip install absent_tracker"):
        check_trackers(["absent_tracker"])


def test_steps_that_a_crash_took_are_told_once(tmp_path: Path) -> None:
    for done, steps in ((0, range(1, 6)), (3, range(4, 7))):
        tracked = Tracked(folder=tmp_path, done=done, settings={})
        with reporting(["tensorboard"], tracked) as report:
            for step in steps:
                report({"step": step, "loss": float(done)})
    assert read_events(tmp_path, "loss") == {1: 0, 2: 0, 3: 0, 4: 3, 5: 3, 6: 3}


@contextmanager
def open_failing(_run: Tracked) -> Iterator[Write]:
    """A tracker whose server goes away after two steps."""

    def write(step: int, _figures: Mapping[str, float]) -> None:
        if step > 2:
            raise ConnectionError("the server went away\nand more")

    yield write


@contextmanager
def open_refused(_run: Tracked) -> Iterator[Write]:
    """A tracker that wants a key."""
    raise PermissionError("no key")
    yield


def test_a_tracker_that_fails_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "failing", open_failing)  # type: ignore[arg-type]
    tracked = Tracked(folder=tmp_path, done=0, settings={})
    with reporting(["failing", "tensorboard"], tracked) as report:
        for step in range(1, 5):
            report({"step": step, "loss": 0.5})
    said = capsys.readouterr().err
    assert said == "failing is left out from here on: the server went away\n"
    assert read_events(tmp_path, "loss") == {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5}


def test_a_tracker_that_refuses_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trackers.TRACKERS, "refused", open_refused)  # type: ignore[arg-type]
    tracked = Tracked(folder=tmp_path, done=0, settings={})
    with (
        pytest.raises(ConfigError, match="--track refused: no key"),
        reporting(["refused"], tracked),
    ):
        pass


def test_wandb_goes_on_with_the_run_it_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="wandb is not there: pip install wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracked = Tracked(folder=tmp_path, done=0, settings={"seed": 1})
    for step in (1, 2):
        with reporting(["wandb"], tracked) as report:
            report({"step": step, "loss": 0.5, "losses": {"verdict": 0.25}})
    identity = (tmp_path / "tracked.txt").read_text()
    stored = list(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert len(stored) == 2
    assert all(identity in path.name and b"losses" in path.read_bytes() for path in stored)


def test_trackio_stores_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "store"))  # read when it is imported
    pytest.importorskip("trackio", reason="trackio is not there: pip install trackio")
    tracked = Tracked(folder=tmp_path / "a run", done=0, settings={"seed": 1})
    for step in (1, 2):
        with reporting(["trackio"], tracked) as report:
            report({"step": step, "loss": 0.5, "losses": {"verdict": 0.25}})
    with sqlite3.connect(tmp_path / "store" / "fakescope.db") as store:
        rows = store.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
    assert [(name, step) for name, step, _ in rows] == [("a run", 1), ("a run", 2)]
    assert json.loads(rows[0][2])["losses/verdict"] == 0.25
