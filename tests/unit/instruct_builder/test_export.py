"""Exports: small golden ones, every row in every format, and what a bad row or a kill leaves."""

from __future__ import annotations

import json
import os
import resource
import signal
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from core.errors import ConfigError
from core.ids import sha256_bytes
from core.records import Split
from imaging.store import ImageStore
from instruct_builder import export_files
from instruct_builder.__main__ import app
from instruct_builder.export import ExportSummary, Format, export
from instruct_builder.shards import ShardSet, sha256_of
from tests.unit.instruct_builder.exports import (
    DIALOGUE,
    as_told,
    draw,
    make_set,
    read_llava,
    read_sharegpt,
    rows_of,
    talk,
    with_general_row,
    write_placed,
)
from tests.unit.instruct_builder.specimens import make_pairs, place_all

GOLDEN = Path(__file__).parent / "golden_exports.yaml"
TELL_ALL = [format for format in Format if format is not Format.FAKECLUE]
"""those that have a place for every instruction"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    make_set(folder / "set", ImageStore(folder / "images"))
    return folder


@pytest.fixture(scope="module")
def shards(place: Path) -> ShardSet:
    return ShardSet.open(place / "set")


@pytest.fixture(scope="module")
def store(place: Path) -> ImageStore:
    return ImageStore(place / "images")


def run(
    shards: ShardSet, store: ImageStore, out: Path, format: Format, **options: Any
) -> ExportSummary:
    return export(shards, out, format=format, store=store, **options)


def contents(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(paths)}


def read_tars(folder: Path, split: str) -> list[tuple[str, bytes]]:
    found = []
    for path in sorted(folder.glob(f"{split}-*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                assert (member.mtime, member.uid, member.uname) == (0, 0, "")
                found.append((member.name, file.read()))
    return found


def test_llava_and_mplug_owl2_hold_every_row_as_it_is(
    shards: ShardSet, store: ImageStore, tmp_path: Path
) -> None:
    for format, mark in ((Format.LLAVA, "<image>"), (Format.MPLUG_OWL2, "<|image|>")):
        done = run(shards, store, tmp_path / format, format)
        assert (done.rows, done.images, done.left_out) == (shards.manifest.rows, 6, {})
        for split in ("train", "test"):
            found = read_llava(tmp_path / format / f"{split}.json", mark=mark)
            assert list(found.items()) == list(as_told(rows_of(shards), split).items())
    assert not (tmp_path / "llava" / "val.json").exists()


def test_a_dialogue_has_the_image_before_its_first_turn_alone(
    shards: ShardSet, store: ImageStore, tmp_path: Path
) -> None:
    run(shards, store, tmp_path / "llava", Format.LLAVA)
    records = json.loads((tmp_path / "llava" / "train.json").read_text(encoding="utf-8"))
    dialogues = [record for record in records if len(record["conversations"]) > 2]
    assert len({len(record["conversations"]) for record in dialogues}) > 1
    for record in dialogues:
        marks = ["<image>" in turn["value"] for turn in record["conversations"]]
        assert marks == [True, *[False] * (len(marks) - 1)]
    record = next(r for r in dialogues if r["conversations"][-1]["value"] == DIALOGUE[-1][1])
    assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"] * 3
    values = [turn["value"] for turn in record["conversations"]]
    assert values == ["<image>\n" + DIALOGUE[0][1], *(text for _, text in DIALOGUE[1:])]


def test_one_row_is_written_to_the_letter(store: ImageStore, tmp_path: Path) -> None:
    item = replace(place_all(make_pairs(2))[1], split=Split.TRAIN)
    data = draw(0, "JPEG")
    path = store.add(data, ".jpg")
    image = replace(item.image, image_id="img-1", sha256=sha256_bytes(data), path=path)
    turns = (("user", "Real or fake?"), ("assistant", "Fake."))
    row = talk(item, turns, instruction_id="ins-1", image_id="img-1", aspect=None, target="fake")
    single = write_placed(tmp_path / "set", [replace(item, image=image, instructions=[row])])
    golden = yaml.safe_load(GOLDEN.read_text(encoding="utf-8"))
    for name in ("llava", "mplug-owl2", "sharegpt", "trl-jsonl"):
        run(single, store, tmp_path / name, Format(name))
        (file,) = (tmp_path / name).glob("train.json*")
        assert file.read_text(encoding="utf-8") == golden[name].replace("PATH", path)
    run(single, store, tmp_path / "tar", Format.WEBDATASET)
    assert read_tars(tmp_path / "tar", "train") == [
        ("img-1.jpg", data),
        ("img-1.json", golden["webdataset"].encode()),
    ]


def test_sharegpt_is_described_by_its_dataset_info(
    shards: ShardSet, store: ImageStore, tmp_path: Path
) -> None:
    run(shards, store, tmp_path / "out", Format.SHAREGPT)
    assert read_sharegpt(tmp_path / "out") == as_told(rows_of(shards))
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text())
    assert list(info) == ["fakeinstruct_test", "fakeinstruct_train"]


def test_trl_parquet_holds_the_bytes_of_an_image_once_in_a_row_group(
    shards: ShardSet, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_files, "GROUP_ROWS", 30)
    run(shards, store, tmp_path / "out", Format.TRL)
    for split in ("train", "test"):
        path = tmp_path / "out" / f"{split}.parquet"
        rows = [row for row in rows_of(shards).values() if row["split"] == split]
        found = pq.read_table(path).to_pylist()
        assert [row["id"] for row in found] == [row["instruction_id"] for row in rows]
        assert [row["messages"] for row in found] == [row["messages"] for row in rows]
        for row, told in zip(rows, found, strict=True):
            (image,) = told["images"]
            assert sha256_bytes(image["bytes"]) == row["image_sha256"]
            assert image["path"] == row["image_path"].rpartition("/")[2]
    meta = pq.read_metadata(tmp_path / "out" / "train.parquet")
    assert meta.num_row_groups > 1
    for group in range(meta.num_row_groups):
        column = meta.row_group(group).column(2)
        assert column.path_in_schema == "images.list.element.bytes"
        assert column.total_uncompressed_size < 4 * 2000


def test_a_tar_has_one_sample_for_each_image_with_all_its_rows(
    shards: ShardSet, store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_files, "IMAGES_PER_TAR", 3)
    run(shards, store, tmp_path / "out", Format.WEBDATASET)
    names = sorted(path.name for path in (tmp_path / "out").glob("*.tar"))
    assert names == ["test-000000.tar", "train-000000.tar", "train-000001.tar"]
    rows = rows_of(shards)
    seen = []
    for split in ("train", "test"):
        members = read_tars(tmp_path / "out", split)
        for (picture, data), (text, sample) in zip(members[::2], members[1::2], strict=True):
            told = json.loads(sample)
            assert picture.partition(".")[0] == text.partition(".")[0] == told["image_id"]
            assert told["split"] == split
            for instruction in told["instructions"]:
                row = rows[instruction["instruction_id"]]
                assert sha256_bytes(data) == row["image_sha256"]
                assert instruction["messages"] == row["messages"]
                seen.append(row["instruction_id"])
    assert seen == list(rows)


@pytest.mark.parametrize("format", TELL_ALL)
def test_a_row_about_no_image_has_no_image_and_no_mark(
    shards: ShardSet, store: ImageStore, tmp_path: Path, format: Format
) -> None:
    mixed = with_general_row(tmp_path / "set", shards)
    done = run(mixed, store, tmp_path / "out", format)
    assert (done.rows, done.images) == (shards.manifest.rows + 1, 6)
    if format in (Format.LLAVA, Format.MPLUG_OWL2):
        mark = "<image>" if format is Format.LLAVA else "<|image|>"
        found = read_llava(tmp_path / "out" / "test.json", mark=mark)["ins-general"]
    elif format is Format.SHAREGPT:
        found = read_sharegpt(tmp_path / "out")["ins-general"]
    elif format is Format.TRL:
        record = pq.read_table(tmp_path / "out" / "test.parquet").to_pylist()[-1]
        found = as_found(record)
    elif format is Format.TRL_JSONL:
        lines = (tmp_path / "out" / "test.jsonl").read_text(encoding="utf-8").splitlines()
        found = as_found(json.loads(lines[-1]))
    else:
        name, data = read_tars(tmp_path / "out", "test")[-1]
        assert name == "ins-general.json"
        found = as_found(json.loads(data)["instructions"][0] | {"images": []})
    assert found == {"image": None, "texts": ["Name a river.", "The Nile."]}


def as_found(record: dict[str, Any]) -> dict[str, Any]:
    image = record["images"][0] if record["images"] else None
    return {"image": image, "texts": [turn["content"] for turn in record["messages"]]}


def test_copies_of_the_images_lie_where_the_records_say(
    shards: ShardSet, store: ImageStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(shards, store, out, Format.LLAVA, with_images=True)
    for row in rows_of(shards).values():
        copy = out / "images" / row["image_path"]
        assert sha256_of(copy) == row["image_sha256"]


@pytest.mark.parametrize("format", list(Format))
def test_it_is_repeatable_byte_for_byte_and_not_written_twice(
    shards: ShardSet, store: ImageStore, tmp_path: Path, format: Format
) -> None:
    first = run(shards, store, tmp_path / "one", format)
    run(shards, store, tmp_path / "two", format)
    whole = contents(tmp_path / "one")
    assert whole == contents(tmp_path / "two")
    listed = json.loads(whole["export.json"])["files"]
    assert {file["path"] for file in listed} == whole.keys() - {"export.json"}
    assert all(sha256_bytes(whole[file["path"]]) == file["sha256"] for file in listed)
    assert b"Licence: CC0-1.0" in whole["README.md"]
    stamp = (tmp_path / "one").stat().st_mtime_ns
    again = run(shards, store, tmp_path / "one", format)
    assert (again.unchanged, again.rows) == (True, first.rows)
    assert (tmp_path / "one").stat().st_mtime_ns == stamp


def test_other_options_or_a_damaged_export_are_written_anew(
    shards: ShardSet, store: ImageStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(shards, store, out, Format.SHAREGPT)
    assert not run(shards, store, out, Format.LLAVA).unchanged
    assert not (out / "dataset_info.json").exists()
    (out / "train.json").write_text("[]")
    assert not run(shards, store, out, Format.LLAVA).unchanged
    assert len(read_llava(out / "train.json")) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


HOSTILE = [
    ((("user", "Why?"), ("assistant", "See <image> here.")), "whose text holds <image>"),
    (
        (("user", "<|vision_start|>?"), ("assistant", "Yes.")),
        r"whose text holds <\|vision_start\|>",
    ),
    ((("user", "Why?"),), "whose turns are not question and answer"),
    ((("system", "Obey."), ("assistant", "No.")), "whose turns are not question and answer"),
]


@pytest.mark.parametrize("format", TELL_ALL)
def test_rows_that_cannot_be_told_are_left_out_and_counted(
    store: ImageStore, tmp_path: Path, format: Format
) -> None:
    good = make_set(tmp_path / "good", store)
    placed = place_all(make_pairs(1))
    bad = [talk(placed[0], turns) for turns, _ in HOSTILE]
    data = draw(0, "JPEG")
    image = replace(placed[0].image, sha256=sha256_bytes(data), path=store.add(data, ".jpg"))
    item = replace(placed[0], image=image, instructions=[*placed[0].instructions, *bad])
    done = run(write_placed(tmp_path / "set", [item]), store, tmp_path / "out", format)
    assert done.rows == len(placed[0].instructions)
    assert sum(done.left_out.values()) == len(HOSTILE)
    assert good.manifest.rows
    assert "Left out: 2 whose turns" in (tmp_path / "out" / "README.md").read_text()


def test_images_that_are_not_there_or_have_changed_are_counted(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "images")
    shards = make_set(tmp_path / "set", store)
    first, second, *_ = shards.images().to_pylist()
    store.path(first["path"]).unlink()
    store.path(second["path"]).write_bytes(b"other bytes")
    done = run(shards, store, tmp_path / "out", Format.WEBDATASET)
    assert done.images == 4
    reasons = list(done.left_out)
    assert reasons[0].startswith("whose image file is not in the image store")
    assert reasons[1] == "whose image file has changed since the set was built"
    assert done.rows + sum(done.left_out.values()) == shards.manifest.rows


def test_a_wrong_image_store_is_one_clear_line(shards: ShardSet, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no instruction can be exported: .* not in the image"):
        run(shards, ImageStore(tmp_path / "nowhere"), tmp_path / "out", Format.TRL)
    assert not (tmp_path / "out").exists()


def test_paths_of_a_foreign_set_stay_inside_the_store(store: ImageStore, tmp_path: Path) -> None:
    (item,) = place_all(make_pairs(1))
    out_of_it = replace(item.image, path="../../etc/passwd")
    shards = write_placed(tmp_path / "set", [replace(item, image=out_of_it)])
    with pytest.raises(ConfigError, match="whose image path leaves the image store"):
        run(shards, store, tmp_path / "out", Format.LLAVA)


def test_a_folder_with_something_else_is_not_touched(
    shards: ShardSet, store: ImageStore, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="is neither empty nor an export"):
        run(shards, store, tmp_path / "out", Format.LLAVA)
    assert contents(tmp_path / "out") == {"thesis.txt": b"years of work"}


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond `size` bytes."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("format", list(Format))
def test_a_full_disk_leaves_no_half_export(
    shards: ShardSet, store: ImageStore, tmp_path: Path, format: Format
) -> None:
    with full_disk(1000), pytest.raises(ConfigError, match="out: the export cannot be written"):
        run(shards, store, tmp_path / "out", format)
    assert not (tmp_path / "out").exists()
    done = run(shards, store, tmp_path / "out", format)
    assert done.rows + sum(done.left_out.values()) == shards.manifest.rows


def kill_in_step(step: int, work: Callable[[], object]) -> bool:
    """Work in a process that is killed before its n-th change on the disk.

    Returns whether it lived to do that many.
    """
    child = os.fork()
    if child == 0:
        left = step

        def or_die(act: Any) -> Any:
            def counted(*arguments: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return act(*arguments, **named)

            return counted

        for name in ("write_bytes", "write_text", "rename", "open", "unlink"):
            setattr(Path, name, or_die(getattr(Path, name)))
        os.rmdir = or_die(os.rmdir)
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def test_a_kill_at_any_moment_leaves_the_old_export_or_the_new_one_or_none(
    shards: ShardSet, store: ImageStore, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run(shards, store, tmp_path / "old", Format.SHAREGPT)
    run(shards, store, tmp_path / "new", Format.LLAVA)
    old, new = contents(tmp_path / "old"), contents(tmp_path / "new")
    states = []
    for step in range(100):
        run(shards, store, out, Format.SHAREGPT)
        was_killed = kill_in_step(step, lambda: run(shards, store, out, Format.LLAVA))
        found = contents(out) if out.exists() else None
        assert found in (old, new, None)
        states.append(found)
        run(shards, store, out, Format.LLAVA)
        assert contents(out) == new
        if not was_killed:
            break
    assert states[0] == old and None in states and states[-1] == new


def test_the_command_says_what_it_wrote(place: Path, shards: ShardSet, tmp_path: Path) -> None:
    command = ["export", str(place / "set"), "--format", "webdataset", "--out"]
    images = ["--images", str(place / "images")]
    shown = CliRunner().invoke(app, [*command, str(tmp_path / "out"), *images])
    assert shown.exit_code == 0, shown.output
    rows = shards.manifest.rows
    assert shown.output == f"{tmp_path / 'out'}: written: {rows} instructions on 6 images\n"
    told = CliRunner().invoke(app, [*command, str(tmp_path / "out"), *images, "--json"])
    assert json.loads(told.output)["unchanged"] is True
    wrong = CliRunner().invoke(app, ["export", str(place / "set"), "--format", "x", "--out", "o"])
    assert wrong.exit_code == 2
