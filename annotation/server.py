"""A Label Studio server of our own: installed in an environment of its own, running on localhost.

It pins older versions of libraries that we share with it, so it never comes into `.venv`; we speak
to it over HTTP only. Its first start makes its tables, which takes a minute or two: that is done
once, and every server starts from a copy.

A *booth* is one more such server, where one expert labels blind: nobody else has an account there.
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

from core.errors import ConfigError, TransientError

PROJECT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = PROJECT / ".venv-label-studio"
PINS: Final = Path(__file__).with_name("server-constraints.txt")
INSTALL: Final = "python -m annotation install"
EMPTY: Final = "empty"
"""in the environment: the data folder of a server with tables and nothing in them"""
FOLDER: Final = "label-studio"
"""in the home folder: the data folder of the server that runs here; a number follows for a booth"""
SHOWN: Final = "shown"
"""in the data folder: all that the server may show of this machine's files"""
SHELF: Final = "pictures"
"""in that folder: the pictures of tasks, under random names"""
ACCESS: Final = "access.json"
LOG: Final = "server.log"
OWN: Final = "own"
EMAIL: Final = "{name}@fakescope.local"
"""of the account there: the lead's, in a booth the expert's"""
HOST: Final = "127.0.0.1"
START_SECONDS: Final = 600
STOP_SECONDS: Final = 30
FORBIDDEN: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "::/128", "::1/128", "::ffff:0:0/96",
    "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/32", "2001:20::/28",
    "2001:db8::/32", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8",
)  # fmt: skip
"""where the server may not be sent by its users: what it bans by itself, but for 127.0.0.0/8"""
QUIET: Final = {
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "DJANGO_DB": "sqlite",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    "LOCAL_FILES_SERVING_ENABLED": "true",
    "USE_DEFAULT_BANNED_SUBNETS": "false",
    "USER_ADDITIONAL_BANNED_SUBNETS": ",".join(FORBIDDEN),
}
"""it keeps to this machine, takes the token that we make, lets nobody in who was not invited, and
may call our receiver of webhooks"""


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


@dataclass(frozen=True, kw_only=True)
class OwnServer(Access):
    """A server of ours at work, and its process."""

    process: subprocess.Popen[bytes]
    log: Path

    def require_running(self) -> None:
        """TransientError when it has ended by itself, or somebody else ended it."""
        if (code := self.process.poll()) is not None:
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise TransientError(
                f"Label Studio at {self.url} has ended ({how}): see {self.log}, and start it "
                "again; what was answered is kept"
            )


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
def own_server(
    home: Path, *, port: int | None = None, booth: int | None = None
) -> Iterator[OwnServer]:
    """Run a server of a home folder, on `port` or one that is free; stops it in the end."""
    if not is_installed() or not (ENVIRONMENT / EMPTY).is_dir():
        raise ConfigError(f"Label Studio is not installed: {INSTALL}")
    folder = _folder_of(home, booth)
    known = read_access(home, booth=booth)
    if known is not None and _answers(known.url):
        raise ConfigError(
            f"Label Studio runs already at {known.url}, from {folder}: use it, or stop it first"
        )
    if not folder.is_dir():
        _copy_empty(folder)
    access = Access(
        url=f"http://{HOST}:{_choose_port(port, known)}",
        email=known.email if known else EMAIL.format(name=f"blind-{booth}" if booth else "lead"),
        password=known.password if known else secrets.token_urlsafe(12),
        token=known.token if known else secrets.token_hex(20),
    )
    _write_access(folder, access)
    shelf_of(home, booth=booth).mkdir(parents=True, exist_ok=True)
    with _running(folder, access) as process:
        yield OwnServer(**asdict(access), process=process, log=folder / LOG)


def read_access(home: Path, *, booth: int | None = None) -> Access | None:
    """How to get into a server of a home folder; None when it has never run."""
    try:
        said = (_folder_of(home, booth) / ACCESS).read_text(encoding="utf-8")
        return Access(**json.loads(said))
    except (OSError, ValueError, TypeError):
        return None


def shelf_of(home: Path, *, booth: int | None = None) -> Path:
    """The folder from which a server of a home folder shows pictures."""
    return (_folder_of(home, booth) / SHOWN / SHELF).resolve()


def remembered_as(booth: int | None) -> str:
    """How a server of a home folder is remembered: its port may change."""
    return OWN if booth is None else f"{OWN}-{booth}"


def booths(home: Path) -> list[int]:
    """The booths that have run from a home folder, by number."""
    numbers = (
        path.parent.name.removeprefix(f"{FOLDER}-") for path in home.glob(f"{FOLDER}-*/{ACCESS}")
    )
    return sorted(int(number) for number in numbers if number.isdecimal())


def _folder_of(home: Path, booth: int | None) -> Path:
    return home / (FOLDER if booth is None else f"{FOLDER}-{booth}")


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
    for name in (".env", LOG):
        (beside / name).unlink(missing_ok=True)
    beside.rename(folder)


def _copy_empty(folder: Path) -> None:
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    shutil.copytree(ENVIRONMENT / EMPTY, beside)
    beside.chmod(0o700)  # accounts and invitations are for nobody else on this machine
    beside.rename(folder)


@contextmanager
def _running(folder: Path, access: Access | None) -> Iterator[subprocess.Popen[bytes]]:
    """The one place where the server is started; without access it has no user."""
    url = access.url if access else f"http://{HOST}:{_free_port()}"
    port = url.rpartition(":")[2]
    command = [
        str(ENVIRONMENT / "bin" / "label-studio"), "start", "--no-browser",
        "--internal-host", HOST, "--port", port, "--log-level", "WARNING",
    ]  # fmt: skip
    with (folder / LOG).open("ab") as log:
        server = subprocess.Popen(  # noqa: S603 - our own arguments
            command,
            env=_variables(folder, access),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for us; we end it
        )
    try:
        _wait_until_healthy(server, url, folder / LOG)
        yield server
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
        if not name.startswith(("LABEL_STUDIO_", "HEARTEX_", "PYTHON", "DJANGO_", "SSRF_"))
    }
    own = {
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder.resolve()),
        "LOCAL_FILES_DOCUMENT_ROOT": str(folder.resolve() / SHOWN),
    }
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
