"""Make or complete the project's one environment, `.venv`: `scripts/setup.sh [EXTRA ...]`.

Runs before anything is installed, so it uses the standard library alone. A stamp in `.venv` lets
the next call with the same wishes return at once. TORCH_BACKEND names a build of torch.
"""

from __future__ import annotations

import configparser
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

OLDEST_UV = (0, 7)
"""the first releases that know every option used here"""
LEAKS = ("PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV")
"""variables that would draw other site-packages into the environment"""
HANDED_ON = {"index-url": "UV_DEFAULT_INDEX", "cert": "SSL_CERT_FILE"}
"""settings of pip that uv needs on a machine behind a mirror, and what uv calls them"""
OTHER_TORCH = "For another: TORCH_BACKEND=cpu|cu130|... make setup"


class SetupError(Exception):
    """The set-up cannot go on; the message is one line that names the remedy."""

    exit_code = 1


class WrongInput(SetupError):
    """The caller or the machine has to change something first."""

    exit_code = 2


@dataclass(frozen=True)
class Stamp:
    """What an environment was made from, or should be."""

    inputs: str
    """hash of everything in the project that decides what is installed"""
    root: str
    """the project folder; an environment that was moved is broken"""
    extras: tuple[str, ...]
    torch_backend: str
    """as named by the user; empty: whatever suits the machine"""

    def covers(self, wanted: Stamp) -> bool:
        """True when an environment with this stamp lacks nothing of `wanted`."""
        return (
            (self.inputs, self.root) == (wanted.inputs, wanted.root)
            and set(wanted.extras) <= set(self.extras)
            and wanted.torch_backend in ("", self.torch_backend)
        )

    def extended_by(self, wanted: Stamp) -> Stamp:
        """`wanted`, without giving up what is here already."""
        extras = tuple(sorted({*self.extras, *wanted.extras}))
        return replace(
            wanted, extras=extras, torch_backend=wanted.torch_backend or self.torch_backend
        )


@dataclass(frozen=True)
class TorchChoice:
    """Which build of torch to take, and how to tell the installer."""

    reason: str = ""
    options: tuple[str, ...] = ()
    """for `uv pip install`; pip has nothing like them"""
    find_links: tuple[str, ...] = ()
    advice: str = ""
    """what to try when the installation fails"""


@dataclass(frozen=True)
class Environment:
    """The `.venv` of a project folder."""

    root: Path

    @property
    def folder(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def stamp_path(self) -> Path:
        return self.folder / "setup.json"

    def read_stamp(self) -> Stamp | None:
        """None when there is none, or none that can be read."""
        try:
            stamp = json.loads(self.stamp_path.read_text(encoding="utf-8"))
            return Stamp(**{**stamp, "extras": tuple(stamp["extras"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def write_stamp(self, stamp: Stamp) -> None:
        self.stamp_path.write_text(json.dumps(asdict(stamp)) + "\n", encoding="utf-8")

    def can(self, *arguments: str) -> bool:
        """True when the environment's Python runs `arguments` with success."""
        try:
            call = subprocess.run([self.python, *arguments], capture_output=True, check=False)
        except OSError:
            return False
        return call.returncode == 0

    def installed_version(self, package: str) -> str:
        """Version and build tag of a package, read without importing it; empty when missing."""
        for folder in self.folder.glob(f"lib/python3*/site-packages/{package}-*.dist-info"):
            return folder.name.removesuffix(".dist-info").partition("-")[2]
        return ""

    def wheel_tag(self) -> str:
        """The Python tag of the wheels that fit, such as cp311."""
        (library,) = self.folder.glob("lib/python3*")
        return library.name.replace("python", "cp").replace(".", "")


def main() -> int:
    """Set up the project that this script lies in."""
    environment = Environment(Path(__file__).resolve().parent.parent)
    try:
        with lock(environment.root):
            set_up(environment, extras=sys.argv[1:], torch_backend=os.getenv("TORCH_BACKEND", ""))
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Keep a second set-up of the same folder waiting until this one is done."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def set_up(environment: Environment, *, extras: list[str], torch_backend: str) -> None:
    """Bring `.venv` to the base install plus at least `extras`; do nothing when it is there."""
    wanted = read_wishes(environment.root, extras, torch_backend)
    stamp = environment.read_stamp()
    if stamp and stamp.covers(wanted) and environment.python.exists():
        return
    began = time.monotonic()
    install(environment, wanted=stamp.extended_by(wanted) if stamp else wanted, stamp=stamp)
    print(f"Ready after {time.monotonic() - began:.0f} s: {environment.folder}")


def read_wishes(root: Path, extras: list[str], torch_backend: str) -> Stamp:
    """The stamp that the environment should have."""
    pyproject = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    known = pyproject["project"].get("optional-dependencies", {})
    if unknown := sorted(set(extras) - set(known)):
        raise WrongInput(f"no extra {', '.join(unknown)}; there is: {', '.join(sorted(known))}")
    asked = {*extras, "train"} if torch_backend else set(extras)
    return Stamp(hash_inputs(root, pyproject), str(root), tuple(sorted(asked)), torch_backend)


def hash_inputs(root: Path, pyproject: dict[str, Any]) -> str:
    """Hash of dependencies, pins and top-level packages; settings of tools change nothing."""
    tools = pyproject.get("tool", {})
    tables = [pyproject.get("build-system"), pyproject["project"], tools.get("setuptools")]
    packages = sorted(path.parent.name for path in root.glob("*/__init__.py"))
    text = json.dumps([tables, packages, read_constraints(root)])
    return hashlib.sha256(text.encode()).hexdigest()


def read_constraints(root: Path) -> dict[str, str]:
    """The exact version of each package."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("==") for line in lines if not line.startswith("#"))
    return {name: version for name, _, version in pins if name}


def install(environment: Environment, *, wanted: Stamp, stamp: Stamp | None) -> None:
    """Make `.venv` where it is missing or broken, and install into it."""
    uv = find_uv(environment)
    if not is_usable(environment, stamp, uv):
        make_environment(environment, uv)
    environment.stamp_path.unlink(missing_ok=True)
    torch = choose_torch(environment, wanted, stamp)
    if torch.options and not uv:
        uv = install_uv(environment)
    install_project(environment, wanted.extras, torch, uv)
    environment.write_stamp(wanted)
    if torch.reason:
        print(f"torch {environment.installed_version('torch')}: {torch.reason}")


def find_uv(environment: Environment) -> str | None:
    """The uv on the PATH or in `.venv`, when it runs and is new enough."""
    for candidate in (shutil.which("uv"), str(environment.folder / "bin" / "uv")):
        if candidate and uv_version(candidate) >= OLDEST_UV:
            return candidate
    return None


def uv_version(uv: str) -> tuple[int, ...]:
    """Major and minor version; empty when it does not run."""
    try:
        answer = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False)
    except OSError:
        return ()
    found = re.match(r"uv (\d+)\.(\d+)", answer.stdout)
    return tuple(int(part) for part in found.groups()) if found else ()


def is_usable(environment: Environment, stamp: Stamp | None, uv: str | None) -> bool:
    """True when `.venv` was made here, runs a Python new enough, and can be installed into."""
    if stamp and stamp.root != str(environment.root):
        return False
    is_new_enough = environment.can("-c", "import sys; sys.exit(sys.version_info < (3, 11))")
    return is_new_enough and bool(uv or environment.can("-m", "pip", "--version"))


def make_environment(environment: Environment, uv: str | None) -> None:
    """An empty `.venv` for the Python that runs this script, in place of whatever is there."""
    print(f"Making {environment.folder} with Python {platform.python_version()}", flush=True)
    if uv:
        command = [uv, "venv", "--quiet", "--clear", "--python", sys.executable]
    else:
        check_ensurepip()
        command = [sys.executable, "-m", "venv", "--clear"]
    run([*command, str(environment.folder)], environment.root)


def check_ensurepip() -> None:
    """Debian and Ubuntu ship Python without the part that puts pip into an environment."""
    if importlib.util.find_spec("ensurepip") is None:
        package = "python{}.{}-venv".format(*sys.version_info)
        raise WrongInput(
            f"{sys.executable} lacks ensurepip; on Debian or Ubuntu: apt-get install {package}"
        )


def choose_torch(environment: Environment, wanted: Stamp, stamp: Stamp | None) -> TorchChoice:
    """The named build, else the one that is here, else a local CPU wheel, else what uv detects."""
    if "train" not in wanted.extras:
        return TorchChoice()
    version = read_constraints(environment.root)["torch"]
    is_here = environment.installed_version("torch").partition("+")[0] == version
    if is_here and wanted.torch_backend == (stamp.torch_backend if stamp else ""):
        return TorchChoice("kept")
    if wanted.torch_backend:
        return name_torch(wanted.torch_backend)
    return find_torch(version, environment.wheel_tag()) or detect_torch()


def name_torch(backend: str) -> TorchChoice:
    """The build that TORCH_BACKEND asks for; `pypi`: the usual build of the package index."""
    backend_options = () if backend == "pypi" else ("--torch-backend", backend)
    return TorchChoice(
        f"as TORCH_BACKEND={backend} asks.", ("--reinstall-package", "torch", *backend_options)
    )


def find_torch(version: str, tag: str) -> TorchChoice | None:
    """A CPU wheel that fits, in a folder of pip's or uv's find-links."""
    links = [*pip_setting("find-links").split(), *os.getenv("UV_FIND_LINKS", "").split(",")]
    wheel = f"torch-{version}+cpu-{tag}-{tag}-*linux*_{platform.machine()}.whl"
    for link in filter(None, links):
        if any(Path(link.removeprefix("file://")).glob(wheel)):
            reason = f"the CPU wheel in {link}. {OTHER_TORCH}"
            return TorchChoice(reason, find_links=tuple(filter(None, links)))
    return None


def detect_torch() -> TorchChoice:
    """uv looks for a GPU driver; without one it takes the CPU build."""
    return TorchChoice(
        f"what uv found to suit this machine. {OTHER_TORCH}",
        ("--torch-backend", "auto"),
        advice="; if PyTorch's package index is out of reach, TORCH_BACKEND=pypi make setup takes"
        " the usual build (on Linux with CUDA: gigabytes)",
    )


def pip_setting(name: str) -> str:
    """A setting of pip, from its environment variable or its files; empty when there is none."""
    files = configparser.RawConfigParser()
    files.read(pip_files(), encoding="utf-8")
    in_files = files.get("install", name, fallback=files.get("global", name, fallback=""))
    return os.getenv(f"PIP_{name.upper().replace('-', '_')}", in_files)


def pip_files() -> list[Path]:
    """pip's configuration files; the last one counts most."""
    home = Path.home()
    user = Path(os.getenv("XDG_CONFIG_HOME") or home / ".config")
    named = Path(os.getenv("PIP_CONFIG_FILE", os.devnull))
    folders = [Path("/etc/xdg/pip"), Path("/etc"), home / ".pip", user / "pip"]
    return [*(folder / "pip.conf" for folder in folders), named]


def install_uv(environment: Environment) -> str:
    """Put uv into `.venv`: only uv can choose among the builds of torch."""
    print("Installing uv into .venv, to choose a build of torch", flush=True)
    run([*installer(environment, None), "uv"], environment.root)
    return str(environment.folder / "bin" / "uv")


def install_project(
    environment: Environment, extras: tuple[str, ...], torch: TorchChoice, uv: str | None
) -> None:
    """The project itself, editable, with the packages of `extras` at their exact versions."""
    names = " + ".join(("base", *extras))
    name = "uv" if uv else "pip"
    print(f"Installing {names} with {name} (minutes where downloads are due)", flush=True)
    target = f".[{','.join(extras)}]" if extras else "."
    run([*installer(environment, uv), *torch.options, "-e", target], environment.root, torch)


def installer(environment: Environment, uv: str | None) -> list[str]:
    """The command that installs pinned versions; outside a terminal it prints errors only."""
    if uv:
        command = [uv, "pip", "install", "--python", str(environment.python)]
        quietly = "-q"
    else:
        command = [str(environment.python), "-m", "pip", "install", "--disable-pip-version-check"]
        quietly = "-qq"
    return [*command, "-c", "constraints.txt", *([] if sys.stdout.isatty() else [quietly])]


def run(command: list[str], folder: Path, torch: TorchChoice | None = None) -> None:
    """Run an installer in the project folder; its own messages explain a failure."""
    torch = torch or TorchChoice()
    code = subprocess.run(command, cwd=folder, env=variables(torch), check=False).returncode
    if code:
        raise SetupError(f"installing failed (exit code {code}), see above{torch.advice}")


def variables(torch: TorchChoice) -> dict[str, str]:
    """Environment variables for the installers; what the user set for uv goes before pip's."""
    inherited = {name: value for name, value in os.environ.items() if name not in LEAKS}
    from_pip = {uv_name: pip_setting(name) for name, uv_name in HANDED_ON.items()}
    links = {
        "UV_FIND_LINKS": ",".join(torch.find_links),
        "PIP_FIND_LINKS": " ".join(torch.find_links),
    }
    return given(from_pip) | inherited | given(links) | {"UV_COMPILE_BYTECODE": "1"}


def given(variables: dict[str, str]) -> dict[str, str]:
    """Those with a value: an empty variable would count as set."""
    return {name: value for name, value in variables.items() if value}


if __name__ == "__main__":
    sys.exit(main())
