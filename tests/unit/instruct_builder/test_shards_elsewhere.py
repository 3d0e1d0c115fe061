"""Other programs open the shards, offline and without a line of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instruct_builder.shards import Manifest
from tests.unit.instruct_builder.specimens import make_pairs, write_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("set")


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Manifest:
    return write_set(folder, make_pairs(40))


def test_datasets_loads_them(
    folder: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="needs the extra `dev`")
    files = [str(folder / file.path) for file in manifest.files if file.split is not None]
    loaded: Any = datasets.load_dataset(
        "parquet", data_files=files, split="train", cache_dir=str(tmp_path)
    )
    assert loaded.num_rows == manifest.rows
    assert loaded[0]["messages"][0]["role"] == "user"
    streamed: Any = datasets.load_dataset(
        "parquet", data_files=files, split="train", streaming=True
    )
    assert sum(1 for _ in streamed) == manifest.rows


def test_duckdb_counts_them(folder: Path, manifest: Manifest) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs the extra `dev`")
    query = f"SELECT family, count(*) FROM '{folder}/rows-*.parquet' GROUP BY family"
    assert dict(duckdb.sql(query).fetchall()) == manifest.counts["family"]
    turns = f"SELECT messages[1].content FROM '{folder}/rows-*.parquet' LIMIT 1"
    assert duckdb.sql(turns).fetchall()[0][0]


def test_pandas_reads_them(folder: Path, manifest: Manifest) -> None:
    import pandas as pd

    files = [folder / file.path for file in manifest.files if file.split is not None]
    rows = pd.concat([pd.read_parquet(path) for path in files])
    assert len(rows) == manifest.rows
    assert rows["label"].value_counts().to_dict() == manifest.counts["label"]
    images = pd.read_parquet(folder / "images.parquet")
    assert set(rows["image_id"]) == set(images["image_id"])
