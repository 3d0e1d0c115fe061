"""The shard format: what is written is what is read, and damage is found."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from core.errors import ConfigError, StateError
from core.records import Split
from instruct_builder.shards import (
    IMAGE_SCHEMA,
    ROW_GROUP_ROWS,
    ROW_SCHEMA,
    ShardSet,
    ShardWriter,
    images_table,
    locked,
    published,
    rows_table,
    verify,
    write_shard_file,
)
from tests.unit.instruct_builder.specimens import (
    make_facts,
    make_pairs,
    place_all,
    table_of,
    write_set,
)

COLUMNS = [
    "instruction_id",
    "chain_id",
    "image_id",
    "image_path",
    "image_sha256",
    "family",
    "form",
    "template_id",
    "aspect",
    "messages",
    "target",
    "label",
    "generator",
    "source",
    "split",
    "review_level",
]
IMAGE_COLUMNS = [
    "image_id",
    "path",
    "sha256",
    "original_sha256",
    "width",
    "height",
    "format",
    "jpeg_quality",
    "phash",
    "cluster",
    "group",
    "label",
    "generator",
    "source",
    "split",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_set(tmp_path / "set", make_pairs(60))
    return tmp_path / "set"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_the_columns_are_those_of_the_contract_in_their_order(folder: Path) -> None:
    assert ROW_SCHEMA.names == COLUMNS
    assert IMAGE_SCHEMA.names == IMAGE_COLUMNS
    assert pq.read_schema(folder / "rows-00000.parquet").equals(ROW_SCHEMA, check_metadata=True)
    assert pq.read_schema(folder / "images.parquet").equals(IMAGE_SCHEMA, check_metadata=True)


def test_what_is_read_is_what_was_written(folder: Path) -> None:
    placed = place_all(make_pairs(60))
    shards = ShardSet.open(folder)
    rows = pa.concat_tables(shards.rows())
    assert rows.equals(rows_table(placed))
    assert shards.images().equals(images_table((p.image, p.split) for p in placed))
    assert shards.manifest.rows == rows.num_rows == sum(len(p.instructions) for p in placed)


def test_a_split_is_read_alone_and_only_the_columns_asked_for(folder: Path) -> None:
    shards = ShardSet.open(folder)
    for split in Split:
        tables = list(shards.rows(split=split, columns=["split", "target"]))
        assert all(table.column_names == ["split", "target"] for table in tables)
        found = {value for table in tables for value in table["split"].to_pylist()}
        assert found == ({split} if split in shards.manifest.counts["split"] else set())


def test_a_file_holds_one_split_and_images_never_part(folder: Path) -> None:
    shards = ShardSet.open(folder)
    seen: set[str] = set()
    assert len(shards.row_groups()) > 3
    for group in shards.row_groups():
        table = shards.read_row_group(group)
        images = list(dict.fromkeys(table["image_id"].to_pylist()))
        assert seen.isdisjoint(images)
        assert set(table["split"].to_pylist()) == {group.split}
        runs = 1 + sum(a != b for a, b in zip(*neighbours(table), strict=True))
        assert runs == len(images)
        seen.update(images)


def neighbours(table: pa.Table) -> tuple[list[str], list[str]]:
    ids = table["image_id"].to_pylist()
    return ids[:-1], ids[1:]


def test_shards_are_about_as_long_as_asked_for(tmp_path: Path) -> None:
    manifest = write_set(tmp_path, make_pairs(60), rows_per_shard=100)
    lengths = [file.rows for file in manifest.files if file.split is Split.TRAIN]
    assert all(length is not None and 100 <= length < 120 for length in lengths[:-1])


def test_the_same_input_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_set(tmp_path / "again", make_pairs(60))
    assert files_of(folder) == files_of(tmp_path / "again")


def test_rows_have_statistics_and_a_page_index_and_are_compressed(folder: Path) -> None:
    meta = pq.read_metadata(folder / "rows-00000.parquet")
    column = meta.row_group(0).column(COLUMNS.index("family"))
    assert column.is_stats_set
    assert column.has_offset_index and column.has_column_index
    assert column.compression == "ZSTD"
    assert (column.statistics.min, column.statistics.max) == ("discussion", "verdict")


def test_row_groups_are_sized_for_reads_and_end_where_an_image_ends(tmp_path: Path) -> None:
    table = table_of(make_pairs(1_100))
    write_shard_file(table, tmp_path / "rows-00000.parquet", Split.TRAIN)
    meta = pq.read_metadata(tmp_path / "rows-00000.parquet")
    lengths = [meta.row_group(place).num_rows for place in range(meta.num_row_groups)]
    assert len(lengths) > 1
    assert all(ROW_GROUP_ROWS <= length < ROW_GROUP_ROWS + 20 for length in lengths[:-1])
    last = pq.ParquetFile(tmp_path / "rows-00000.parquet").read_row_group(0, ["image_id"])
    first = table["image_id"][lengths[0]].as_py()
    assert last["image_id"][-1].as_py() != first


def test_a_whole_set_verifies(folder: Path) -> None:
    assert verify(folder) == []


def test_a_flipped_byte_is_found_in_every_file(folder: Path) -> None:
    for name, data in files_of(folder).items():
        if name == "manifest.json":
            continue
        middle = len(data) // 2
        spoilt = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        (folder / name).write_bytes(spoilt)
        assert verify(folder) == [f"{name}: its SHA-256 is not the one in the manifest"]
        (folder / name).write_bytes(data)


def test_a_missing_a_short_and_a_stray_file_are_found(folder: Path) -> None:
    (folder / "images.parquet").rename(folder / "rows-00099.parquet")
    first = folder / "rows-00000.parquet"
    first.write_bytes(first.read_bytes()[:-1])
    problems = verify(folder)
    assert "images.parquet: missing" in problems
    assert "rows-00099.parquet: not listed in the manifest" in problems
    assert any(problem.startswith("rows-00000.parquet:") for problem in problems)


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (("rows",), "rows: counted"),
        (("images",), "images: counted"),
        (("chains",), "chains: counted"),
        (("counts", "family", "verdict"), "rows by family"),
        (("counts", "generator", "none"), "rows by generator"),
        (("counts", "review_level", "draft"), "rows by review_level"),
        (("image_counts", "label", "fake"), "images by label"),
        (("files", 0, "rows"), "rows-00000.parquet: "),
    ],
)
def test_every_wrong_count_is_found(folder: Path, path: tuple[str | int, ...], named: str) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    place = manifest
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] += 1
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert any(named in problem for problem in verify(folder))


def test_rows_and_images_that_disagree_are_found(tmp_path: Path) -> None:
    placed = place_all(make_pairs(12))
    with ShardWriter(tmp_path, rows_per_shard=1000) as writer:
        writer.add_rows(rows_table([item for item in placed if item.split is Split.TRAIN]))
        writer.add_images([(item.image, Split.TEST) for item in placed])
        writer.publish(make_facts())
    problems = verify(tmp_path)
    assert any("split of a row is not the one in images.parquet" in p for p in problems)
    assert any("has no row" in p for p in problems)


def test_nothing_is_published_when_making_rows_fails(folder: Path) -> None:
    before = files_of(folder)

    def fail_midway() -> None:
        with ShardWriter(folder, rows_per_shard=100) as writer:
            writer.add_rows(rows_table(place_all(make_pairs(30))[:20]))
            raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        fail_midway()
    assert files_of(folder) == before
    assert verify(folder) == []


def test_a_smaller_set_leaves_no_file_of_a_larger_one(folder: Path) -> None:
    write_set(folder, make_pairs(9))
    assert verify(folder) == []
    assert published(folder) is not None


def test_what_a_killed_build_left_is_no_set_and_is_built_over(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / ".rows-00007.parquet.partial").write_bytes(b"half")
    assert published(folder) is None
    with pytest.raises(ConfigError, match="a build that ended early has none"):
        ShardSet.open(folder)
    write_set(folder, make_pairs(60))
    assert verify(folder) == []
    assert not list(folder.glob(".*"))


def test_a_folder_with_other_things_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"neither empty nor a shard set, it holds 'notes\.txt'"):
        write_set(tmp_path, make_pairs(6))
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file/set: the shards cannot be written, it is not a"):
        write_set(tmp_path / "file" / "set", make_pairs(6))


def test_two_builders_do_not_write_at_once(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(StateError, match="another build"):
        write_set(tmp_path, make_pairs(6))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "no manifest of a shard set"),
        ("[]", "schema version None"),
        ('{"schema_version": 99}', "schema version 99, this program reads 1"),
        ('{"schema_version": 1}', "Field required"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(folder: Path, text: str, named: str) -> None:
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ConfigError, match=named):
        ShardSet.open(folder)


def test_a_manifest_may_not_point_outside_its_folder(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][0]["path"] = "../secret"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ConfigError, match=r"files\.0\.path"):
        ShardSet.open(folder)
