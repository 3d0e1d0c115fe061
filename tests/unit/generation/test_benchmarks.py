"""Benchmarks registered by a list of hashes: what a list may look like, and what it may not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from core.errors import ConfigError
from core.records import BenchmarkImage, Source
from core.settings import load_settings
from db.benchmarks import benchmark_images
from db.engine import Database, open_database
from db.images import save_images, save_source, sources
from generation.benchmarks import hash_list, register_benchmark
from tests.unit.records import make_image

SHA256, PHASH = "0a" * 32, "1b" * 8


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    opened = open_database(load_settings(fakescope_home=tmp_path / "home"))
    yield opened
    opened.dispose()


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def register(database: Database, path: Path, name: str = "bench") -> list[BenchmarkImage]:
    register_benchmark(database, path, name=name, licence="CC-BY-4.0")
    with database.read() as session:
        return list(benchmark_images(session))


def test_a_list_makes_a_source_for_evaluation_only(database: Database, tmp_path: Path) -> None:
    path = write(tmp_path, f"file,sha256,phash\na.png,{SHA256.upper()},{PHASH}\n")
    summary = register_benchmark(database, path, name="bench", licence="CC-BY-4.0")
    assert "1 images listed, 1 of them new" in summary.text()
    with database.read() as session:
        expected = Source(name="bench", licence="CC-BY-4.0", may_train=False)
        assert sources(session) == {"bench": expected}
        (image,) = benchmark_images(session)
    assert image == BenchmarkImage(benchmark="bench", name=SHA256, sha256=SHA256, phash=PHASH)
    assert register_benchmark(database, path, name="bench", licence="unknown").new == 0


@pytest.mark.parametrize(
    ("text", "sha256", "phash"),
    [
        (f"sha256\n{SHA256}\n", SHA256, None),
        (f"PHASH\n{PHASH}\n", None, PHASH),
        (f"phash,sha256\n,{SHA256}\n", SHA256, None),
    ],
)
def test_one_of_the_hashes_is_enough(
    database: Database, tmp_path: Path, text: str, sha256: str | None, phash: str | None
) -> None:
    (image,) = register(database, write(tmp_path, text))
    assert (image.sha256, image.phash) == (sha256, phash)


def test_parquet_is_read_too(database: Database, tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pd.DataFrame({"sha256": [SHA256, None], "phash": [None, PHASH]}).to_parquet(path)
    assert len(register(database, path)) == 2


def test_without_perceptual_hashes_the_summary_says_what_is_not_found(
    database: Database, tmp_path: Path
) -> None:
    path = write(tmp_path, f"sha256\n{SHA256}\n")
    summary = register_benchmark(database, path, name="bench", licence="unknown")
    assert "exact copies alone" in summary.text()


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("sha256\n", "list.csv", "no image is listed"),
        (f"md5\n{SHA256}\n", "list.csv", "row 2: neither a sha256 nor a phash"),
        ("sha256\nabc\n", "list.csv", "row 2: a sha256 has 64 hexadecimal digits, not 'abc'"),
        (f"phash\n{PHASH}\n{'g' * 16}\n", "list.csv", "row 3: a phash has 16"),
        (SHA256, "list.txt", "a list of hashes is one of .csv, .jsonl, .parquet"),
        ("not parquet", "list.parquet", "not valid Parquet"),
    ],
)
def test_what_is_no_list_of_hashes_is_refused(
    database: Database, tmp_path: Path, text: str, name: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        register(database, write(tmp_path, text, name))
    with database.read() as session:
        assert sources(session) == {}


def test_a_missing_file_is_named(database: Database, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.csv"):
        register(database, tmp_path / "nowhere.csv")


def test_a_source_to_train_on_is_no_benchmark(database: Database, tmp_path: Path) -> None:
    with database.write() as session:
        save_source(session, Source(name="own", licence="CC0-1.0"))
    with pytest.raises(ConfigError, match="source to train on"):
        register(database, write(tmp_path, f"sha256\n{SHA256}\n"), name="own")


def test_the_hashes_of_a_source_can_be_registered_elsewhere(
    database: Database, tmp_path: Path
) -> None:
    images = [make_image(f"{n}", source="own") for n in range(3)]
    with database.write() as session:
        save_source(session, Source(name="own", licence="CC0-1.0"))
        save_images(session, images)
    path = write(tmp_path, "\n".join(hash_list(database, "own")))
    found = register(database, path)
    assert {(image.sha256, image.phash) for image in found} == {
        (image.original_sha256, image.phash) for image in images
    }
    with pytest.raises(ConfigError, match="no source 'nowhere'"):
        list(hash_list(database, "nowhere"))
