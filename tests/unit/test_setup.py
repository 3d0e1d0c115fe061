"""The set-up: what it decides, and one real run on a project small enough for a test."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]

[project]
name = "tiny"
version = "1"

[project.optional-dependencies]
dev = []
train = []
"""
BACKEND = '''
"""A build backend that needs nothing: an editable wheel is a .pth file."""

import zipfile
from pathlib import Path


def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory, name), "w") as wheel:
        wheel.writestr("tiny.pth", str(Path.cwd()))
        wheel.writestr("tiny-1.dist-info/METADATA", METADATA)
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "")
    return name


METADATA = "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\nProvides-Extra: dev\\n"
'''


@pytest.fixture(scope="module")
def setup() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fakescope_setup", ROOT / "scripts" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing from the machine: neither variables nor pip's files."""
    for name in os.environ:
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setenv("PIP_CERT", "")
    monkeypatch.setenv("PIP_INDEX_URL", "")


def make_tiny(folder: Path) -> Path:
    """A project that installs without a network."""
    (folder / "tiny").mkdir(parents=True)
    (folder / "tiny" / "__init__.py").touch()
    (folder / "pyproject.toml").write_text(PYPROJECT)
    (folder / "backend.py").write_text(BACKEND)
    (folder / "constraints.txt").write_text("# pins\ntorch==2.13.0\nnumpy==2.4.6\n")
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    return folder


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "a project")


def run_setup(project: Path, *extras: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the set-up as `make` does, on a PATH without uv."""
    environment = {**os.environ, "PYTHON": sys.executable, "PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(
        ["sh", "scripts/setup.sh", *extras],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def stamp_of(project: Path) -> dict[str, object]:
    stamp = json.loads((project / ".venv" / "setup.json").read_text())
    assert isinstance(stamp, dict)
    return stamp


# What has to be done again


def test_a_stamp_covers_fewer_extras_but_not_more(setup: ModuleType) -> None:
    stamp = setup.Stamp("inputs", "/project", ("dev", "train"), "")
    assert stamp.covers(replace(stamp, extras=("dev",)))
    assert not replace(stamp, extras=("dev",)).covers(stamp)


@pytest.mark.parametrize("field", ["inputs", "root", "torch_backend"])
def test_a_stamp_does_not_cover_other_inputs(setup: ModuleType, field: str) -> None:
    stamp = setup.Stamp("inputs", "/project", (), "")
    assert not stamp.covers(replace(stamp, **{field: "other"}))


def test_a_build_of_torch_once_named_stays(setup: ModuleType) -> None:
    stamp = setup.Stamp("inputs", "/project", ("train",), "cu130")
    wanted = setup.Stamp("new inputs", "/project", ("dev",), "")
    assert stamp.covers(replace(wanted, inputs="inputs", extras=()))
    assert stamp.extended_by(wanted) == setup.Stamp(
        "new inputs", "/project", ("dev", "train"), "cu130"
    )


def test_naming_a_build_of_torch_asks_for_training(setup: ModuleType, tiny: Path) -> None:
    assert setup.read_wishes(tiny, [], "cpu").extras == ("train",)


def test_an_unknown_extra_is_refused_with_the_known_ones(setup: ModuleType, tiny: Path) -> None:
    with pytest.raises(setup.WrongInput, match="no extra trian; there is: dev, train"):
        setup.read_wishes(tiny, ["trian"], "")


@pytest.mark.parametrize(
    ("file", "text", "is_changed"),
    [
        ("pyproject.toml", PYPROJECT.replace('"1"', '"2"'), True),
        ("pyproject.toml", PYPROJECT + "\n[tool.ruff]\nline-length = 90\n", False),
        ("constraints.txt", "torch==2.14.0\n", True),
        ("constraints.txt", "# other words\ntorch==2.13.0\nnumpy==2.4.6\n", False),
        ("new_package/__init__.py", "", True),
    ],
)
def test_only_what_decides_the_installation_counts(
    setup: ModuleType, tiny: Path, file: str, text: str, is_changed: bool
) -> None:
    before = setup.read_wishes(tiny, [], "").inputs
    (tiny / file).parent.mkdir(exist_ok=True)
    (tiny / file).write_text(text)
    assert (setup.read_wishes(tiny, [], "").inputs != before) is is_changed


# Which torch


def put_torch(project: Path, version: str) -> None:
    """Pretend that a build of torch is installed."""
    library = project / ".venv" / "lib" / "python3.11" / "site-packages"
    (library / f"torch-{version}.dist-info").mkdir(parents=True)


def put_wheel(folder: Path, tag: str) -> Path:
    folder.mkdir(exist_ok=True)
    name = f"torch-2.13.0+cpu-{tag}-{tag}-manylinux_2_28_{platform.machine()}.whl"
    (folder / name).touch()
    return folder


def choose(setup: ModuleType, project: Path, backend: str = "", known: str = "") -> Any:
    """The choice for the `train` extra, where a stamp names the build `known`."""
    (project / ".venv" / "lib" / "python3.11").mkdir(parents=True, exist_ok=True)
    wanted = setup.Stamp("inputs", str(project), ("train",), backend)
    stamp = replace(wanted, torch_backend=known)
    return setup.choose_torch(setup.Environment(project), wanted, stamp)


def test_the_base_install_asks_for_no_torch(setup: ModuleType, tiny: Path) -> None:
    wanted = setup.Stamp("inputs", str(tiny), ("dev",), "")
    assert setup.choose_torch(setup.Environment(tiny), wanted, None) == setup.TorchChoice()


@pytest.mark.parametrize("variable", ["PIP_FIND_LINKS", "UV_FIND_LINKS"])
def test_a_cpu_wheel_in_find_links_is_taken_and_handed_on(
    setup: ModuleType, tiny: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    folder = put_wheel(tiny.parent / "wheels", "cp311")
    monkeypatch.setenv(variable, str(folder))
    choice = choose(setup, tiny)
    assert choice.options == ()
    assert setup.variables(choice)["UV_FIND_LINKS"] == str(folder)
    assert setup.variables(choice)["PIP_FIND_LINKS"] == str(folder)
    assert str(folder) in choice.reason
    assert "TORCH_BACKEND=" in choice.reason


def test_a_wheel_for_another_python_is_left_alone(
    setup: ModuleType, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(put_wheel(tiny.parent / "wheels", "cp310")))
    assert choose(setup, tiny).options == ("--torch-backend", "auto")


def test_without_a_wheel_uv_detects_the_build(setup: ModuleType, tiny: Path) -> None:
    assert choose(setup, tiny).options == ("--torch-backend", "auto")


def test_a_named_build_replaces_the_one_that_is_here(setup: ModuleType, tiny: Path) -> None:
    put_torch(tiny, "2.13.0+cpu")
    options = choose(setup, tiny, backend="cu130").options
    assert options == ("--reinstall-package", "torch", "--torch-backend", "cu130")


@pytest.mark.parametrize("backend", ["", "cu130"])
def test_the_pinned_torch_is_kept_once_it_is_here(
    setup: ModuleType, tiny: Path, backend: str
) -> None:
    put_torch(tiny, "2.13.0+cpu")
    assert choose(setup, tiny, backend=backend, known=backend).reason == "kept"


def test_an_older_torch_is_not_kept(setup: ModuleType, tiny: Path) -> None:
    put_torch(tiny, "2.12.0+cpu")
    assert choose(setup, tiny).options == ("--torch-backend", "auto")


# Settings of the installers


def test_a_variable_of_pip_goes_before_its_files(
    setup: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pip.conf"
    file.write_text("[install]\nfind-links = here\n  there\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(file))
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert setup.pip_setting("find-links").split() == ["here", "there"]
    monkeypatch.setenv("PIP_FIND_LINKS", "of-the-variable")
    assert setup.pip_setting("find-links") == "of-the-variable"


def test_uv_is_told_the_mirror_of_pip_unless_it_has_its_own(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "the-mirror")
    assert setup.variables(setup.TorchChoice())["UV_DEFAULT_INDEX"] == "the-mirror"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "its-own")
    assert setup.variables(setup.TorchChoice())["UV_DEFAULT_INDEX"] == "its-own"


def test_foreign_packages_stay_out(setup: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in setup.LEAKS:
        monkeypatch.setenv(name, "somewhere")
    assert not set(setup.LEAKS) & set(setup.variables(setup.TorchChoice()))


# Python, found or not


def put_python(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_a_python_that_does_not_start_is_passed_over(tiny: Path, tmp_path: Path) -> None:
    put_python(tmp_path / "bin", "python3", "exit 127")
    put_python(tmp_path / "bin", "python3.14", "exit 1")
    put_python(tmp_path / "bin", "python3.13", '[ "$1" = -c ] || echo "taken: $0 $2"')
    done = run_setup(tiny, "dev", PYTHON="", PATH=f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert done.stdout == f"taken: {tmp_path / 'bin' / 'python3.13'} dev\n"


def test_no_python_is_one_line_that_names_the_package(tiny: Path) -> None:
    done = run_setup(tiny, PYTHON="no-such-python")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "apt-get install python3 python3-venv" in done.stderr


def test_missing_ensurepip_names_the_package(
    setup: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    package = f"python3.{sys.version_info.minor}-venv"
    with pytest.raises(setup.WrongInput, match=f"apt-get install {package}"):
        setup.check_ensurepip()


# The real thing


@pytest.mark.full
@pytest.mark.skipif(
    importlib.util.find_spec("ensurepip") is None,
    reason="ensurepip is not there: install it with `apt-get install python3-venv`",
)
def test_setting_up_again_adding_an_extra_moving_and_failing(tmp_path: Path) -> None:
    project = make_tiny(tmp_path / "a project")
    assert "Ready" in run_setup(project, "dev").stdout
    assert imports_tiny_of(project)
    assert run_setup(project).stdout == ""

    moved = project.rename(tmp_path / "moved")
    assert "Making" in run_setup(moved).stdout
    assert imports_tiny_of(moved)
    assert stamp_of(moved)["extras"] == ["dev"]

    (moved / "backend.py").write_text("raise SystemExit('the disk is full')")
    (moved / "constraints.txt").write_text("numpy==2.4.7\n")
    failed = run_setup(moved)
    assert failed.returncode == 1
    assert "setup: installing failed" in failed.stderr
    assert not (moved / ".venv" / "setup.json").exists()


def imports_tiny_of(project: Path) -> bool:
    """True when the environment finds the project from any folder."""
    python = project / ".venv" / "bin" / "python"
    code = "import tiny; print(tiny.__file__)"
    done = subprocess.run([python, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    return Path(done.stdout.strip()) == project / "tiny" / "__init__.py"
