"""`python -m dashboard`: the QA dashboard in a browser, on this machine alone, until Ctrl-C."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

APP = Path(__file__).parent / "app.py"
OPTIONS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",
    "server.fileWatcherType": "none",
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "minimal",
    "runner.magicEnabled": "false",
    "theme.light.primaryColor": "#0072B2",
    "theme.dark.primaryColor": "#56B4E9",
    "theme.baseFontSize": "14",
}
"""of Streamlit; those of the command line overrule every file and variable"""


def main(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 8501,
) -> None:
    """Show what database, shard folders and run folders hold. It can change nothing."""
    options = [f"--{name}={value}" for name, value in {**OPTIONS, "server.port": port}.items()]
    paths = [str(APP.parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    print(f"dashboard: http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    command = [sys.executable, "-m", "streamlit", "run", str(APP), *options]
    os.execve(sys.executable, command, environment)  # noqa: S606 - our own program


if __name__ == "__main__":
    typer.run(main)
