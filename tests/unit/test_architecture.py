"""Who may import whom, and names that must not hide an installed library."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PYPROJECT["tool"]["importlinter"]["root_packages"]

FORBIDDEN = {
    "core": ("core/ids.py", "import db.tables"),
    "dashboard": ("dashboard/show.py", "import generation.prompt"),
    "dashboard-shards": ("dashboard/place.py", "import instruct_builder.plan"),
    "only-dashboard": ("db/days.py", "import streamlit"),
    "imaging": ("imaging/decode.py", "import teacher.request"),
    "teacher": ("teacher/client.py", "import imaging.decode"),
    "db": ("db/tables.py", "import imaging.decode"),
    "generation": ("generation/parse.py", "import annotation.chains"),
    "annotation": ("annotation/chains.py", "import teacher.client"),
    "instruct_builder": ("instruct_builder/plan.py", "import db.images"),
    "training": ("training/config.py", "import db.images"),
    "training-shards": ("training/config.py", "import instruct_builder.plan"),
    "workers": ("workers/app.py", "import training.config"),
    "only-teacher": ("generation/prompt.py", "import openai"),
    "only-db": ("annotation/chains.py", "import sqlalchemy"),
    "only-workers": ("teacher/policy.py", "import celery"),
    "only-training": ("imaging/decode.py", "import torch"),
    "only-imaging": ("db/images.py", "import imagehash"),
    "only-annotation": ("generation/draft.py", "import label_studio_sdk"),
    "only-instruct-builder": ("imaging/hashes.py", "import rensa"),
}
"""By contract: a file, and an import that the contract must refuse there."""


def check_imports(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [LINT_IMPORTS, "--no-cache", "--no-logo", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def offender(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the packages in which every contract is broken once."""
    folder = tmp_path_factory.mktemp("offender")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package)
    for file, statement in FORBIDDEN.values():
        path = folder / file
        path.write_text(f"{path.read_text(encoding='utf-8')}\n{statement}\n", encoding="utf-8")
    return folder


def test_imports_go_in_the_allowed_directions() -> None:
    done = check_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("contract", sorted(FORBIDDEN))
def test_a_forbidden_import_breaks_its_contract(offender: Path, contract: str) -> None:
    done = check_imports(offender, "--contract", contract)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 kept, 1 broken" in done.stdout


def test_every_contract_is_shown_to_bite() -> None:
    contracts = PYPROJECT["tool"]["importlinter"]["contracts"]
    assert {contract["id"] for contract in contracts} == set(FORBIDDEN)


def test_every_package_is_under_contract() -> None:
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(PACKAGES)


def test_no_top_level_name_hides_a_library() -> None:
    ours = {path.name.removesuffix(".py") for path in ROOT.glob("[a-z]*") if holds_python(path)}
    owners = packages_distributions()
    theirs = {name for name in owners if set(owners[name]) != {"fakescope"}}
    assert not ours & (theirs | sys.stdlib_module_names)


def holds_python(path: Path) -> bool:
    return path.suffix == ".py" or any(path.rglob("*.py"))
