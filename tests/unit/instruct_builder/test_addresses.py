"""Shard sets and exports that are elsewhere: read as copies, written by upload."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from typer.testing import CliRunner

from core.errors import ConfigError, StateError
from imaging.store import ImageStore
from instruct_builder.__main__ import app
from instruct_builder.addresses import (
    amended_at,
    folder_at,
    is_elsewhere,
    made_at,
    shown,
    upload,
)
from instruct_builder.export import Format, export, export_to
from instruct_builder.removal import remove_images
from instruct_builder.shards import MANIFEST, ShardSet, verify
from tests.unit.instruct_builder.exports import make_set, rows_of


@pytest.fixture(autouse=True)
def memory() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    make_set(folder / "set", ImageStore(folder / "images"))
    return folder


def files_at(address: str) -> dict[str, bytes]:
    files, root = fsspec.url_to_fs(address)
    return {path.removeprefix(f"{root}/"): files.cat_file(path) for path in files.find(root)}


def files_in(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_a_path_is_no_address() -> None:
    assert not is_elsewhere("data/fakeinstruct")
    assert is_elsewhere("s3://bucket/set")
    assert is_elsewhere("simplecache::s3://bucket/set")


def test_a_folder_here_is_not_copied(place: Path) -> None:
    with folder_at(str(place / "set")) as folder:
        assert folder == place / "set"


def test_what_was_uploaded_is_verified_where_it_is(place: Path) -> None:
    upload(place / "set", "memory://store/set", last="manifest.json")
    assert files_at("memory://store/set") == files_in(place / "set")
    with folder_at("memory://store/set") as folder:
        assert folder != place / "set"
        assert verify(folder) == []
    assert not folder.exists()
    done = CliRunner().invoke(app, ["verify", "memory://store/set"])
    assert done.output == "memory://store/set: every checksum and every count is right\n"
    fsspec.filesystem("memory").pipe_file("/store/set/rows-00000.parquet", b"spoilt")
    assert CliRunner().invoke(app, ["verify", "memory://store/set"]).exit_code == 1


def test_an_upload_replaces_what_was_there_and_marks_the_end_last(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec.filesystem("memory").pipe_file("/store/set/rows-09999.parquet", b"stale")
    memory = type(fsspec.filesystem("memory"))
    put: list[str] = []
    original = memory.put_file

    def noting(self: object, local: str, remote: str, **more: object) -> object:
        put.append(remote.rpartition("/")[2])
        return original(self, local, remote, **more)

    monkeypatch.setattr(memory, "put_file", noting)
    upload(place / "set", "memory://store/set", last="manifest.json")
    assert put[-1] == "manifest.json.partial"
    assert files_at("memory://store/set") == files_in(place / "set")


def test_an_upload_that_breaks_off_leaves_no_marker(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(place / "set", "memory://store/set", last="manifest.json")
    memory = type(fsspec.filesystem("memory"))

    def fail(*_: object, **__: object) -> None:
        raise OSError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(memory, "put_file", fail)
        with pytest.raises(ConfigError, match="store/set: the network is gone"):
            upload(place / "set", "memory://store/set", last="manifest.json")
    assert "manifest.json" not in files_at("memory://store/set")
    upload(place / "set", "memory://store/set", last="manifest.json")
    assert files_at("memory://store/set") == files_in(place / "set")


def test_an_export_is_uploaded_whole_and_only_once(place: Path, tmp_path: Path) -> None:
    shards, store = ShardSet.open(place / "set"), ImageStore(place / "images")
    address = "memory://exports/one"
    done = export_to(shards, address, format=Format.WEBDATASET, store=store)
    assert (done.place, done.unchanged) == (address, False)
    export(shards, tmp_path / "out", format=Format.WEBDATASET, store=store)
    assert files_at(address) == files_in(tmp_path / "out")
    assert export_to(shards, address, format=Format.WEBDATASET, store=store).unchanged
    other = export_to(shards, address, format=Format.LLAVA, store=store)
    assert not other.unchanged
    assert set(files_at(address)) == {"README.md", "export.json", "train.json", "test.json"}


def test_an_export_whose_upload_is_cut_off_has_no_half_file_and_goes_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards, store = ShardSet.open(place / "set"), ImageStore(place / "images")
    address, memory = "memory://exports/cut", type(fsspec.filesystem("memory"))
    whole = export(shards, tmp_path / "out", format=Format.WEBDATASET, store=store)
    assert not whole.unchanged
    arrived: list[str] = []

    def cut_off(files: Any, local: str, remote: str, **_: object) -> None:
        data = Path(local).read_bytes()
        files.pipe_file(remote, data if len(arrived) < 2 else data[: len(data) // 2])
        arrived.append(remote)
        if len(arrived) > 2:
            raise OSError("the network is gone")

    with monkeypatch.context() as patch:
        patch.setattr(memory, "put_file", cut_off)
        with pytest.raises(ConfigError, match="the network is gone"):
            export_to(shards, address, format=Format.WEBDATASET, store=store)
    there, wanted = files_at(address), files_in(tmp_path / "out")
    named = {name: data for name, data in there.items() if not name.endswith(".partial")}
    assert len(named) == 2 and "export.json" not in named
    assert named.items() <= wanted.items()
    assert arrived[-1].rpartition("/")[2] in there
    assert not export_to(shards, address, format=Format.WEBDATASET, store=store).unchanged
    assert files_at(address) == wanted


def test_a_foreign_place_is_not_touched(place: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/theirs/thesis.txt", b"years of work")
    shards, store = ShardSet.open(place / "set"), ImageStore(place / "images")
    with pytest.raises(ConfigError, match="neither empty nor an export"):
        export_to(shards, "memory://theirs", format=Format.LLAVA, store=store)
    assert files_at("memory://theirs") == {"thesis.txt": b"years of work"}


def test_the_commands_take_addresses(place: Path) -> None:
    upload(place / "set", "memory://store/set", last="manifest.json")
    told = CliRunner().invoke(app, ["inspect", "memory://store/set", "--json"])
    assert json.loads(told.output)["images"] == 6
    same = CliRunner().invoke(app, ["diff", "memory://store/set", str(place / "set")])
    assert "changed: 0" in same.output
    name = next(iter(rows_of(ShardSet.open(place / "set"))))
    traced = CliRunner().invoke(app, ["trace", name, "--shards", "memory://store/set"])
    assert f"{name} in memory://store/set/rows-00000.parquet" in traced.output
    lost = CliRunner().invoke(app, ["trace", "ins-0", "--shards", "memory://store/set"])
    assert lost.exit_code == 2 and "memory://store/set holds no instruction ins-0" in lost.output


class Cut(OSError):
    """Ends an upload."""


def test_a_set_that_is_elsewhere_is_amended_there_and_goes_on_after_a_cut(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, here = "memory://store/amended", tmp_path / "here"
    upload(place / "set", address, last=MANIFEST)
    shutil.copytree(place / "set", here)
    image_id = ShardSet.open(here).images()["image_id"][0].as_py()
    remove_images(here, [image_id])

    def amend() -> int:
        with amended_at(address, tmp_path / "work", last=MANIFEST) as folder:
            return remove_images(folder, [image_id]).images

    put = MemoryFileSystem.put_file
    uploaded: list[str] = []

    def put_two(files: Any, here: str, there: str, **options: Any) -> None:
        if len(uploaded) == 2:
            raise Cut("the line is dead")
        uploaded.append(there)
        put(files, here, there, **options)

    with (
        monkeypatch.context() as patch,
        pytest.raises(ConfigError, match="the line is dead; run it again"),
    ):
        patch.setattr(MemoryFileSystem, "put_file", put_two)
        amend()
    assert MANIFEST not in files_at(address)
    assert amend() == 0, "it was taken out already, and the upload goes on"
    assert files_at(address) == files_in(here)
    assert amend() == 0
    copies = [path for path in (tmp_path / "work").iterdir() if path.is_dir()]
    assert copies == [], "no copy stays that somebody could forget"


def test_what_was_cut_off_elsewhere_by_somebody_else_is_named(place: Path, tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/half/upload.partial", b"")
    with (
        pytest.raises(ConfigError, match=r"memory://half: holds no manifest\.json"),
        amended_at("memory://half", tmp_path, last=MANIFEST),
    ):
        raise AssertionError("there is nothing to change")


def test_one_command_at_a_time_changes_what_is_at_an_address(place: Path, tmp_path: Path) -> None:
    upload(place / "set", "memory://wanted", last=MANIFEST)
    changing = (amended_at, made_at)
    for first in changing:
        for second in changing:
            with (
                first("memory://wanted", tmp_path, last=MANIFEST),
                pytest.raises(StateError, match="wanted: another command is changing it"),
                second("memory://wanted", tmp_path, last=MANIFEST),
            ):
                raise AssertionError("two at once")
            with made_at("memory://wanted", tmp_path, last=MANIFEST) as folder:
                shutil.copytree(place / "set", folder, dirs_exist_ok=True)


def test_what_was_changed_elsewhere_meanwhile_stays(place: Path, tmp_path: Path) -> None:
    upload(place / "set", "memory://shared", last=MANIFEST)
    with (
        pytest.raises(StateError, match="shared: was changed meanwhile"),
        amended_at("memory://shared", tmp_path, last=MANIFEST) as folder,
    ):
        fsspec.filesystem("memory").pipe_file(f"/shared/{MANIFEST}", b"of another machine")
        (folder / MANIFEST).write_bytes(b"ours")
    assert files_at("memory://shared")[MANIFEST] == b"of another machine"


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("memory://nowhere", "nowhere is no shard set"),
        ("nonsense://somewhere", "Protocol not known: nonsense"),
        ("s3://bucket/set", "[Ii]nstall s3fs"),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(address: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem), folder_at(address) as folder:
        ShardSet.open(folder)


def test_passwords_are_not_shown() -> None:
    assert shown("ftp://user:secret@host/set") == "ftp://host/set"
    assert shown("cannot open ftp://user:secret@host/set") == "cannot open ftp://host/set"
