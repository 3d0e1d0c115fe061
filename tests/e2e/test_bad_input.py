"""Bad input: one clear line that names the thing and the remedy; nothing is lost."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.brokers import free_port
from tests.e2e.project import Finished, Project, make_project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return make_project(tmp_path, crops=64)


def assert_one_line(done: Finished, *words: str, code: int = 2) -> None:
    lines = [line for line in done.err.splitlines() if line.strip()]
    assert done.code == code, done
    assert lines[-1].startswith("error: "), done
    assert "Traceback" not in done.err
    for word in words:
        assert word in lines[-1], done


def test_an_unknown_recipe_key(project: Project) -> None:
    path = project.recipe / "recipe.yaml"
    path.write_text(path.read_text().replace("claim_size", "clam_size"), encoding="utf-8")
    assert_one_line(
        project.build_instruct(), "recipe.yaml", "clam_size", "did you mean claim_size?"
    )


def test_a_teacher_that_does_not_answer(project: Project) -> None:
    address = f"http://127.0.0.1:{free_port()}/v1"
    project.environment |= {"OPENAI_BASE_URL": address, "OPENAI_MODEL": "some-model"}
    assert_one_line(project.build_instruct(), address, "check OPENAI_BASE_URL")


def test_a_teacher_elsewhere_is_not_called_without_a_ceiling(project: Project) -> None:
    project.environment |= {
        "OPENAI_BASE_URL": "https://teacher.invalid/v1",
        "OPENAI_MODEL": "gpt-4o",
    }
    done = project.build_instruct()
    assert done.code == 2
    assert "nothing was sent" in done.err
    assert "64 calls to gpt-4o" in done.err
    assert "BUDGET=" in done.err


def test_a_database_that_does_not_answer(project: Project) -> None:
    port = free_port()
    project.environment["DATABASE_URL"] = f"postgresql+psycopg://app:hush@127.0.0.1:{port}/app"
    done = project.build_instruct()
    assert_one_line(done, f"127.0.0.1:{port}", "DATABASE_URL")
    assert "hush" not in done.out + done.err


def test_a_database_that_was_not_set_up_is_not_touched(project: Project, tmp_path: Path) -> None:
    project.environment["DATABASE_URL"] = f"sqlite:///{tmp_path / 'own.db'}"
    assert_one_line(project.build_instruct(), "python -m db upgrade")


def test_the_demo_never_enters_a_database_of_ones_own(project: Project, tmp_path: Path) -> None:
    project.environment["DATABASE_URL"] = f"sqlite:///{tmp_path / 'own.db'}"
    assert project.run("db", "upgrade").code == 0
    done = project.build_instruct()
    assert done.code == 2
    assert all(way in done.err for way in ("real/ and fake/", "manifest.csv", "LABEL=real"))


def test_images_without_a_name_for_their_collection(project: Project, tmp_path: Path) -> None:
    assert_one_line(project.build_instruct("--images", tmp_path), "SOURCE=<name>")


def test_a_folder_that_is_not_there(project: Project, tmp_path: Path) -> None:
    done = project.build_instruct("--images", tmp_path / "nowhere", "--source", "own")
    assert_one_line(done, "nowhere")


def test_a_review_level_that_nothing_has_reached(project: Project) -> None:
    done = project.build_instruct("--min-review", "expert")
    assert_one_line(done, "64", "draft", "MIN_REVIEW=draft")


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of its own; needs root."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.full
@pytest.mark.parametrize("size", ["200k", "900k", "2m"])
def test_a_full_disk_is_named_and_nothing_is_lost(tmp_path: Path, size: str) -> None:
    with mounted(tmp_path / "disk", f"size={size}") as disk:
        project = make_project(tmp_path / "project", crops=128)
        project.home = disk / "home"
        assert_one_line(project.build_instruct(), "full", str(disk))
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        again = project.build_instruct()
        assert again.code == 0, again
        assert project.run("instruct_builder", "verify", project.shards).code == 0


def test_a_read_only_folder_is_named(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=50m,ro") as disk:
        project = make_project(tmp_path / "project", crops=64)
        project.home = disk / "home"
        assert_one_line(project.build_instruct(), str(disk), "read-only")


@pytest.mark.full
def test_a_read_only_folder_for_the_shards_loses_no_draft(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=50m,ro") as disk:
        project = make_project(tmp_path / "project", crops=64)
        done = project.build_instruct("--out", disk / "shards")
        assert_one_line(done, str(disk), "read-only")
        asked = len(project.teacher_requests())
        assert project.build_instruct().code == 0
        assert len(project.teacher_requests()) == asked
