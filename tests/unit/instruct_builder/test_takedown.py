"""A takedown on a real database: what is let go of, what is named, and doing it again."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from core.errors import ConfigError
from core.ids import image_id_of, sha256_bytes
from core.records import ImageRecord, ReviewLevel, Source
from core.settings import load_settings
from db.chains import save_chains
from db.engine import Database, open_database
from db.images import ImportedFile, ImportOutcome, save_images, save_imported_files, save_source
from db.tombstones import tombstones
from imaging.store import ImageStore
from instruct_builder.__main__ import app
from instruct_builder.addresses import folder_at, upload
from instruct_builder.build import build
from instruct_builder.manifest import MANIFEST, read_manifest
from instruct_builder.shards import locked, partial_of, verify
from instruct_builder.takedown import Takedown, as_text, take_down
from tests.campaigns import make_chain, start_campaign, store_draft, store_images
from tests.unit.instruct_builder.specimens import make_pairs, recipe, write_set
from tests.unit.instruct_builder.stored import store_pairs
from tests.unit.records import make_image

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    write_set(tmp_path / "set", PAIRS)
    return tmp_path / "set"


PAIRS = make_pairs(12)
IMAGE = PAIRS[4][1]


def down(database: Database, store: ImageStore, image_id: str, **options: Any) -> Takedown:
    values: dict[str, Any] = {"reason": "the photographer asked for it", "now": NOON}
    values["work"] = store.folder.parent / "uploads"
    return take_down(database, store, image_id, **{**values, **options})


def stored_image(database: Database, store: ImageStore, data: bytes, **changes: Any) -> ImageRecord:
    digest = sha256_bytes(data)
    image = make_image(
        image_id=image_id_of(digest), sha256=digest, path=store.add(data, ".jpg"), **changes
    )
    with database.write() as session:
        save_source(session, Source(name="demo", licence="CC0-1.0"))
        save_images(session, [image])
    return image


def make_run(folder: Path, shards: Path, *, predicted: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    shutil.copy(shards / MANIFEST, folder)
    (folder / "predictions.jsonl").write_text(json.dumps({"image_id": predicted}) + "\n")
    return folder


def test_the_file_leaves_the_store_and_the_tombstone_stays(
    database: Database, store: ImageStore
) -> None:
    image = stored_image(database, store, b"the picture")
    other = store.add(b"another picture", ".jpg")
    done = down(database, store, image.image_id)
    assert done.files_removed == (image.path,)
    assert not store.holds(image.path)
    assert store.holds(other)
    again = down(database, store, image.image_id, reason="again", now=datetime.now(UTC))
    assert again.files_removed == ()
    assert again.tombstone == done.tombstone
    with database.read() as session:
        assert tombstones(session) == [done.tombstone]


def test_copies_go_with_it_and_its_kin_are_named(database: Database, store: ImageStore) -> None:
    image = stored_image(database, store, b"the picture", group="g")
    copy = stored_image(database, store, b"cropped", group="g")
    twin = stored_image(database, store, b"saved again", cluster=image.cluster)
    file = ImportedFile(
        source="demo",
        name=f"{image.image_id}-96x64-q90.jpg",
        outcome=ImportOutcome.ACCEPTED,
        reason=None,
        image_id=copy.image_id,
        size=1,
        mtime_ns=1,
    )
    with database.write() as session:
        save_imported_files(session, [file])
    done = down(database, store, image.image_id)
    assert done.copies == (copy.image_id,)
    assert set(done.files_removed) == {image.path, copy.path}
    assert done.kin == (twin.image_id,)
    assert store.holds(twin.path)


def test_the_sets_that_hold_it_are_rewritten_and_others_stay(
    database: Database, store: ImageStore, shards: Path, tmp_path: Path
) -> None:
    write_set(tmp_path / "other", make_pairs(3))
    before = (tmp_path / "other" / MANIFEST).read_bytes()
    done = down(database, store, IMAGE.image_id, shards=[shards, tmp_path / "other"])
    assert [amended.removed.images for amended in done.sets if amended.removed] == [1, 0]
    assert verify(shards) == []
    assert read_manifest(shards).tombstones == (IMAGE.image_id,)
    assert (tmp_path / "other" / MANIFEST).read_bytes() == before
    assert (done.tombstone.sha256, done.is_done) == (IMAGE.sha256, True)


def test_a_set_that_is_elsewhere_is_amended_where_it_is(
    database: Database, store: ImageStore, shards: Path
) -> None:
    """It alone knows the image; a run on it is listed; an address that holds nothing is named."""
    address = "memory://store/taken-down"
    upload(shards, address, last=MANIFEST)
    run = make_run(shards.parent / "runs" / "run", shards)
    with pytest.raises(ConfigError, match="memory://nowhere: there is no such folder"):
        down(database, store, IMAGE.image_id, shards=[address, "memory://nowhere"])
    done = down(database, store, IMAGE.image_id, shards=[address], runs=[run])
    assert [amended.removed.images for amended in done.sets if amended.removed] == [1]
    assert [found.held for found in done.runs] == [True]
    assert f"{address}: " in "\n".join(as_text(done))
    with folder_at(address) as folder:
        assert verify(folder) == []
        assert read_manifest(folder).tombstones == (IMAGE.image_id,)


def test_a_set_in_use_is_reported_and_done_the_next_time(
    database: Database, store: ImageStore, shards: Path, tmp_path: Path
) -> None:
    write_set(tmp_path / "other", PAIRS)
    folders = [shards, tmp_path / "other"]
    with locked(shards):
        done = down(database, store, IMAGE.image_id, shards=folders)
    assert not done.is_done
    assert "another build is writing there" in (done.sets[0].problem or "")
    assert "NOT REWRITTEN" in "\n".join(as_text(done))
    assert done.sets[1].removed is not None
    assert down(database, store, IMAGE.image_id, shards=folders).is_done
    assert read_manifest(shards).images == len(PAIRS) - 1


def test_a_set_that_was_cut_off_is_completed_though_it_alone_knows_the_image(
    database: Database, store: ImageStore, shards: Path
) -> None:
    down(database, store, IMAGE.image_id, shards=[shards])
    amended = (shards / MANIFEST).read_bytes()
    (shards / MANIFEST).replace(partial_of(shards, MANIFEST))
    assert down(database, store, IMAGE.image_id, shards=[shards]).is_done
    assert (shards / MANIFEST).read_bytes() == amended


def test_runs_on_a_set_that_held_it_are_listed_before_and_after(
    database: Database, store: ImageStore, shards: Path, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    early = make_run(runs / "early", shards, predicted=IMAGE.image_id)
    down(database, store, PAIRS[0][1].image_id, shards=[shards])
    later = make_run(runs / "later", shards)
    write_set(tmp_path / "other", make_pairs(3))
    unknown = make_run(runs / "unknown", tmp_path / "other")
    (runs / "no run").mkdir()
    for _ in range(2):
        done = down(database, store, IMAGE.image_id, shards=[shards], runs=[runs])
        assert {(r.folder, r.held, r.predictions) for r in done.runs} == {
            (early, True, 1),
            (later, True, 0),
            (unknown, None, 0),
        }
    after = make_run(runs / "after", shards)
    found = down(database, store, IMAGE.image_id, shards=[shards], runs=[after, runs]).runs
    assert after not in {run.folder for run in found}
    assert [run.held for run in found if run.folder == early] == [True]


def test_what_remains_is_counted(database: Database, store: ImageStore) -> None:
    (image,) = store_images(database, 1)
    draft = store_draft(database, start_campaign(database, [image]), image)
    with database.write() as session:
        save_chains(session, [make_chain(draft)])
    done = down(database, store, image.image_id)
    assert (done.let_go.work, done.let_go.replies) == (1, 1)
    assert (done.remains.drafts, done.remains.chains, done.remains.attempts) == (1, 1, 1)
    assert "1 drafts, 0 corrections, 0 versions" in "\n".join(as_text(done))


def test_an_unknown_image_or_folder_changes_nothing(
    database: Database, store: ImageStore, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="img-none: neither the database nor a shard set"):
        down(database, store, "img-none", shards=[shards])
    with pytest.raises(ConfigError, match="nowhere: there is no such folder"):
        down(database, store, IMAGE.image_id, shards=[shards], runs=[tmp_path / "nowhere"])
    with database.read() as session:
        assert tombstones(session) == []


def test_the_command_says_what_it_did_and_escapes_what_others_wrote(
    database: Database, store: ImageStore, shards: Path
) -> None:
    image = stored_image(database, store, b"the picture")
    command = ["takedown", image.image_id, "--reason", "a\x1b[31mred\nreason", "--shards"]
    shown = CliRunner().invoke(app, [*command, str(shards)])
    assert shown.exit_code == 0, shown.output
    assert f"{image.image_id} is withdrawn since " in shown.output
    assert r"a\u001b[31mred\u000areason" in shown.output
    assert f"{shards}: does not hold it" in shown.output
    told = CliRunner().invoke(app, [*command, str(shards), "--json"])
    assert json.loads(told.output)["tombstone"]["image_id"] == image.image_id


def test_a_build_over_an_amended_set_makes_it_anew(
    database: Database, store: ImageStore, tmp_path: Path
) -> None:
    store_pairs(database, PAIRS)
    out = tmp_path / "built"
    build(database, recipe(), store, out, min_review=ReviewLevel.DRAFT)
    down(database, store, IMAGE.image_id, shards=[out])
    assert read_manifest(out).removals
    again = build(database, recipe(), store, out, min_review=ReviewLevel.DRAFT)
    assert not again.unchanged
    assert again.manifest.tombstones == (IMAGE.image_id,)
    assert not again.manifest.removals


def take_down_and_die(home: Path, image_id: str, sets: list[Path], *, after: int) -> int:
    """Withdraw an image in a process that is killed after so many changes; its exit code."""
    child = os.fork()
    if child == 0:
        left = after

        def counted(act: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return act(*arguments, **named)

            return run

        database = open_database(load_settings(fakescope_home=home))
        for owner, name in (
            (Database, "write"),
            (Path, "unlink"),
            (Path, "replace"),
            (os, "fsync"),
        ):
            setattr(owner, name, counted(getattr(owner, name)))
        try:
            down(database, ImageStore(home / "images"), image_id, shards=sets)
            os._exit(0)
        finally:  # else the test itself would go on in this process
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_takedown_that_was_killed_is_finished_by_the_next(
    database: Database, store: ImageStore, home: Path, tmp_path: Path
) -> None:
    """Killed between its steps in database, store and two sets, several times in a row."""
    chain, drawn = PAIRS[4]
    as_drawn = {name: getattr(drawn, name) for name in ("label", "generator", "source", "group")}
    image = stored_image(database, store, b"the picture", **as_drawn)
    pairs = [*PAIRS[:4], (replace(chain, image_id=image.image_id), image), *PAIRS[5:]]
    sets = [tmp_path / "one", tmp_path / "two"]
    for folder in sets:
        write_set(folder, pairs)
    codes = []
    for step in (1, 5, 10):
        codes.append(take_down_and_die(home, image.image_id, sets, after=step))
        for folder in sets:
            if (folder / MANIFEST).exists():
                assert verify(folder) == []
    assert codes[:2] == [-signal.SIGKILL] * 2 and 1 not in codes
    done_at_last = down(database, store, image.image_id, shards=sets)
    assert done_at_last.is_done
    assert not store.holds(image.path)
    for folder in sets:
        assert verify(folder) == []
        assert read_manifest(folder).tombstones == (image.image_id,)
    with database.read() as session:
        assert [stone.image_id for stone in tombstones(session)] == [image.image_id]
