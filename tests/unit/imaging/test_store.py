"""The image store: whole files or none, whatever happens."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.errors import ConfigError, DataError
from core.ids import sha256_bytes
from imaging.store import ImageStore

PICTURE = b"not really a picture " * 500
ENDLESS = """
import sys
from pathlib import Path
from imaging.store import ImageStore
store = ImageStore(Path(sys.argv[1]))
for number in range(10**9):
    store.add(str(number).encode() * 200_000, ".jpg")
    print(number, flush=True)
"""


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4 kB: writing ends as it does on a full disk, with an error."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_bytes_come_back_under_the_name_of_their_hash(store: ImageStore) -> None:
    digest = sha256_bytes(PICTURE)
    place = store.add(PICTURE, ".jpg")
    assert place == f"{digest[:2]}/{digest[2:4]}/{digest}.jpg"
    assert store.read(place) == store.path(place).read_bytes() == PICTURE
    assert store.holds(place)


def test_adding_again_writes_nothing(store: ImageStore) -> None:
    place = store.add(PICTURE, ".png")
    before = store.path(place).stat()
    assert store.add(PICTURE, ".png") == place
    after = store.path(place).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert len(files_of(store.folder)) == 1


def test_a_file_that_lost_its_end_is_written_again(store: ImageStore) -> None:
    place = store.add(PICTURE, ".jpg")
    store.path(place).write_bytes(PICTURE[:10])
    store.add(PICTURE, ".jpg")
    assert store.read(place) == PICTURE


@pytest.mark.parametrize(
    "place", ["../../etc/passwd", "/etc/passwd", "ab/cd/x.jpg", f"ab/cd/{'0' * 64}.jpg/../x", ""]
)
def test_a_path_that_leads_elsewhere_is_refused(store: ImageStore, place: str) -> None:
    with pytest.raises(DataError, match="no path of an image store"):
        store.path(place)


def test_a_missing_image_is_named_with_the_remedy(store: ImageStore) -> None:
    place = f"ab/cd/{'0' * 64}.jpg"
    assert not store.holds(place)
    with pytest.raises(DataError, match=r"is not in the image store .* ingest"):
        store.read(place)


def test_a_full_disk_is_named_with_the_remedy_and_leaves_nothing(store: ImageStore) -> None:
    problem = r"images: cannot write \(.+\); make room .*FAKESCOPE_HOME"
    with full_disk(), pytest.raises(ConfigError, match=problem):
        store.add(PICTURE, ".jpg")
    assert files_of(store.folder) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file/images: cannot write"):
        ImageStore(tmp_path / "file" / "images").add(PICTURE, ".jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(store: ImageStore) -> None:
    store.folder.mkdir(mode=0o555)
    with pytest.raises(ConfigError, match="cannot write"):
        store.add(PICTURE, ".jpg")


def test_a_killed_writer_leaves_whole_files_only(store: ImageStore) -> None:
    writer = subprocess.Popen([sys.executable, "-c", ENDLESS, store.folder], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    for _ in range(20):
        writer.stdout.readline()
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    stored = [path for path in files_of(store.folder) if path.parent.name != "incoming"]
    assert len(stored) >= 20
    assert all(sha256_bytes(path.read_bytes()) == path.stem for path in stored)


def test_the_sweep_takes_old_leftovers_alone(store: ImageStore) -> None:
    place = store.add(PICTURE, ".jpg")
    incoming = store.folder / "incoming"
    for name, age in (("old", 7200), ("young", 60)):
        (incoming / name).touch()
        os.utime(incoming / name, (time.time() - age,) * 2)
    store.sweep()
    assert [path.name for path in incoming.iterdir()] == ["young"]
    assert store.holds(place)


def test_a_removed_file_is_gone_under_every_suffix(store: ImageStore) -> None:
    places = [store.add(PICTURE, suffix) for suffix in (".jpg", ".png")]
    other = store.add(b"another picture", ".jpg")
    assert store.remove(sha256_bytes(PICTURE)) == places
    assert store.remove(sha256_bytes(PICTURE)) == []
    assert store.holds(other)


@pytest.mark.parametrize("digest", ["", "*", "../../secret", "A" * 64])
def test_only_a_hash_can_be_removed(store: ImageStore, digest: str) -> None:
    with pytest.raises(DataError, match="is no SHA-256"):
        store.remove(digest)
