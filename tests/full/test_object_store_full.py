"""A set whose place is an object store: built, verified, exported and cut off over real HTTP.

The store is moto's server for S3, the client s3fs; both are in an environment of their own.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.builds import build_command, project_of_chains
from tests.e2e.project import ROOT, Finished, Project
from tests.unit.instruct_builder.test_addresses import files_in

pytestmark = pytest.mark.full

PACKAGES = (
    "moto==5.2.5",
    "s3fs==2026.9.0",
    "aiobotocore==3.10.0",
    "aiohappyeyeballs==2.7.1",
    "aiohttp==3.14.5",
    "aioitertools==0.13.0",
    "aiosignal==1.4.0",
    "blinker==1.9.0",
    "boto3==1.43.115",
    "botocore==1.43.115",
    "flask==3.1.3",
    "flask-cors==6.0.5",
    "frozenlist==1.8.0",
    "itsdangerous==2.2.0",
    "jmespath==1.1.0",
    "multidict==7.2.1",
    "propcache==0.5.4",
    "py-partiql-parser==0.6.3",
    "responses==0.26.3",
    "s3transfer==0.19.3",
    "wrapt==2.5.2",
    "xmltodict==1.0.4",
    "yarl==1.25.1",
)
"""server and client with what they need for S3, as far as ours lacks it"""
COPY = """
import sys, fsspec
files, root = fsspec.url_to_fs(sys.argv[1])
files.get(root + "/", sys.argv[2] + "/", recursive=True)
"""
CHAINS, ROWS = 300, 6_000
START_S, UPLOAD_S = 60.0, 120.0


@dataclass(frozen=True)
class Store:
    """A server for S3, and an interpreter that knows how to reach it."""

    python: Path
    url: str

    def run(self, project: Project, *arguments: object) -> Finished:
        with self.start(project, "-m", "instruct_builder", *arguments) as running:
            out, err = running.communicate(timeout=300)
        return Finished(code=running.returncode, out=out, err=err)

    def start(self, project: Project, *arguments: object) -> subprocess.Popen[str]:
        access = {
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.url,
        }
        return subprocess.Popen(
            [str(self.python), *map(str, arguments)],
            cwd=ROOT,
            env=project.variables() | access,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )

    def names(self, bucket: str) -> list[str]:
        """What is in a bucket; nothing before there is one."""
        try:
            with urllib.request.urlopen(f"{self.url}/{bucket}?list-type=2") as answer:
                return re.findall("<Key>(.*?)</Key>", answer.read().decode())
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            return []

    def files(self, project: Project, address: str, into: Path) -> dict[str, bytes]:
        """All files below an address; `into` is where they are copied to."""
        with self.start(project, "-c", COPY, address, into) as running:
            _, complaints = running.communicate(timeout=300)
        assert running.returncode == 0, complaints
        return files_in(into)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that sees its packages first and ours after them."""
    folder = tmp_path_factory.mktemp("object-store") / "environment"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    (library,) = folder.glob("lib/python3*/site-packages")
    (library / "ours.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    install = [str(python), "-m", "pip", "install", "-q", "--no-deps", *PACKAGES]
    done = subprocess.run(install, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        pytest.skip(f"moto and s3fs cannot be installed: {done.stderr.strip()[-200:]}")
    return python


@pytest.fixture(scope="module")
def store(python: Path) -> Iterator[Store]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port, server)
        yield Store(python, f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait(30)


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while True:
        assert server.poll() is None, "the object store ended"
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < deadline, "the object store does not answer"
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return project_of_chains(tmp_path_factory.mktemp("chains"), CHAINS, rows_per_shard=250)


@pytest.fixture(scope="module")
def here(project: Project, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the same set in a folder of this machine."""
    out = tmp_path_factory.mktemp("here") / "set"
    done = project.run("instruct_builder", *build_command(project, out, rows=ROWS))
    assert done.code == 0, done
    return files_in(out)


def test_a_set_is_built_verified_and_exported_there(
    store: Store, project: Project, here: dict[str, bytes], tmp_path: Path
) -> None:
    done = store.run(project, *build_command(project, "s3://built/set", rows=ROWS))
    assert done.code == 0, done
    assert store.files(project, "s3://built/set", tmp_path / "set") == here
    done = store.run(project, "verify", "s3://built/set")
    assert done.code == 0 and "every checksum" in done.out, done
    again = store.run(project, *build_command(project, "s3://built/set", rows=ROWS))
    assert "was there already" in again.out, again
    exported = ["export", "s3://built/set", "--format", "llava", "--out", "s3://built/llava"]
    done = store.run(project, *exported)
    assert done.code == 0, done
    assert {"export.json", "train.json"} <= store.files(
        project, "s3://built/llava", tmp_path / "llava"
    ).keys()


def test_a_killed_upload_is_no_set_and_goes_on(
    store: Store, project: Project, here: dict[str, bytes], tmp_path: Path
) -> None:
    running = store.start(
        project, "-m", "instruct_builder", *build_command(project, "s3://cut/set", rows=ROWS)
    )
    deadline = time.monotonic() + UPLOAD_S
    while sum(name.endswith(".parquet") for name in store.names("cut")) < 3:
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < deadline, "no upload began"
        time.sleep(0.01)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    there = store.files(project, "s3://cut/set", tmp_path / "cut")
    assert "manifest.json" not in there and "upload.partial" in there
    whole = {name for name in there if name.endswith(".parquet")}
    assert {name: there[name] for name in whole} == {name: here[name] for name in whole}
    assert store.run(project, "verify", "s3://cut/set").code == 2
    done = store.run(project, *build_command(project, "s3://cut/set", rows=ROWS))
    assert done.code == 0, done
    assert store.files(project, "s3://cut/set", tmp_path / "whole") == here
    assert store.run(project, "verify", "s3://cut/set").code == 0


def test_an_address_that_nobody_answers_at_is_one_line(store: Store, project: Project) -> None:
    gone = Store(store.python, "http://127.0.0.1:9")
    done = gone.run(project, "verify", "s3://built/set")
    assert done.code == 2 and "s3://built/set" in done.err
    assert "Traceback" not in done.err, done
