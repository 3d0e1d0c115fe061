"""Walking and reading folders that nobody has checked."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import DataError
from imaging.files import find_entry, read_file, shown_name, walk


@settings(deadline=None)
@given(st.binary(max_size=20), st.binary(max_size=20))
def test_no_two_names_are_shown_alike(first: bytes, second: bytes) -> None:
    shown = [shown_name(os.fsdecode(name)) for name in (first, second)]
    assert (shown[0] == shown[1]) == (first == second)


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_a_shown_name_can_be_stored_and_printed_on_one_line(name: bytes) -> None:
    shown = shown_name(os.fsdecode(name))
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert len(f"{shown}.".splitlines()) == 1
    assert "\0" not in shown


def test_readable_names_stay_as_they_are() -> None:
    for name in ("комната_部屋 😀.jpg", 'a b\'s "c".jpg', "<i>.jpg"):
        assert shown_name(name) == name


def test_the_walk_is_sorted_by_bytes_folder_by_folder(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "b/10.jpg", "a.jpg", "Z.jpg", "b-c/x.jpg", "é.jpg", "b/a/deep.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [entry.name for entry in walk(tmp_path)] == [
        "Z.jpg", "a.jpg", "é.jpg", "b/10.jpg", "b/2.jpg", "b/a/deep.jpg", "b-c/x.jpg",
    ]  # fmt: skip


def test_hidden_files_and_folders_are_marked_and_not_entered(tmp_path: Path) -> None:
    for name in (".git/config", ".x.jpg", "..y.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert {entry.name: entry.hidden for entry in walk(tmp_path)} == {
        ".git": True, ".x.jpg": True, "..y.jpg": False,
    }  # fmt: skip


def test_links_are_followed_inside_the_folder_only(tmp_path: Path) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    for folder in (inside / "real", outside):
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(b"x")
    (inside / "good.jpg").symlink_to("real/a.jpg")
    (inside / "chain.jpg").symlink_to("good.jpg")
    (inside / "out.jpg").symlink_to(outside / "a.jpg")
    (inside / "out").symlink_to(outside)
    found = {entry.name: entry for entry in walk(inside)}
    assert found["good.jpg"].refusal is found["chain.jpg"].refusal is None
    assert found["chain.jpg"].path == os.path.realpath(inside / "real/a.jpg")
    assert "out of the folder" in str(found["out.jpg"].refusal)
    assert "out of the folder" in str(found["out"].refusal)
    assert "out of the folder" in str(find_entry(inside, "out/a.jpg").refusal)
    assert not any(entry.path.startswith(str(outside)) for entry in found.values())


def test_a_folder_beside_with_a_longer_name_is_outside(tmp_path: Path) -> None:
    for name in ("set", "set-private"):
        (tmp_path / name).mkdir()
    (tmp_path / "set-private" / "a.jpg").write_bytes(b"x")
    (tmp_path / "set" / "a.jpg").symlink_to("../set-private/a.jpg")
    assert "out of the folder" in str(next(walk(tmp_path / "set")).refusal)


def test_size_and_time_of_a_file_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    os.utime(path, ns=(1, 1_234_567_890_123_456_789))
    entry = next(walk(tmp_path))
    assert (entry.size, entry.mtime_ns) == (5, 1_234_567_890_123_456_789)


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    os.mkfifo(tmp_path / "pipe")
    assert read_file(tmp_path / "a", max_bytes=5) == b"12345"
    for path, reason in (
        (tmp_path / "a", "too large: 5 bytes, the most is 4"),
        (tmp_path / "pipe", "a named pipe"),
        (tmp_path, "a folder"),
        (Path("/dev/zero"), "a device"),
    ):
        with pytest.raises(DataError, match=reason):
            read_file(path, max_bytes=4)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_without_permission_are_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "secret.jpg").touch(mode=0)
    refusals = {entry.name: entry.refusal for entry in walk(tmp_path)}
    assert "no permission" in str(refusals["closed"])
    with pytest.raises(DataError, match="no permission"):
        read_file(tmp_path / "secret.jpg", max_bytes=9)
