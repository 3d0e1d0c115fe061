"""Layouts: which files there are, and what is said of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from core.records import Authenticity
from imaging.layouts import FoundFile, open_collection
from tests.unit.imaging.layouts import recognised

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE


def lay_out(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


def write_manifest(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.csv").write_bytes(text.encode("utf-8", "surrogateescape"))
    return folder


def read(path: Path, **options: object) -> list[FoundFile]:
    return list(open_collection(path, **options).files())  # type: ignore[arg-type]


def test_label_folders_label_their_files(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
        "real/b.jpg",
        "real/x/a.jpg",
        "fake/gan/1.png",
        "fake/gan/deep/2.png",
        "fake/c.png",
    )
    assert [(f.name, f.label, f.generator, f.group) for f in read(tmp_path)] == [
        ("fake/c.png", FAKE, "unknown", None),
        ("fake/gan/1.png", FAKE, "gan", None),
        ("fake/gan/deep/2.png", FAKE, "gan", None),
        ("real/b.jpg", REAL, None, None),
        ("real/x/a.jpg", REAL, None, None),
    ]


def test_label_folders_may_be_written_in_capitals(tmp_path: Path) -> None:
    assert read(lay_out(tmp_path, "REAL/a.jpg"))[0].label is REAL


def test_what_stands_beside_the_label_folders_is_refused(tmp_path: Path) -> None:
    found = {
        f.name: f.refusal for f in read(lay_out(tmp_path, "real/a.jpg", "LICENSE", "maybe/b.jpg"))
    }
    assert found["real/a.jpg"] is None
    assert found["LICENSE"] == found["maybe/b.jpg"] == "neither under real/ nor under fake/"


def test_a_plain_folder_has_no_label_or_the_one_that_is_given(tmp_path: Path) -> None:
    lay_out(tmp_path, "a.jpg", "sub/b.jpg")
    assert [(f.name, f.label) for f in read(tmp_path)] == [("a.jpg", None), ("sub/b.jpg", None)]
    assert [(f.label, f.generator) for f in read(tmp_path, label=REAL)] == [(REAL, None)] * 2
    assert [f.generator for f in read(tmp_path, label=FAKE)] == ["unknown"] * 2
    assert [f.generator for f in read(tmp_path, label=FAKE, generator="sd14")] == ["sd14"] * 2


def test_one_file_is_a_collection_too(tmp_path: Path) -> None:
    lay_out(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "link.jpg").symlink_to("b.jpg")
    assert [f.name for f in read(tmp_path / "a.jpg", label=REAL)] == ["a.jpg"]
    assert [f.refusal for f in read(tmp_path / "link.jpg")] == [None]


@pytest.mark.parametrize(
    ("names", "layout", "reason"),
    [
        (("manifest.csv", "real/a.jpg"), "manifest", "manifest.csv"),
        (("real/a.jpg", "fake/x/b.jpg"), "folder", "fake/ and real/"),
        (("fake/x/b.jpg",), "folder", "fake/"),
        (("a.jpg", "real"), "plain", "neither"),
    ],
)
def test_the_layout_is_recognised_and_says_why(
    tmp_path: Path, names: tuple[str, ...], layout: str, reason: str
) -> None:
    found, why = recognised(lay_out(tmp_path, *names))
    assert found == layout
    assert reason in why


def test_a_layout_can_be_asked_for(tmp_path: Path) -> None:
    lay_out(tmp_path, "real/a.jpg", "b.jpg")
    assert [f.label for f in read(tmp_path, layout="plain")] == [None, None]
    with pytest.raises(
        ConfigError, match=r"no layout 'zip'; there are: auto, manifest, .*folder, .*plain$"
    ):
        read(tmp_path, layout="zip")


def test_labels_are_not_given_twice(tmp_path: Path) -> None:
    lay_out(tmp_path, "real/a.jpg")
    with pytest.raises(ConfigError, match=r"layout folder \(it holds real/\).*layout plain"):
        read(tmp_path, label=REAL)
    assert [f.label for f in read(tmp_path, layout="plain", label=FAKE)] == [FAKE]


@pytest.mark.parametrize("label", [REAL, None])
def test_only_fakes_have_a_generator(tmp_path: Path, label: Authenticity | None) -> None:
    with pytest.raises(ConfigError, match="labelled fake only"):
        read(tmp_path, label=label, generator="sd14")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere: there is no such folder"):
        read(tmp_path / "nowhere")


def test_a_manifest_says_all_that_there_is_to_know(tmp_path: Path) -> None:
    lay_out(tmp_path, "a.jpg", "b/c.png", "not listed.jpg")
    write_manifest(
        tmp_path,
        "\ufeffPath,LABEL,generator,group,license,colour\r\n"
        "b/c.png,fake,sd14,photo 1,CC0-1.0,red\r\n"
        "./a.jpg,Real,ignored,,,\r\n",
    )
    first, second = read(tmp_path)
    assert (first.name, first.label, first.generator) == ("b/c.png", FAKE, "sd14")
    assert (first.group, first.licence, first.size) == ("photo 1", "CC0-1.0", 7)
    assert (second.name, second.label, second.generator) == ("a.jpg", REAL, None)
    assert (second.group, second.licence) == (None, None)


def test_fakes_without_a_generator_and_rows_without_a_label_are_taken(tmp_path: Path) -> None:
    lay_out(tmp_path, "a.jpg", "b.jpg")
    write_manifest(tmp_path, "label,path\nfake,a.jpg\n,b.jpg\n")
    assert [(f.label, f.generator) for f in read(tmp_path)] == [(FAKE, "unknown"), (None, None)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("missing.jpg,real", "no such file"),
        ("../secret.jpg,real", "no path inside the folder"),
        ("sub/../../secret.jpg,real", "no path inside the folder"),
        ("/etc/passwd,real", "no path inside the folder"),
        ("link.jpg,real", "leads out of the folder"),
        ("linked/secret.jpg,real", "leads out of the folder"),
        ("sub,real", "a folder, not a regular file"),
        ("a.jpg,maybe", "label 'maybe' is neither real nor fake"),
        ("a.jpg,1", "label '1' is neither real nor fake"),
        (",real", "no path inside the folder"),
        (",", "an empty row"),
        ("good.jpg,real", "lists good.jpg again, as line 2 does"),
        ("./good.jpg,fake", "lists good.jpg again, as line 2 does"),
    ],
)
def test_a_bad_row_is_refused_and_the_rest_goes_on(tmp_path: Path, row: str, reason: str) -> None:
    folder = lay_out(tmp_path / "set", "good.jpg", "a.jpg", "last.jpg", "sub/x.jpg")
    lay_out(tmp_path, "secret.jpg")
    (folder / "link.jpg").symlink_to("../secret.jpg")
    (folder / "linked").symlink_to("..")
    write_manifest(folder, f"path,label\ngood.jpg,real\n{row}\nlast.jpg,fake\n")
    good, bad, last = read(folder)
    assert bad.refusal == reason or reason in str(bad.refusal)
    assert good.refusal is last.refusal is None
    assert len({good.name, bad.name, last.name}) == 3


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("file,label\na.jpg,real\n", "no column path"),
        ("", "no column path and no column label"),
        ('path,label\n"' + "x" * 200_000 + "\n", "line .*: not valid CSV"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=f"manifest.csv.*{problem}"):
        read(write_manifest(tmp_path, text))


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None
)
@given(st.sets(names.filter(lambda name: name.strip(".") and len(name.encode()) < 200), max_size=5))
def test_any_file_name_can_stand_in_a_manifest(tmp_path: Path, files: set[str]) -> None:
    import csv
    import shutil

    folder = tmp_path / "set"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with (folder / "manifest.csv").open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["path", "label"])
        rows.writerows([name, "real"] for name in sorted(files - {"manifest.csv"}))
    lay_out(folder, *(files - {"manifest.csv"}))
    found = read(folder)
    assert [file.refusal for file in found] == [None] * len(files - {"manifest.csv"})
    assert {Path(str(file.content)).name for file in found} == files - {"manifest.csv"}


def test_a_name_that_is_not_utf8_can_stand_in_a_manifest(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    lay_out(tmp_path, name)
    write_manifest(tmp_path, f"path,label\n{name},real\n")
    (found,) = read(tmp_path)
    assert (found.name, found.refusal) == ("caf\\xe9.jpg", None)


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    lay_out(tmp_path, *(f"fake/g{i % 3}/{i}.jpg" for i in range(20)))
    assert read(tmp_path) == read(tmp_path)
