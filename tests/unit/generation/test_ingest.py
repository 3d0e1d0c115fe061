"""Ingest: what becomes of files, once and again, and after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import ConfigError
from core.ids import sha256_bytes
from core.records import Authenticity, ImageRecord, Source
from core.settings import load_settings
from db.engine import Database, open_database
from db.images import (
    ImportedFile,
    ImportOutcome,
    images_by_id,
    imported_files,
    phashes,
    sources,
)
from db.provenance import provenance_of
from db.tombstones import withdraw
from generation import ingest as ingest_module
from generation.ingest import BATCH_BYTES, EncodedImage, IngestSummary, ingest, ingest_encoded
from imaging.store import ImageStore
from tests.databases import create_tables, sqlite_template  # noqa: F401
from tests.odd_files import SECRET_PROMPT, encode, exif, jpeg, picture
from tests.unit.records import make_image, make_tombstone

REAL, FAKE = Authenticity.REAL, Authenticity.FAKE
OURS = Source(name="ours", licence="CC0-1.0")

KILLED = """
import os, signal, sys
from pathlib import Path
from core.records import Source
from core.settings import load_settings
from db.engine import open_database
from db.provenance import provenance_of
from generation.ingest import ingest
from imaging.store import ImageStore

database, store, folder, last = sys.argv[1:]

def report(done, total):
    if done == int(last):
        os.kill(os.getpid(), signal.SIGKILL)

ingest(
    open_database(load_settings(database_url=f"sqlite:///{database}")),
    ImageStore(Path(store)),
    Path(folder),
    source=Source(name="ours", licence="CC0-1.0"),
    progress=report,
)
"""


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:  # noqa: F811
    opened = open_copy(sqlite_template, tmp_path / "test.db")
    yield opened
    opened.dispose()


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return lay_out(
        tmp_path / "set",
        {
            "real/a.jpg": jpeg(1),
            "real/b.jpg": jpeg(2),
            "fake/gan/c.jpg": jpeg(3),
            "fake/gan/d.png": encode(picture(4).convert("CMYK"), "TIFF"),
            "fake/gan/e.jpg": b"",
        },
    )


def open_copy(template: Path, path: Path) -> Database:
    shutil.copy(template, path)
    return open_database(load_settings(database_url=f"sqlite:///{path}"))


def lay_out(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def counts(summary: IngestSummary) -> dict[str, int]:
    names = ("accepted", "changed", "duplicates", "refused", "known", "hidden")
    found = {name: getattr(summary, name) for name in names}
    assert sum(found.values()) == summary.seen
    assert len(summary.refusals) == summary.refused
    return {name: count for name, count in found.items() if count}


def files_of(database: Database, source: str = "ours") -> dict[str, ImportedFile]:
    with database.read() as session:
        return {file.name: file for file in imported_files(session, source)}


def images_of(database: Database, source: str = "ours") -> dict[str, ImageRecord]:
    """The images that the files of a source became, by file name."""
    made = (ImportOutcome.ACCEPTED, ImportOutcome.CHANGED)
    named = {f.name: f.image_id for f in files_of(database, source).values() if f.outcome in made}
    with database.read() as session:
        images = images_by_id(session, [image_id for image_id in named.values() if image_id])
    return {name: images[image_id] for name, image_id in named.items() if image_id}


def rows_of(database: Database) -> tuple[object, ...]:
    """Everything that an import writes."""
    with database.read() as session:
        images = images_by_id(session, ids_of(session))
        said = [provenance_of(session, image_id) for image_id in images]
        return images, said, list(imported_files(session, "ours")), sources(session)


def ids_of(session: Any) -> list[str]:
    return [image_id for rows in phashes(session) for image_id, _, _ in rows]


def test_a_labelled_folder_becomes_image_records(
    database: Database, store: ImageStore, folder: Path
) -> None:
    summary = ingest(database, store, folder, source=OURS)
    assert counts(summary) == {"accepted": 3, "changed": 1, "refused": 1}
    assert summary.refusals == (("fake/gan/e.jpg", "empty file"),)
    images = images_of(database)
    assert {name: (i.label, i.generator) for name, i in images.items()} == {
        "real/a.jpg": (REAL, None),
        "real/b.jpg": (REAL, None),
        "fake/gan/c.jpg": (FAKE, "gan"),
        "fake/gan/d.png": (FAKE, "gan"),
    }
    assert {(i.group, i.cluster, i.source) for i in images.values()} == {
        (i.image_id, i.image_id, "ours") for i in images.values()
    }
    first, changed = images["real/a.jpg"], images["fake/gan/d.png"]
    assert (first.format, first.width, first.height, first.jpeg_quality) == ("JPEG", 96, 72, 92)
    assert (changed.format, changed.jpeg_quality) == ("PNG", None)
    assert store.read(first.path) == jpeg(1)
    assert changed.original_sha256 != changed.sha256


def test_the_users_files_are_not_touched(
    database: Database, store: ImageStore, folder: Path
) -> None:
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}
    ingest(database, store, folder, source=OURS)
    assert before == {
        p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def test_doing_it_again_adds_nothing_and_decodes_nothing(
    database: Database, store: ImageStore, folder: Path
) -> None:
    ingest(database, store, folder, source=OURS)
    before = rows_of(database)
    for path in folder.rglob("*.*"):
        stamp = path.stat().st_mtime_ns
        path.write_bytes(bytes(path.stat().st_size))  # whoever opens one now finds no picture
        os.utime(path, ns=(stamp, stamp))
    summary = ingest(database, store, folder, source=OURS)
    assert counts(summary) == {"known": 5}
    assert summary.known_refused == 1
    assert rows_of(database) == before


def test_a_changed_file_is_looked_at_again(
    database: Database, store: ImageStore, folder: Path
) -> None:
    ingest(database, store, folder, source=OURS)
    (folder / "fake/gan/e.jpg").write_bytes(jpeg(5))
    assert counts(ingest(database, store, folder, source=OURS)) == {"accepted": 1, "known": 4}
    assert "fake/gan/e.jpg" in images_of(database)


def test_a_file_with_another_time_only_stays_what_it_was(
    database: Database, store: ImageStore, folder: Path
) -> None:
    ingest(database, store, folder, source=OURS)
    before = images_of(database)
    os.utime(folder / "real/a.jpg", ns=(5, 5))
    assert counts(ingest(database, store, folder, source=OURS)) == {"known": 5}
    assert images_of(database) == before
    assert files_of(database)["real/a.jpg"].mtime_ns == 5


def test_an_image_that_the_store_lost_is_put_back(
    database: Database, store: ImageStore, folder: Path
) -> None:
    ingest(database, store, folder, source=OURS)
    lost = images_of(database)["real/a.jpg"]
    store.path(lost.path).unlink()
    assert counts(ingest(database, store, folder, source=OURS)) == {"known": 5}
    assert store.read(lost.path) == jpeg(1)


def test_the_same_image_twice_is_one_image(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    tagged = jpeg(1, exif=exif(text=SECRET_PROMPT))
    first = lay_out(tmp_path / "first", {"a.jpg": jpeg(1), "b.jpg": jpeg(1), "c.jpg": tagged})
    other = lay_out(tmp_path / "other", {"d.jpg": jpeg(1)})
    summary = ingest(database, store, first, source=OURS, label=REAL)
    assert counts(summary) == {"accepted": 1, "duplicates": 2}
    summary = ingest(
        database, store, other, source=Source(name="theirs", licence="MIT"), label=REAL
    )
    assert counts(summary) == {"duplicates": 1}
    reasons = {name: file.reason for name, file in files_of(database).items()}
    assert reasons["b.jpg"] == "the same image as ours: a.jpg"
    assert reasons["c.jpg"] == "the same image as ours: a.jpg; cut out: EXIF"
    assert files_of(database, "theirs")["d.jpg"].reason == "the same image as ours: a.jpg"
    assert list(images_of(database)) == ["a.jpg"]


def test_a_duplicate_under_another_generator_says_so(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "set", {"fake/one/a.jpg": jpeg(1), "fake/two/b.jpg": jpeg(1)})
    ingest(database, store, folder, source=OURS)
    reason = files_of(database)["fake/two/b.jpg"].reason
    assert reason == "the same image as ours: fake/one/a.jpg, which is there as made by one"


def test_a_contradicting_label_is_refused_and_both_are_named(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "set", {"fake/x/a.jpg": jpeg(1), "real/b.jpg": jpeg(1)})
    summary = ingest(database, store, folder, source=OURS)
    reason = "labelled real, but the same image is there as fake (ours: fake/x/a.jpg)"
    assert summary.refusals == (("real/b.jpg", reason),)
    assert counts(ingest(database, store, folder, source=OURS)) == {"known": 2}
    shutil.move(folder / "real" / "b.jpg", folder / "fake" / "x" / "b.jpg")
    assert counts(ingest(database, store, folder, source=OURS)) == {"duplicates": 1, "known": 1}


def test_a_file_whose_label_turns_round_is_refused(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "set", {"a.jpg": jpeg(1)})
    ingest(database, store, folder, source=OURS, label=REAL)
    assert counts(ingest(database, store, folder, source=OURS, label=FAKE)) == {"refused": 1}
    with database.read() as session:
        (image_id,) = ids_of(session)
        assert images_by_id(session, [image_id])[image_id].label is REAL


def test_unlabelled_images_are_counted_and_can_get_a_label_later(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "set", {"a.jpg": jpeg(1), "b.jpg": jpeg(2)})
    summary = ingest(database, store, folder, source=OURS)
    assert (counts(summary), summary.unlabelled) == ({"accepted": 2}, 2)
    summary = ingest(database, store, folder, source=OURS, label=FAKE, generator="sd14")
    assert (counts(summary), summary.unlabelled) == ({"accepted": 2}, 0)
    found = {(image.label, image.generator) for image in images_of(database).values()}
    assert found == {(FAKE, "sd14")}
    assert counts(ingest(database, store, folder, source=OURS, label=FAKE)) == {"known": 2}
    assert counts(ingest(database, store, folder, source=OURS)) == {"known": 2}


def test_a_withdrawn_image_is_refused_under_any_name_and_not_stored(
    database: Database, store: ImageStore, folder: Path
) -> None:
    ingest(database, store, folder, source=OURS)
    image = images_of(database)["real/a.jpg"]
    withdraw(database, make_tombstone(image))
    store.remove(image.sha256)
    again = lay_out(
        folder, {"real/renamed.jpg": jpeg(1), "real/tagged.jpg": jpeg(1, exif=exif(text="x"))}
    )
    summary = ingest(database, store, again, source=OURS)
    reason = "the same image was withdrawn on 2026-03-01: the photographer asked for it"
    names = ("real/a.jpg", "real/renamed.jpg", "real/tagged.jpg")
    assert summary.refusals == tuple((name, reason) for name in names)
    assert not store.holds(image.path)
    assert counts(ingest(database, store, again, source=OURS)) == {"known": 7}


def test_a_withdrawn_file_is_refused_though_it_is_stored_as_other_bytes(
    database: Database, store: ImageStore, folder: Path
) -> None:
    ingest(database, store, folder, source=OURS)
    image = images_of(database)["fake/gan/d.png"]
    earlier = make_image("as an earlier version stored it", original_sha256=image.original_sha256)
    withdraw(database, make_tombstone(earlier))
    other = lay_out(
        folder.parent / "other", {"real/d.tif": (folder / "fake/gan/d.png").read_bytes()}
    )
    summary = ingest(database, store, other, source=Source(name="other", licence="unknown"))
    assert counts(summary) == {"refused": 1}
    assert store.holds(image.path), "that image itself was never withdrawn"


def test_near_duplicates_share_a_cluster_across_imports(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    scene = picture(9, 640, 480, grain=2)
    first = lay_out(tmp_path / "1", {"a.png": encode(scene, "PNG"), "x.jpg": jpeg(1)})
    second = lay_out(tmp_path / "2", {"b.jpg": encode(scene.resize((320, 240)), "JPEG")})
    ingest(database, store, first, source=OURS)
    ingest(database, store, second, source=Source(name="theirs", licence="MIT"))
    pair = images_of(database)["a.png"], images_of(database, "theirs")["b.jpg"]
    assert {i.cluster for i in pair} == {min(i.image_id for i in pair)}
    assert images_of(database)["x.jpg"].cluster == images_of(database)["x.jpg"].image_id


def test_near_duplicates_of_an_import_that_runs_meanwhile_are_found(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    photos = {f"{number}.jpg": jpeg(number) for number in range(40)}
    copies = {f"{number}.jpg": jpeg(number, quality=80) for number in range(40)}
    first, second = lay_out(tmp_path / "one", photos), lay_out(tmp_path / "two", copies)
    meanwhile = []

    def run_the_other(done: int, total: int) -> None:
        if done == 20:
            meanwhile.append(
                ingest(database, store, second, source=Source(name="two", licence="x"))
            )

    ingest(database, store, first, source=OURS, progress=run_the_other, workers=1)
    assert [summary.accepted for summary in meanwhile] == [40]
    ours, theirs = images_of(database), images_of(database, "two")
    assert {name: image.cluster for name, image in ours.items()} == {
        name: image.cluster for name, image in theirs.items()
    }
    assert len({image.cluster for image in ours.values()}) == 40


def test_a_manifest_names_groups_and_licences(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "set", {"a.jpg": jpeg(1), "b.jpg": jpeg(2), "c.jpg": jpeg(3)})
    rows = "a.jpg,real,7,MIT\nb.jpg,fake,7,CC0-1.0\nc.jpg,real,,MIT\nd.jpg,real,,MIT\n"
    (folder / "manifest.csv").write_text(f"path,label,group,license\n{rows}")
    unnamed = Source(name="ours", licence="unknown")
    summary = ingest(database, store, folder, source=unnamed)
    assert summary.refusals == (("d.jpg", "no such file"),)
    images = images_of(database)
    assert images["a.jpg"].group == images["b.jpg"].group == "ours/7"
    assert images["c.jpg"].group == images["c.jpg"].image_id
    with database.read() as session:
        assert sources(session)["ours"].licence == "CC0-1.0; MIT"


def test_a_licence_that_was_named_once_is_not_forgotten(
    database: Database, store: ImageStore, folder: Path
) -> None:
    ingest(database, store, folder, source=OURS)
    ingest(database, store, folder, source=replace(OURS, licence="unknown"))
    with database.read() as session:
        assert sources(session)["ours"] == OURS


def write_fakebench(folder: Path) -> Path:
    lay_out(
        folder,
        {
            "FakeBench_images/fake_images/sd-1.jpg": jpeg(1),
            "FakeBench_images/real_images/2.jpg": jpeg(2),
        },
    )
    rows = [
        {"image_id": "sd-1.jpg", "authenticity": 0},
        {"image_id": "2.jpg", "authenticity": 1},
    ]
    (folder / "Evaluation").mkdir()
    (folder / "Evaluation/FakeClass.json").write_text(json.dumps(rows))
    return folder


def test_what_a_layout_forbids_is_kept_with_the_source_for_good(
    database: Database, store: ImageStore, folder: Path, tmp_path: Path
) -> None:
    unnamed = Source(name="ours", licence="unknown")
    summary = ingest(database, store, write_fakebench(tmp_path / "bench"), source=unnamed)
    assert (summary.layout, summary.may_train, summary.accepted) == ("fakebench", False, 2)
    assert "for evaluation only" in summary.text().splitlines()[0]
    expected = Source(name="ours", licence="CC-BY-NC-4.0, evaluation only", may_train=False)
    for path in (None, folder):
        if path is not None:
            assert not ingest(database, store, path, source=unnamed).may_train
        with database.read() as session:
            assert sources(session)["ours"] == expected


def test_a_zip_archive_gives_the_same_images_as_its_folder(
    database: Database, store: ImageStore, folder: Path, tmp_path: Path
) -> None:
    path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", folder))
    summary = ingest(database, store, path, source=OURS, workers=2)
    assert (summary.layout, counts(summary)) == (
        "folder",
        {"accepted": 3, "changed": 1, "refused": 1},
    )
    again = ingest(database, store, path, source=OURS)
    assert counts(again) == {"known": 5}
    theirs = Source(name="theirs", licence="MIT")
    assert counts(ingest(database, store, folder, source=theirs)) == {
        "duplicates": 4,
        "refused": 1,
    }


def test_a_compressed_tar_archive_gives_the_same_images_as_its_folder(
    sqlite_template: Path,  # noqa: F811
    tmp_path: Path,
    folder: Path,
) -> None:
    path = tmp_path / "set.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.add(file, file.relative_to(folder).as_posix())
    found, told = {}, []
    for name, place in (("folder", folder), ("archive", path)):
        store, database = (
            ImageStore(tmp_path / name),
            open_copy(sqlite_template, tmp_path / f"{name}.db"),
        )
        summary = ingest(
            database, store, place, source=OURS, progress=lambda *seen: told.append(seen), workers=2
        )
        found[name] = images_of(database), counts(summary)
        assert ingest(database, store, place, source=OURS).known == summary.seen
        database.dispose()
    assert found["folder"] == found["archive"]
    assert told[-1] == (5, 5)


def test_an_empty_compressed_archive_is_named(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "set.tgz", "w:gz"):
        pass
    with pytest.raises(ConfigError, match="there is no file in it"):
        ingest(database, store, tmp_path / "set.tgz", source=OURS)


def test_images_in_parquet_cells_are_taken_in_by_several_processes(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    rows = [
        {"image": {"bytes": jpeg(i), "path": None}, "label": "fake", "model": f"m{i % 2}"}
        for i in range(50)
    ]
    (tmp_path / "set").mkdir()
    table = pa.Table.from_pylist(rows)
    pq.write_table(table, tmp_path / "set" / "train-0.parquet", row_group_size=20)
    summary = ingest(database, store, tmp_path / "set", source=OURS, workers=2)
    assert (summary.layout, counts(summary)) == ("openfake", {"accepted": 50})
    images = images_of(database)
    assert [images[f"train-0.parquet/{i:07}"].original_sha256 for i in range(50)] == [
        sha256_bytes(jpeg(i)) for i in range(50)
    ]
    assert counts(ingest(database, store, tmp_path / "set", source=OURS)) == {"known": 50}


def test_hidden_files_are_counted_and_left_out(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "set", {"a.jpg": jpeg(1), ".b.jpg": jpeg(2), ".git/c.jpg": jpeg(3)})
    assert counts(ingest(database, store, folder, source=OURS)) == {"accepted": 1, "hidden": 2}
    assert list(files_of(database)) == ["a.jpg"]


def test_what_may_pass_is_tried_again(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "set", {"a.jpg": jpeg(1)})
    (folder / "b.jpg").symlink_to("c.jpg")
    assert counts(ingest(database, store, folder, source=OURS)) == {"accepted": 1, "refused": 1}
    (folder / "c.jpg").write_bytes(jpeg(2))
    summary = ingest(database, store, folder, source=OURS)
    assert counts(summary) == {"accepted": 1, "duplicates": 1, "known": 1}


@pytest.mark.parametrize("held", [1, BATCH_BYTES])
def test_images_in_memory_go_the_same_way(
    database: Database, store: ImageStore, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "BATCH_BYTES", held)
    items = [
        EncodedImage(name="a.jpg", data=jpeg(1), label=REAL, generator=None, group="cat"),
        EncodedImage(name="b.jpg", data=jpeg(2), label=FAKE, generator="sim-x", group="cat"),
        EncodedImage(name="c.jpg", data=b"", label=FAKE, generator="sim-x", group="cat"),
    ]
    summary = ingest_encoded(database, store, iter(items), source=OURS)
    assert counts(summary) == {"accepted": 2, "refused": 1}
    found = {name: (i.label, i.generator, i.group) for name, i in images_of(database).items()}
    assert found == {"a.jpg": (REAL, None, "cat"), "b.jpg": (FAKE, "sim-x", "cat")}
    assert counts(ingest_encoded(database, store, items, source=OURS)) == {"known": 3}
    items[0] = replace(items[0], data=jpeg(3))
    assert counts(ingest_encoded(database, store, items, source=OURS)) == {
        "accepted": 1,
        "known": 2,
    }


def test_progress_ends_at_the_number_of_files(
    database: Database, store: ImageStore, folder: Path
) -> None:
    told: list[tuple[int, int]] = []
    ingest(database, store, folder, source=OURS, progress=lambda *step: told.append(step))
    assert told[-1] == (5, 5)
    assert told == sorted(told)


def test_the_summary_counts_and_names_refusals(
    database: Database, store: ImageStore, folder: Path
) -> None:
    text = ingest(database, store, folder, source=OURS).text()
    reading, first, second = text.splitlines()
    assert reading == "ours: read as layout folder (it holds fake/ and real/)"
    assert first.startswith(
        "ours: 5 files: 3 accepted, 1 accepted and redrawn as PNG, 0 duplicates"
    )
    assert second == "  refused fake/gan/e.jpg: empty file"


def test_a_long_list_of_refusals_is_cut(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    folder = lay_out(tmp_path / "set", {f"{number}.jpg": b"" for number in range(25)})
    lines = ingest(database, store, folder, source=OURS).text().splitlines()
    assert len(lines) == 23
    assert lines[-1] == "  and 5 more: python -m generation refused --source ours"


def test_an_empty_folder_is_named(database: Database, store: ImageStore, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ConfigError, match="nothing: there is no file in it"):
        ingest(database, store, tmp_path / "nothing", source=OURS)


def test_a_store_that_cannot_be_written_stops_and_says_so(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"image store .*file: cannot write"):
        ingest(database, ImageStore(tmp_path / "file"), folder, source=OURS)
    assert images_of(database) == {}


def test_one_process_and_several_write_the_same_rows(
    sqlite_template: Path,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = lay_out(tmp_path / "set", {f"real/{i % 90}-{i}.jpg": jpeg(i % 90) for i in range(120)})
    rows = []
    for workers in (1, 3):
        database = open_copy(sqlite_template, tmp_path / f"{workers}.db")
        store = ImageStore(tmp_path / f"images{workers}")
        summary = ingest(database, store, folder, source=OURS, workers=workers)
        assert counts(summary) == {"accepted": 90, "duplicates": 30}
        rows.append(rows_of(database))
        database.dispose()
    assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More than two batches of small files: pictures, near-duplicates, and some that are broken."""
    files = {}
    for number in range(1100):
        image = picture(number % 1000, 32, 32)
        data = encode(image, "JPEG", quality=95 if number < 1000 else 80)
        files[f"fake/g{number % 3}/{number:04}.jpg"] = data[:80] if number % 97 == 0 else data
    return lay_out(tmp_path_factory.mktemp("large"), files)


@pytest.fixture(scope="module")
def undisturbed(
    sqlite_template: Path,  # noqa: F811
    large_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[object, ...]:
    """The rows of an import of the large folder that nothing disturbed."""
    place = tmp_path_factory.mktemp("undisturbed")
    database = open_copy(sqlite_template, place / "test.db")
    summary = ingest(database, ImageStore(place / "images"), large_folder, source=OURS)
    assert counts(summary) == {"accepted": 1088, "refused": 12}
    rows = rows_of(database)
    database.dispose()
    return rows


@pytest.mark.parametrize("last", [600, pytest.param(1099, marks=pytest.mark.full)])
def test_a_killed_import_ends_with_the_same_rows(
    database: Database,
    store: ImageStore,
    large_folder: Path,
    undisturbed: tuple[object, ...],
    tmp_path: Path,
    last: int,
) -> None:
    arguments = [tmp_path / "test.db", store.folder, large_folder, str(last)]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(files_of(database)) == last // 500 * 500
    summary = ingest(database, store, large_folder, source=OURS)
    assert summary.known == last // 500 * 500
    assert summary.seen == 1100
    assert rows_of(database) == undisturbed
