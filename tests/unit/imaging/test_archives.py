"""Zip and tar archives: read as they lie, whatever their members are called."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError, DataError
from core.records import Authenticity
from imaging import archives, unpacking
from imaging.archives import ZipMember
from imaging.decode import Limits
from imaging.layouts import FoundFile, open_collection
from tests.unit.imaging.layouts import recognised

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
FILES = {
    "GenImage/BigGAN/train/ai/1.png": b"fake" * 500,
    "GenImage/BigGAN/train/nature/2.JPEG": b"photo",
    "GenImage/.DS_Store": b"x",
    "GenImage/README.md": b"words",
}
OPENERS: Mapping[str, Callable[..., Any]] = {
    "gz": partial(gzip.open, mode="wb"),
    "tgz": partial(gzip.open, mode="wb"),
    "bz2": partial(bz2.open, mode="wb"),
    "xz": partial(lzma.open, mode="wb"),
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


def compress(path: Path, suffix: str) -> Path:
    """The same archive compressed, beside it; `suffix` says how."""
    packed = path.with_name(f"packed{suffix}")
    kind = suffix.lower().rpartition(".")[2]
    with (
        pa.CompressedOutputStream(packed, "zstd") if kind == "zst" else OPENERS[kind](packed) as to
    ):
        to.write(path.read_bytes())
    return packed


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


@pytest.mark.parametrize("suffix", [".tar.gz", ".TGZ", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_a_compressed_tar_archive_is_read_from_end_to_end(tmp_path: Path, suffix: str) -> None:
    plain = write_tar(tmp_path / "set.tar", FILES)
    path = compress(plain, suffix)
    assert recognised(path)[0] == "genimage"
    found, same = read(path), read(plain)
    assert [replace(f, content=b"") for f in found] == [replace(f, content=b"") for f in same]
    assert [f.content for f in found[:2]] == [bytes_of(f) for f in same[:2]]


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_a_compressed_archive_that_ends_early_says_so(tmp_path: Path, suffix: str) -> None:
    files = {f"{name}.jpg": os.urandom(300_000) for name in "abcdef"}
    path = compress(write_tar(tmp_path / "set.tar", files), suffix)
    path.write_bytes(path.read_bytes()[:1_000_000])
    *good, last = read(path, layout="plain")
    assert [f.content for f in good] == list(files.values())[: len(good)]
    assert (last.name, "ends early" in str(last.refusal)) == (path.name, True)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.bz2", ".tar.xz", ".tar.zst"])
def test_a_compressed_archive_that_grows_without_end_is_stopped(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking, "ALWAYS_ALLOWED", 10_000)
    bomb = {"a.jpg": b"photo", "b.bmp": bytes(20_000_000), "c.jpg": b"photo"}
    first, last = read(compress(write_tar(tmp_path / "set.tar", bomb), suffix), layout="plain")
    assert first.content == b"photo"
    assert "far more than pictures would" in str(last.refusal)


def test_a_member_that_is_too_large_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "Limits", lambda: Limits(max_bytes=1000))
    files = {"a.jpg": bytes(5000), "b.jpg": b"photo"}
    large, small = read(compress(write_tar(tmp_path / "set.tar", files), ".tgz"), layout="plain")
    assert (large.content, large.refusal) == (b"", "too large: 5000 bytes, the most is 1000")
    assert small.content == b"photo"


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_a_header_that_would_fill_the_memory_is_damage(tmp_path: Path, suffix: str) -> None:
    header = tarfile.TarInfo("long name")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 2**40
    plain = tmp_path / "set.tar"
    plain.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(10_000))
    (found,) = read(plain if suffix == ".tar" else compress(plain, suffix), layout="plain")
    assert "damaged or ends early" in str(found.refusal)


def test_a_table_inside_a_compressed_archive_says_what_to_do(tmp_path: Path) -> None:
    table = {"manifest.csv": b"path,label\na.jpg,real\n", "a.jpg": b"photo"}
    with pytest.raises(
        ConfigError, match=r"packed\.tgz: a table inside .*manifest\.csv.*uncompress"
    ):
        read(compress(write_tar(tmp_path / "set.tar", table), ".tgz"))


def test_an_archive_of_another_kind_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "set.7z").write_bytes(b"7z")
    with pytest.raises(ConfigError, match=r"set\.7z: .*pack it as \.zip or \.tar"):
        read(tmp_path / "set.7z")


def test_a_picture_with_an_archive_behind_it_is_a_picture(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "x.zip", FILES).read_bytes()
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff" + archive)
    assert [f.name for f in read(path)] == ["a.jpg"]


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=300),
    cut=st.integers(0, 700),
    kind=st.sampled_from(["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"]),
)
def test_no_damage_ends_an_import_but_by_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cut: int, kind: str
) -> None:
    write = write_zip if kind == "zip" else write_tar
    path = write(tmp_path_factory.mktemp("odd") / "set", {"a.jpg": b"a" * 600, "b/c.jpg": b"b"})
    path = compress(path, f".{kind}") if "." in kind else path
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
