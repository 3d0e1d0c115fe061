"""Zip and tar archives: read as they lie, whatever their members are called."""

from __future__ import annotations

import io
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, DataError
from core.records import Authenticity
from imaging.archives import ZipMember
from imaging.layouts import FoundFile, open_collection
from tests.unit.imaging.layouts import recognised

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
FILES = {
    "GenImage/BigGAN/train/ai/1.png": b"fake" * 500,
    "GenImage/BigGAN/train/nature/2.JPEG": b"photo",
    "GenImage/.DS_Store": b"x",
    "GenImage/README.md": b"words",
}
Writer = Callable[[Path, Mapping[str, bytes]], Path]


def write_zip(path: Path, files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def write_stored(path: Path, files: Mapping[str, bytes]) -> Path:
    return write_zip(path, files, zipfile.ZIP_STORED)


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        archive.addfile(folder_member("./"))
        for name, data in files.items():
            member = tarfile.TarInfo(f"./{name}" if name.startswith("GenImage") else name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def folder_member(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = tarfile.DIRTYPE
    return member


def read(path: Path, **options: Any) -> list[FoundFile]:
    return list(open_collection(path, **options).files())


def bytes_of(found: FoundFile, most: int = 10_000) -> bytes:
    content: Any = pickle.loads(pickle.dumps(found.content))  # as it reaches another process
    data: bytes = content.read(most)
    return data


@pytest.mark.parametrize("write", [write_zip, write_stored, write_tar])
def test_a_published_set_is_read_from_its_archive(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "set.bin", FILES)
    before = sorted(tmp_path.rglob("*"))
    assert recognised(path)[0] == "genimage"
    found = {f.name: f for f in read(path)}
    assert list(found) == list(FILES)
    fake, photo, hidden, text = found.values()
    assert (fake.label, fake.generator, fake.size) == (FAKE, "BigGAN", 2000)
    assert (photo.label, photo.generator) == (REAL, None)
    assert [bytes_of(fake), bytes_of(photo)] == [b"fake" * 500, b"photo"]
    assert hidden.is_hidden
    assert "lies outside" in str(text.refusal)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_a_manifest_inside_an_archive_names_its_members(tmp_path: Path, write: Writer) -> None:
    table = b"path,label\na.jpg,real\n../b.jpg,fake\nc.jpg,fake\n"
    found = read(write(tmp_path / "set", {"a.jpg": b"photo", "manifest.csv": table}))
    assert [f.refusal for f in found] == [None, "no path inside the folder", "no such file"]
    assert bytes_of(found[0]) == b"photo"


@pytest.mark.parametrize("write", [write_zip, write_tar])
@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "x/../../a.jpg"])
def test_no_member_leads_out_of_the_archive(tmp_path: Path, write: Writer, name: str) -> None:
    path = write(tmp_path / "set", {name: b"x", "good.jpg": b"x"})
    assert [f.refusal for f in read(path)] == ["its name leads out of the archive", None]


def test_links_and_devices_of_a_tar_archive_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            member = tarfile.TarInfo(f"{kind!r}.jpg")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    refusals = {f.refusal for f in read(path)}
    assert refusals == {"a link, a device or a sparse file, not a regular file"}


def test_what_a_zip_archive_cannot_give_is_refused_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "set.zip"
    link, encrypted = zipfile.ZipInfo("link.jpg"), zipfile.ZipInfo("locked.jpg")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(link, "/etc/passwd")
        archive.writestr(encrypted, "x")
        archive.writestr("odd.jpg", "x", zipfile.ZIP_BZIP2)
        archive.writestr("a.jpg", "x")
        archive.writestr("a.jpg", "y")
    data = bytearray(path.read_bytes())
    data[data.rindex(b"PK\x01\x02", 0, data.rindex(b"locked.jpg")) + 8] |= 1
    path.write_bytes(data)
    assert {f.name: f.refusal for f in read(path)} == {
        "link.jpg": "a link or a device, not a regular file",
        "locked.jpg": "encrypted",
        "odd.jpg": "packed by method 12, which is not read here",
        "a.jpg": "its name stands in the archive twice",
    }


@pytest.mark.parametrize("write", [write_zip, write_stored, write_tar])
def test_a_member_is_never_read_beyond_the_limit(tmp_path: Path, write: Writer) -> None:
    (found,) = read(write(tmp_path / "set", {"bomb.png": bytes(1_000_000)}))
    with pytest.raises(DataError, match="too large: 1000000 bytes, the most is 10000"):
        bytes_of(found)


def test_a_member_that_lies_about_its_size_expands_no_further(tmp_path: Path) -> None:
    (found,) = read(write_zip(tmp_path / "set", {"bomb.png": bytes(5_000_000)}))
    assert isinstance(found.content, ZipMember)
    whole = found.content
    liar = ZipMember(whole.archive, whole.header, whole.packed_size, 100, whole.crc, True)
    with pytest.raises(DataError, match="damaged inside the archive"):
        liar.read(10_000)


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_damage_costs_the_member_that_it_hits(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "set", {"a.jpg": b"a" * 3000, "b.jpg": b"b" * 3000})
    first, second = read(path)
    path.write_bytes(path.read_bytes()[:40])
    for found in (first, second):
        with pytest.raises(DataError, match="its archive ends early"):
            bytes_of(found)


def test_a_tar_archive_that_ends_early_says_so(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "set.tar", {"a.jpg": b"a" * 3000, "b.jpg": b"b" * 3000})
    path.write_bytes(path.read_bytes()[:6000])
    *_, last = read(path)
    assert (last.name, "ends early" in str(last.refusal)) == ("set.tar", True)


def test_a_zip_archive_that_ends_early_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.zip", FILES)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError, match=r"set\.zip: not a whole zip archive"):
        read(path)


def test_a_compressed_tar_archive_says_what_to_do(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz"):
        pass
    with pytest.raises(ConfigError, match=r"set.tar.gz: .*uncompress it"):
        read(tmp_path / "set.tar.gz")


def test_a_picture_with_an_archive_behind_it_is_a_picture(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", FILES).read_bytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff" + archive)
    assert [f.name for f in read(path)] == ["a.jpg"]


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300), cut=st.integers(0, 700), kind=st.sampled_from(["zip", "tar"]))
def test_no_damage_ends_an_import_but_by_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int, kind: str
) -> None:
    write = write_zip if kind == "zip" else write_tar
    path = write(tmp_path_factory.mktemp("odd") / "set", {"a.jpg": b"a" * 600, "b/c.jpg": b"b"})
    whole = path.read_bytes()
    path.write_bytes(whole[:cut] + data + whole[cut + len(data) :])
    try:
        found = read(path, layout="plain")
    except ConfigError:
        return
    for file in found:
        if file.refusal is None and not isinstance(file.content, str | bytes):
            try:
                assert len(bytes_of(file)) == file.size
            except DataError as error:
                assert str(error)


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_the_one_folder_that_an_archive_was_packed_with_is_seen_through(
    tmp_path: Path, write: Writer
) -> None:
    files = {"set/manifest.csv": b"path,label\na.jpg,real\n", "set/a.jpg": b"photo"}
    path = write(tmp_path / "set.bin", files)
    name, reason = recognised(path)
    assert (name, reason) == ("manifest", "in its only folder it holds manifest.csv")
    (photo,) = read(path)
    assert (photo.name, photo.label, bytes_of(photo)) == ("a.jpg", REAL, b"photo")


def test_a_single_folder_with_a_meaning_of_its_own_is_not_seen_through(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "set.bin", {"real/a.jpg": b"photo", "real/b.jpg": b"photo"})
    assert [f.name for f in read(path)] == ["real/a.jpg", "real/b.jpg"]
