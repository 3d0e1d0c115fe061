"""compose.yaml fits the settings and their examples; the servers themselves are not started."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from core.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EXAMPLE = (ROOT / ".env.example").read_text(encoding="utf-8")
GUIDE = (ROOT / "docs" / "howto" / "workers.md").read_text(encoding="utf-8")
ADDRESSES = sorted(
    set(re.findall(r"\b(?:postgresql\+psycopg|redis|amqp)://[^\s`]+", EXAMPLE + GUIDE))
)


def service_of(address: str) -> dict[str, Any]:
    kind = urlsplit(address).scheme.partition("+")[0]
    return SERVICES["rabbitmq" if kind == "amqp" else kind]


@pytest.mark.parametrize("name", SERVICES)
def test_a_server_is_open_to_this_machine_alone(name: str) -> None:
    for port in SERVICES[name]["ports"]:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)


@pytest.mark.parametrize("name", SERVICES)
def test_a_server_is_of_one_major_version_healthy_and_keeps_its_data(name: str) -> None:
    service = SERVICES[name]
    assert re.fullmatch(r"[a-z]+:\d+", service["image"])
    assert service["healthcheck"]["test"][0] == "CMD"
    assert [volume.partition(":")[0] for volume in service["volumes"]] == [name]
    assert name in COMPOSE["volumes"]


def test_the_documents_name_an_address_of_every_server() -> None:
    assert {id(service_of(address)) for address in ADDRESSES} == set(map(id, SERVICES.values()))


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_documented_address_is_that_of_its_server(address: str) -> None:
    parts, service = urlsplit(address), service_of(address)
    (port,) = service["ports"]
    assert port.startswith(f"{parts.hostname}:{parts.port}:")
    given = list(service.get("environment", {}).values())
    named = [parts.username, parts.password, parts.path.strip("/")]
    assert [word for word in named if word and not word.isdigit()] == given


def test_the_guide_sets_only_what_is_read() -> None:
    names = set(re.findall(r"^([A-Z_]+)=", GUIDE, re.MULTILINE))
    assert names
    assert names <= {name.upper() for name in Settings.model_fields}


@pytest.mark.parametrize(
    ("target", "arguments"), [("up", "compose up --detach --wait"), ("down", "compose down")]
)
def test_make_runs_docker_compose(target: str, arguments: str, tmp_path: Path) -> None:
    done = make(target, docker=f'echo "$@" >> {tmp_path}/calls', folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "calls").read_text() == f"compose version\n{arguments}\n"


def test_without_docker_compose_make_says_so(tmp_path: Path) -> None:
    done = make("up", docker="exit 1", folder=tmp_path)
    assert done.returncode == 2
    assert "Docker Compose is not there: install it" in done.stdout


def make(target: str, *, docker: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a target with a `docker` that does no more than a line of shell."""
    program = shutil.which("make")
    if program is None:
        pytest.skip("make is not there: install it with `apt-get install make`")
    (folder / "docker").write_text(f"#!/bin/sh\n{docker}\n")
    (folder / "docker").chmod(0o755)
    path = f"{folder}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [program, "--no-print-directory", target],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
