"""A Label Studio server of our own: installed in an environment of its own, running on localhost.

It pins older versions of libraries that we share with it, so it never comes into `.venv`; we speak
to it over HTTP only. Its first start makes its tables, which takes a minute or two: that is done
once, and every server starts from a copy.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import httpx2
from pydantic import SecretStr

from core.errors import ConfigError

PROJECT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = PROJECT / ".venv-label-studio"
PINS: Final = Path(__file__).with_name("server-constraints.txt")
INSTALL: Final = "python -m annotation install"
EMPTY: Final = "empty"
"""in the environment: the data folder of a server with tables and nothing in them"""
FOLDER: Final = "label-studio"
"""in the home folder: the data folder of the server that runs here"""
ACCESS: Final = "access.json"
OWN: Final = "own"
"""how the server of a home folder is remembered: its port may change"""
EMAIL: Final = "lead@fakescope.local"
HOST: Final = "127.0.0.1"
START_SECONDS: Final = 600
STOP_SECONDS: Final = 30
QUIET: Final = {
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "DJANGO_DB": "sqlite",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
}
"""it keeps to this machine, and takes the token that we make"""


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to get into the server that runs here."""

    url: str
    email: str
    password: str
    token: str

    @property
    def api_key(self) -> SecretStr:
        return SecretStr(self.token)


def is_installed() -> bool:
    """Whether the environment holds what the pins ask for."""
    stamp = ENVIRONMENT / "pins.sha256"
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _pins_digest()


def install() -> None:
    """Install the server from the package index, a gigabyte, and make its tables; once."""
    with _one_at_a_time():
        if not is_installed():
            _run(sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT))
            pip = (str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "--disable-pip-version-check")
            _run(*pip, "install", "-qq", "-c", str(PINS), "label-studio")
            (ENVIRONMENT / "pins.sha256").write_text(_pins_digest(), encoding="utf-8")
        _make_empty()


@contextmanager
def own_server(home: Path, *, port: int | None = None) -> Iterator[Access]:
    """Run the server of a home folder, on `port` or one that is free; stops it in the end."""
    if not is_installed() or not (ENVIRONMENT / EMPTY).is_dir():
        raise ConfigError(f"Label Studio is not installed: {INSTALL}")
    folder = home / FOLDER
    known = read_access(home)
    if known is not None and _answers(known.url):
        raise ConfigError(
            f"Label Studio runs already at {known.url}, from {folder}: use it, or stop it first"
        )
    if not folder.is_dir():
        _copy_empty(folder)
    access = Access(
        url=f"http://{HOST}:{_choose_port(port, known)}",
        email=known.email if known else EMAIL,
        password=known.password if known else secrets.token_urlsafe(12),
        token=known.token if known else secrets.token_hex(20),
    )
    _write_access(folder, access)
    with _running(folder, access):
        yield access


def read_access(home: Path) -> Access | None:
    """How to get into the server of a home folder; None when it has never run."""
    try:
        return Access(**json.loads((home / FOLDER / ACCESS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _write_access(folder: Path, access: Access) -> None:
    beside = folder / f"{ACCESS}.new"
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(asdict(access), file)
    beside.replace(folder / ACCESS)


def _make_empty() -> None:
    """Let the server make its tables; without its secret key, so that every copy has its own."""
    folder = ENVIRONMENT / EMPTY
    if folder.is_dir():
        return
    beside = ENVIRONMENT / f"{EMPTY}.new"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    with _running(beside, None):
        pass
    for name in (".env", "server.log"):
        (beside / name).unlink(missing_ok=True)
    beside.rename(folder)


def _copy_empty(folder: Path) -> None:
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(ENVIRONMENT / EMPTY, beside)
    beside.chmod(0o700)  # accounts and invitations are for nobody else on this machine
    beside.rename(folder)


@contextmanager
def _running(folder: Path, access: Access | None) -> Iterator[None]:
    """The one place where the server is started; without access it has no user."""
    url = access.url if access else f"http://{HOST}:{_free_port()}"
    port = url.rpartition(":")[2]
    command = [
        str(ENVIRONMENT / "bin" / "label-studio"), "start", "--no-browser",
        "--internal-host", HOST, "--port", port, "--log-level", "WARNING",
    ]  # fmt: skip
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(  # noqa: S603 - our own arguments
            command,
            env=_variables(folder, access),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us; we end it
        )
    try:
        _wait_until_healthy(server, url, folder / "server.log")
        yield
    finally:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _variables(folder: Path, access: Access | None) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LABEL_STUDIO_", "HEARTEX_", "PYTHON", "DJANGO_"))
    }
    own = {"LABEL_STUDIO_BASE_DATA_DIR": str(folder.resolve())}
    if access is not None:
        own |= {
            "LABEL_STUDIO_USERNAME": access.email,
            "LABEL_STUDIO_PASSWORD": access.password,
            "LABEL_STUDIO_USER_TOKEN": access.token,
        }
    return inherited | QUIET | own


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        if server.poll() is not None:
            raise ConfigError(f"Label Studio ended at once (code {server.returncode}): see {log}")
        if time.monotonic() > deadline:
            raise ConfigError(f"Label Studio did not answer after {START_SECONDS} s: see {log}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health", timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False


def _choose_port(asked: int | None, known: Access | None) -> int:
    """The port asked for, else that of last time, else any; the server itself would move on."""
    if asked is not None:
        if not _is_free(asked):
            raise ConfigError(f"port {asked} is taken: name another one, or none")
        return asked
    before = int(known.url.rpartition(":")[2]) if known else 0
    return before if before and _is_free(before) else _free_port()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _pins_digest() -> str:
    return hashlib.sha256(PINS.read_bytes()).hexdigest()


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Keep a second installation waiting until this one is done."""
    descriptor = os.open(PROJECT, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _run(*command: str) -> None:
    code = subprocess.run(command, check=False).returncode  # noqa: S603 - our own arguments
    if code:
        raise ConfigError(f"installing Label Studio failed (exit code {code}), see above")
