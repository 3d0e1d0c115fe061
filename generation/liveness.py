"""Names of worker processes, and whether such a process of this machine still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def worker_name() -> str:
    """Host, process id and start time: a process id alone may be used again."""
    return _name(os.getpid())


def is_dead(worker: str) -> bool:
    """True when `worker` was a process of this machine and is gone."""
    host, _, rest = worker.partition("/")
    pid = rest.partition("/")[0]
    return host == socket.gethostname() and pid.isdigit() and _name(int(pid)) != worker


def _name(pid: int) -> str:
    return f"{socket.gethostname()}/{pid}/{_start_ticks(pid)}"


def _start_ticks(pid: int) -> str | None:
    """Clock ticks from boot to the start of process `pid`; None when it is gone (proc(5), stat)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else fields[18]
