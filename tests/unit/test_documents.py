"""What the documents say exists: targets, commands, options, files, settings."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import typer

from core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, flags=re.MULTILINE)
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (README, ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"))
)
GUIDES = [page for page in PAGES if page == "README.md" or page.startswith("docs/howto/")]
PYTHON = ("python", ".venv/bin/python")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def shell_lines(page: str) -> Iterator[str]:
    """The lines of the fenced blocks marked `sh`, continued ones joined, without here-documents."""
    for block in re.findall(r"^```sh\n(.*?)^```", read(page), flags=re.MULTILINE | re.DOTALL):
        script = re.sub(r"<<'(\w+)'\n.*?^\1$", "", block, flags=re.MULTILINE | re.DOTALL)
        yield from filter(str.strip, script.replace("\\\n", " ").splitlines())


def words_of(line: str) -> list[str]:
    """A command without comments and the variables set for it; nothing for an assignment."""
    words = [] if re.match(r"[A-Z_]+=\$\(", line) else shlex.split(line, comments=True)
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    return words


COMMANDS = [(page, line) for page in GUIDES for line in shell_lines(page) if words_of(line)]
MODULE_COMMANDS = [
    (page, line) for page, line in COMMANDS if words_of(line)[:2] in ([p, "-m"] for p in PYTHON)
]


@cache
def command_of(module: str) -> Any:
    """The command line behind `python -m module`."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    is_package = spec.submodule_search_locations is not None
    app = importlib.import_module(f"{module}.__main__" if is_package else module).app
    return typer.main.get_command(app)


def runs_alone(command: Any, word: str) -> bool:
    """Whether `word` is an option of a program that also runs without a subcommand."""
    return command.invoke_without_command and word.startswith("-")


def options_of(module: str, subcommand: str) -> set[str]:
    command = command_of(module)
    if hasattr(command, "commands") and not runs_alone(command, subcommand):
        assert subcommand in command.commands, f"python -m {module} has no {subcommand}"
        command = command.commands[subcommand]
    return {option for parameter in command.params for option in parameter.opts}


# Commands


def test_the_guides_show_commands() -> None:
    assert {"make build-instruct", "make test"} <= {line for _, line in COMMANDS}


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_documented_program_is_there(page: str, line: str) -> None:
    program = words_of(line)[0]
    assert program in (*PYTHON, "cd", "export", "unset") or shutil.which(program)


@pytest.mark.parametrize("page", PAGES)
def test_a_mentioned_target_is_in_the_makefile(page: str) -> None:
    assert set(re.findall(r"(?:^|`)make ([a-z][a-z-]*)", read(page), re.MULTILINE)) <= {*TARGETS}


@pytest.mark.parametrize("page", GUIDES)
def test_a_documented_variable_is_read_by_make(page: str) -> None:
    words = [words_of(line) for _, line in COMMANDS if _ == page]
    given = {
        word.partition("=")[0] for command in words if command[0] == "make" for word in command[2:]
    }
    assert given <= set(re.findall(r"\b[A-Z_]+\b", MAKEFILE))


@pytest.mark.parametrize("line", [line for _, line in MODULE_COMMANDS])
def test_a_documented_option_is_known_to_its_command(line: str) -> None:
    _, _, module, *arguments = words_of(line)
    options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert options <= options_of(module, arguments[0])


@pytest.mark.parametrize("page", PAGES)
def test_a_mentioned_command_is_there(page: str) -> None:
    for module, word in set(re.findall(r"python -m ([a-z_.]+[a-z_])(?: ([a-z-]+))?", read(page))):
        if (ROOT / module.partition(".")[0]).is_dir():
            command = command_of(module)
            assert (
                not hasattr(command, "commands")
                or word in ("", *command.commands)
                or runs_alone(command, word)
            )


@pytest.mark.parametrize("module", sorted(set(re.findall(r"\$\(RUN\) -m ([a-z_.]+)", MAKEFILE))))
def test_a_module_run_by_make_is_there(module: str) -> None:
    assert importlib.util.find_spec(module)


def test_make_alone_lists_every_target() -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not there: install it with `apt-get install make`")
    shown = subprocess.run([make], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert sorted(phony[1].split()) == sorted(TARGETS)
    assert all(f"make {target} " in shown for target in TARGETS)


@pytest.mark.parametrize(
    "folder", ["my photos", "it's", 'a "b"', "$HOME", "$(shell id)", "a;b", "-x"]
)
def test_make_passes_values_on_unchanged(folder: str) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not there: install it with `apt-get install make`")
    command = [
        make,
        "--no-print-directory",
        "--dry-run",
        "build-instruct",
        f"IMAGES={folder}",
        "SOURCE=mine",
    ]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(shown.replace("\\\n", " "))
    assert words[words.index("--images") + 1] == folder
    assert words[words.index("--source") + 1] == "mine"
    assert "--budget" not in words


# Files


@pytest.mark.parametrize("page", PAGES)
def test_no_relative_link_is_broken(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", read(page))
    local = [link for link in links if "://" not in link and not link.startswith("mailto:")]
    assert [link for link in local if not (ROOT / page).parent.joinpath(link).exists()] == []


def named_in_file_map() -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", read("README.md"), re.MULTILINE))


def test_the_file_map_names_only_what_is_there() -> None:
    assert [name for name in named_in_file_map() if not (ROOT / name).exists()] == []


def test_the_file_map_names_every_top_level_entry() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout: which files belong to the project is not known")
    tracked = subprocess.run(
        [git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    entries = {line.partition("/")[0] for line in tracked.stdout.splitlines()}
    assert entries <= {name.rstrip("/") for name in named_in_file_map()}


# Settings and pins


def test_every_setting_is_in_the_example_with_its_meaning() -> None:
    written = re.findall(r"^# (.+)\n#([A-Z_]+)=\S+$", read(".env.example"), re.MULTILINE)
    declared = {name.upper(): field.description for name, field in Settings.model_fields.items()}
    assert {name: meaning for meaning, name in written} == declared


def test_the_example_values_are_valid(tmp_path: Path) -> None:
    filled = tmp_path / ".env"
    filled.write_text(re.sub(r"^#([A-Z_]+=)", r"\1", read(".env.example"), flags=re.MULTILINE))
    assert Settings(_env_file=filled).model_fields_set == set(Settings.model_fields)


def pins() -> dict[str, str]:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def test_constraints_are_names_and_versions_only() -> None:
    for name, version in pins().items():
        assert re.fullmatch(r"[a-z0-9-]+", name), name
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}=={version}"


def test_every_dependency_has_a_pin() -> None:
    project = tomllib.loads(read("pyproject.toml"))["project"]
    asked = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[^A-Za-z0-9._-]", item)[0].lower() for item in asked}
    assert names <= set(pins())
