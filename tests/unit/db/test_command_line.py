"""`python -m db`: its exit codes, and one line where something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core.records import Source
from core.settings import load_settings
from db.__main__ import app
from db.engine import open_database
from db.images import save_images, save_source
from db.schema import known_revisions
from tests.unit.records import make_image

ROOT = Path(__file__).resolve().parents[3]
HEAD = known_revisions()[-1]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own.db"


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"DATABASE_URL": "", **environment})


def on(path: Path, *arguments: str) -> Result:
    return run(*arguments, DATABASE_URL=f"sqlite:///{path}")


def test_up_check_and_down(own: Path) -> None:
    up = on(own, "upgrade")
    assert (up.exit_code, up.stdout) == (0, f"database {own} is at revision {HEAD}\n")
    check = on(own, "check", "--json")
    assert check.exit_code == 0
    assert json.loads(check.stdout) == {"database": f"database {own}", "revision": HEAD}
    assert "as this version needs it" in on(own, "check").stdout
    down = on(own, "downgrade", "base")
    assert (down.exit_code, down.stderr) == (0, "")
    assert "no tables" in down.stdout


def test_as_a_command_it_ends_with_one_line(own: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "db", "check"],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": f"sqlite:///{own}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"error: database {own}: there is no such file: `python -m db upgrade` creates it\n"
    )


def test_check_names_the_remedy_and_creates_nothing(tmp_path: Path) -> None:
    done = run("check", FAKESCOPE_HOME=str(tmp_path / "home"))
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "`python -m db upgrade`" in done.stderr
    assert not (tmp_path / "home").exists()


def test_upgrade_creates_the_default_file(tmp_path: Path) -> None:
    done = run("upgrade", FAKESCOPE_HOME=str(tmp_path / "home"))
    assert done.exit_code == 0, done.stderr
    assert run("check", FAKESCOPE_HOME=str(tmp_path / "home")).exit_code == 0


def test_a_downgrade_does_not_delete_images_unasked(own: Path) -> None:
    on(own, "upgrade")
    database = open_database(load_settings(database_url=f"sqlite:///{own}"))
    with database.write() as session:
        save_source(session, Source(name="demo", licence="CC0-1.0"))
        save_images(session, [make_image()])
    database.dispose()
    refused = on(own, "downgrade", "base")
    assert refused.exit_code == 2
    assert "holds 1 images and 0 paid replies" in refused.stderr
    assert on(own, "check").exit_code == 0
    assert on(own, "downgrade", "base", "--yes").exit_code == 0
    assert on(own, "check").exit_code == 2


@pytest.mark.parametrize("arguments", [["sideways"], ["downgrade", "nowhere"]])
def test_a_wrong_command_or_revision_ends_with_2_and_no_traceback(
    own: Path, arguments: list[str]
) -> None:
    on(own, "upgrade")
    done = on(own, *arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.stderr
    assert arguments[-1] in done.stderr
