"""Provenance from a file to a table on a terminal, and to nobody else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import PngImagePlugin
from typer.testing import CliRunner, Result

from core.recipe import load_recipe
from core.records import Source
from core.settings import load_settings
from db.engine import open_database
from db.images import labelled_images
from db.provenance import provenance_of
from generation.__main__ import app
from generation.ingest import ingest
from generation.prompt import render
from generation.provenance import NOTHING
from imaging import provenance
from imaging.store import ImageStore
from teacher.request import payload_of
from tests.odd_files import encode, exif, insert_chunks, jpeg, picture

RECIPE = load_recipe()
SECRETS = ("a glass lighthouse", "Obscura", "seed 4711")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with one photograph and one fake that say where they come from."""
    monkeypatch.setenv("FAKESCOPE_HOME", str(tmp_path))
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.setattr(provenance, "find_spec", lambda name: None)
    notes = PngImagePlugin.PngInfo()
    notes.add_text("parameters", "a glass lighthouse\nseed 4711")
    fake = insert_chunks(encode(picture(2), "PNG", pnginfo=notes), (b"caBX", b"jumbc2pa"))
    files = {"real/a.jpg": jpeg(1, exif=exif(text="x", gps=True)), "fake/gan/b.png": fake}
    for name, data in files.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(data)
    return tmp_path


def run(*arguments: str) -> Result:
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return done


def test_what_files_say_is_kept_as_data_and_reaches_no_teacher_and_no_store(home: Path) -> None:
    settings = load_settings()
    database, store = open_database(settings), ImageStore(settings.image_store)
    ingest(database, store, home / "set", source=Source(name="ours", licence="CC0-1.0"))
    with database.read() as session:
        images = list(labelled_images(session))
        said = {image.format: provenance_of(session, image.image_id) for image in images}
    assert said == {
        "JPEG": {"exif.make": "Obscura 9000"},
        "PNG": {
            "c2pa": "present, not read",
            "generator.parameters": "a glass lighthouse\nseed 4711",
        },
    }
    for image in images:
        stored = store.read(image.path)
        request = render(image, stored, recipe=RECIPE, arm=RECIPE.arm("main")).request
        for sent in (stored, json.dumps(payload_of(request)).encode()):
            assert not [secret for secret in SECRETS if secret.encode() in sent]
    database.dispose()


def test_the_summary_counts_by_label_and_keeps_each_value_on_its_line(home: Path) -> None:
    told = run("ingest", str(home / "set"), "--source", "ours").output
    assert "1 new images carry C2PA manifests; to read what they claim: make setup" in told
    assert "C2PA" not in run("ingest", str(home / "set"), "--source", "ours").output
    lines = run("provenance").stdout.splitlines()
    assert [line.split() for line in lines[1:]] == [
        ["c2pa", "0", "1", "0"],
        ["present,", "not", "read", "0", "1", "0"],
        ["exif.make", "1", "0", "0"],
        ["Obscura", "9000", "1", "0", "0"],
        ["generator.parameters", "0", "1", "0"],
    ]
    rows = json.loads(run("provenance", "--json").stdout)
    assert {row["name"] for row in rows} == {"c2pa", "exif.make", "generator.parameters"}


def test_of_one_image_all_is_told_on_one_line_each(home: Path) -> None:
    run("ingest", str(home / "set"), "--source", "ours")
    database = open_database(load_settings())
    with database.read() as session:
        (fake,) = [image for image in labelled_images(session) if image.format == "PNG"]
    database.dispose()
    assert run("provenance", fake.image_id).stdout.splitlines() == [
        "c2pa: present, not read",
        "generator.parameters: a glass lighthouse\\u000aseed 4711",
    ]
    assert len(json.loads(run("provenance", fake.image_id, "--json").stdout)) == 2
    none = CliRunner().invoke(app, ["provenance", "img-none"])
    assert (none.exit_code, "there is no image 'img-none'" in none.output) == (2, True)


def test_where_nothing_is_said_the_summary_says_so(home: Path) -> None:
    assert run("provenance").stdout.strip() == NOTHING


def test_refused_files_are_listed_with_their_reasons(home: Path) -> None:
    (home / "set/real/empty.jpg").touch()
    run("ingest", str(home / "set"), "--source", "ours")
    assert run("refused", "--source", "ours").stdout == "real/empty.jpg: empty file\n"
    (line,) = run("refused", "--source", "ours", "--json").stdout.splitlines()
    assert json.loads(line) == {"name": "real/empty.jpg", "reason": "empty file"}
