"""The commands of the platform, run as a user runs them, in a home folder of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from core.recipe import DEFAULT_RECIPE

ROOT = Path(__file__).resolve().parents[2]
OURS = (
    "DATABASE_URL", "CELERY_BROKER_URL", "OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL",
    "FAKESCOPE_HOME", "OPENAI_REQUESTS_PER_MINUTE", "OPENAI_TOKENS_PER_MINUTE",
    "LIMITS_REDIS_URL", "USD_PER_DAY", "LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY",
)  # fmt: skip


def clean_environment() -> dict[str, str]:
    """The environment without settings of ours."""
    return {name: value for name, value in os.environ.items() if name not in OURS}


@dataclass
class Project:
    """A home folder and the environment in which commands run."""

    home: Path
    recipe: Path
    environment: dict[str, str] = field(default_factory=dict)

    def variables(self) -> dict[str, str]:
        return {**clean_environment(), "FAKESCOPE_HOME": str(self.home), **self.environment}

    def command(self, module: str, *arguments: object) -> list[str]:
        return [sys.executable, "-m", module, *map(str, arguments)]

    def run(self, module: str, *arguments: object, timeout: float = 300) -> Finished:
        done = subprocess.run(
            self.command(module, *arguments),
            cwd=ROOT,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return Finished(code=done.returncode, out=done.stdout, err=done.stderr)

    def start(self, module: str, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(module, *arguments),
            cwd=ROOT,
            env=self.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
        )

    def build_instruct(self, *arguments: object) -> Finished:
        return self.run("main_job", "--recipe", self.recipe, *arguments)

    @property
    def shards(self) -> Path:
        return self.home / "fakeinstruct"

    def teacher_requests(self) -> list[dict[str, Any]]:
        """The rehearsal teacher's own log of what it was asked."""
        log = self.home / "rehearsal.jsonl"
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Finished:
    """How a command ended."""

    code: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit code {self.code}\n{self.out}\n{self.err}"


def make_project(folder: Path, *, crops: int = 160, **environment: str) -> Project:
    """A project whose demo has so few crops that a test can afford it."""
    recipe = shutil.copytree(DEFAULT_RECIPE, folder / "recipe")
    path = recipe / "recipe.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values["demo"]["crops"] = crops
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    return Project(home=folder / "home", recipe=recipe, environment=environment)


def shard_bytes(folder: Path) -> dict[str, bytes]:
    """Every file of a shard set."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
