"""A set whose place is an address of fsspec: made here, uploaded whole, the manifest last."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from typer.testing import CliRunner

from db.engine import Database
from instruct_builder.__main__ import app
from tests.unit.instruct_builder.specimens import make_pairs
from tests.unit.instruct_builder.stored import store_pairs
from tests.unit.instruct_builder.test_addresses import files_at, files_in

OPTIONS = ("--min-review", "draft", "--workers", "1", "--json")


@pytest.fixture(autouse=True)
def memory(database: Database) -> Iterator[None]:
    store_pairs(database, make_pairs(30))
    yield
    fsspec.filesystem("memory").store.clear()


def build_at(address: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["build", "--out", address, *OPTIONS])
    return done.exit_code, done.output


def test_it_is_the_set_that_a_folder_would_hold(tmp_path: Path) -> None:
    assert build_at(str(tmp_path / "set"))[0] == 0
    for address in ("memory://sets/one", f"file://{tmp_path}/elsewhere"):
        code, said = build_at(address)
        assert code == 0 and json.loads(said)["folder"] == address
        assert files_at(address) == files_in(tmp_path / "set")


def test_an_upload_that_was_cut_off_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = type(fsspec.filesystem("memory"))
    put, number = memory.put_file, 0

    def cut_off(self: object, *paths: str, **more: object) -> object:
        nonlocal number
        number += 1
        if number == 3:
            raise OSError("the network is gone")
        return put(self, *paths, **more)

    with monkeypatch.context() as patch:
        patch.setattr(memory, "put_file", cut_off)
        code, said = build_at("memory://sets/one")
        assert code == 2 and "the network is gone" in said
        assert "manifest.json" not in files_at("memory://sets/one")
    assert build_at("memory://sets/one")[0] == 0
    assert CliRunner().invoke(app, ["verify", "memory://sets/one"]).exit_code == 0


def test_what_others_have_there_stays() -> None:
    fsspec.filesystem("memory").pipe_file("/theirs/thesis.txt", b"years of work")
    code, said = build_at("memory://theirs")
    assert code == 2 and "memory://theirs is not empty" in said
    assert files_at("memory://theirs") == {"thesis.txt": b"years of work"}
