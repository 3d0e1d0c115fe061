"""Taking images out of a published set: what goes, what stays, and what a kill leaves."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from core.errors import ConfigError, StateError
from core.records import Split
from instruct_builder.card import CARD, render_card
from instruct_builder.croissant import CROISSANT, render_croissant
from instruct_builder.manifest import MANIFEST, Manifest, read_manifest
from instruct_builder.preview import PREVIEW, Scenes, render_preview
from instruct_builder.removal import Removed, complete, remove_images
from instruct_builder.selection import Member
from instruct_builder.shards import (
    IMAGES,
    ShardSet,
    ShardWriter,
    locked,
    partial_of,
    rows_table,
    verify,
)
from instruct_builder.staging import FOLDER as BUILD_UNDER_WAY
from tests.unit.instruct_builder.specimens import (
    Pair,
    make_facts,
    make_pairs,
    place_all,
    recipe,
)

PAIRS = make_pairs(30)


def write_whole_set(folder: Path, pairs: list[Pair], *, rows_per_shard: int = 60) -> Manifest:
    """A published set with card and preview."""
    placed = place_all(pairs)
    scenes = Scenes([Member(chain=c, image=i, split=Split.TRAIN) for c, i in pairs], 8)
    scenes.see(placed)
    with locked(folder), ShardWriter(folder, rows_per_shard=rows_per_shard) as writer:
        for split in (Split.TRAIN, Split.TEST):
            writer.add_rows(rows_table([item for item in placed if item.split is split]))
        writer.add_images([(item.image, item.split) for item in placed])
        facts = make_facts()
        counted = writer.manifest(facts)
        writer.add_document(CARD, render_card(counted))
        writer.add_document(CROISSANT, render_croissant(counted))
        page = render_preview(scenes, counted, recipe().taxonomy, lambda path: b"no picture")
        writer.add_document(PREVIEW, page)
        return writer.publish(facts)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("removal") / "set"
    write_whole_set(folder, PAIRS)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "set")
    return tmp_path / "set"


def rows_of(folder: Path) -> pa.Table:
    return pa.concat_tables(ShardSet.open(folder).rows())


def without(table: pa.Table, image_ids: Collection[str]) -> list[dict[str, object]]:
    return [row for row in table.to_pylist() if row["image_id"] not in image_ids]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_only_the_rows_of_the_image_go_and_only_its_files_are_rewritten(folder: Path) -> None:
    before, rows = contents(folder), rows_of(folder)
    gone = PAIRS[3][1].image_id
    removed = remove_images(folder, [gone])
    assert removed.images == 1
    assert removed.rows == rows.num_rows - rows_of(folder).num_rows > 0
    assert verify(folder) == []
    assert rows_of(folder).to_pylist() == without(rows, {gone})
    changed = {name for name, data in contents(folder).items() if data != before.get(name)}
    assert changed == {*removed.files, MANIFEST}
    assert len([name for name in changed if name.startswith("rows-")]) == 1
    assert not any(gone.encode() in data for n, data in contents(folder).items() if n != MANIFEST)


def test_the_manifest_says_what_was_done(folder: Path) -> None:
    before = read_manifest(folder)
    gone = PAIRS[3][1].image_id
    removed = remove_images(folder, [gone])
    after = read_manifest(folder)
    assert after.tombstones == (gone,)
    assert (after.rows, after.images) == (before.rows - removed.rows, before.images - 1)
    assert after.chains == before.chains - 1
    (removal,) = after.removals
    assert (removal.image_ids, removal.rows) == ((gone,), removed.rows)
    assert removal.images_sha256 == next(f.sha256 for f in before.files if f.path == IMAGES)
    assert "Withdrawn since it was built: 1 images" in (folder / CARD).read_text()
    assert (folder / CARD).read_bytes() == render_card(after)
    assert (folder / CROISSANT).read_bytes() == render_croissant(after)


def test_again_it_changes_nothing(folder: Path) -> None:
    gone = [PAIRS[0][1].image_id, PAIRS[9][1].image_id]
    assert remove_images(folder, gone).images == 2
    once = contents(folder)
    assert remove_images(folder, [*gone, "img-unknown"]) == Removed(images=0, rows=0, files=())
    assert contents(folder) == once


def test_the_preview_shows_the_others_on(folder: Path) -> None:
    page = (folder / PREVIEW).read_text()
    shown = [image.image_id for _, image in PAIRS if f'<article id="{image.image_id}">' in page]
    assert len(shown) == 8
    remove_images(folder, shown[:3])
    page = (folder / PREVIEW).read_text()
    assert page.count("was withdrawn") == 3
    assert [i for i in shown if i in page] == shown[3:]
    assert page.count("<article") == page.count("</article>") == 5


def test_a_shard_without_rows_left_is_gone(folder: Path) -> None:
    shards = ShardSet.open(folder)
    first = shards.manifest.files[0]
    ids = set(shards.read_row_group(shards.row_groups()[0])["image_id"].to_pylist())
    assert first.path in remove_images(folder, ids).files
    assert not (folder / first.path).exists()
    assert verify(folder) == []


@hypothesis_settings(max_examples=10, deadline=None)
@given(st.sets(st.integers(0, len(PAIRS) - 1), min_size=1))
def test_any_images_can_go_together_or_one_after_another(
    original: Path, tmp_path_factory: pytest.TempPathFactory, places: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("any") / "set"
    rows = rows_of(original)
    ids = [PAIRS[place][1].image_id for place in sorted(places)]
    shutil.copytree(original, folder)
    remove_images(folder, ids[:1])
    remove_images(folder, ids[1:])
    assert verify(folder) == []
    manifest = read_manifest(folder)
    assert set(manifest.tombstones) == set(ids)
    left = pa.concat_tables([rows.schema.empty_table(), *ShardSet.open(folder).rows()])
    assert left.to_pylist() == without(rows, ids)


def kill_in_step(folder: Path, image_ids: list[str], step: int) -> bool:
    """Remove images in a process that is killed before its n-th change on the disk.

    Returns whether it lived to do that many.
    """
    child = os.fork()
    if child == 0:
        left = step

        def counted(act: object) -> object:
            def run(*arguments: object, **named: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return act(*arguments, **named)  # type: ignore[operator]

            return run

        for name in ("unlink", "replace", "open"):
            setattr(Path, name, counted(getattr(Path, name)))
        os.fsync = counted(os.fsync)  # type: ignore[assignment]
        remove_images(folder, image_ids)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_moment_leaves_a_set_that_verifies_or_is_clearly_incomplete(
    original: Path, folder: Path, tmp_path: Path
) -> None:
    ids = [PAIRS[0][1].image_id, PAIRS[25][1].image_id]
    remove_images(folder, ids)
    wanted = contents(folder)
    states = set()
    for step in range(200):
        copy = tmp_path / f"killed-{step}"
        shutil.copytree(original, copy)
        if not kill_in_step(copy, ids, step):
            break
        if (copy / MANIFEST).exists():
            assert verify(copy) == []
            states.add(read_manifest(copy).images)
        else:
            with pytest.raises(ConfigError, match="a build that ended early has none"):
                verify(copy)
            states.add(0)
        remove_images(copy, ids)
        assert contents(copy) == wanted
    assert states == {0, 28, 30}, "killed before, amid and after the files got their names"


def test_another_image_may_go_after_a_kill(original: Path, tmp_path: Path) -> None:
    first, second = PAIRS[0][1].image_id, PAIRS[25][1].image_id
    for step in range(0, 60, 3):
        copy = tmp_path / f"killed-{step}"
        shutil.copytree(original, copy)
        if not kill_in_step(copy, [first], step):
            break
        remove_images(copy, [second])
        assert verify(copy) == []
        assert second in read_manifest(copy).tombstones


def test_a_build_that_was_killed_while_it_published_is_completed(folder: Path) -> None:
    whole = contents(folder)
    for name in (MANIFEST, "rows-00001.parquet", IMAGES):
        (folder / name).replace(partial_of(folder, name))
    complete(folder)
    assert contents(folder) == whole


def test_a_set_that_was_never_staged_to_its_end_is_left_alone(folder: Path) -> None:
    (folder / MANIFEST).replace(partial_of(folder, MANIFEST))
    (folder / "rows-00001.parquet").unlink()
    with pytest.raises(ConfigError, match="is no shard set"):
        remove_images(folder, ["img-1"])
    assert partial_of(folder, MANIFEST).exists()


def test_a_build_that_was_cut_off_is_given_up_for_it_may_hold_the_image(folder: Path) -> None:
    staged = folder / BUILD_UNDER_WAY
    staged.mkdir()
    (staged / "turns.npy").write_bytes(b"a plan")
    remove_images(folder, ["img-unknown"])
    assert not staged.exists()
    assert verify(folder) == []


def test_a_wrong_folder_is_named_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no such folder"):
        remove_images(tmp_path / "nowhere", ["img-1"])
    assert not (tmp_path / "nowhere").exists()


def test_two_processes_do_not_write_at_once(folder: Path) -> None:
    with locked(folder), pytest.raises(StateError, match="another build"):
        remove_images(folder, [PAIRS[0][1].image_id])
