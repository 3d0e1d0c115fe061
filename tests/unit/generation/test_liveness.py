"""A claim of a dead process is told from a living one, also when its number is used again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from generation.liveness import is_dead, worker_name


def test_this_process_lives() -> None:
    assert not is_dead(worker_name())


def test_a_process_that_ended_is_dead() -> None:
    script = "from generation.liveness import worker_name; print(worker_name())"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert is_dead(done.stdout.strip())


def test_the_same_number_with_another_start_is_another_process() -> None:
    assert is_dead(f"{socket.gethostname()}/{os.getpid()}/1")


def test_workers_of_other_machines_are_not_judged() -> None:
    assert not is_dead("another-machine/1/1")
    assert not is_dead("no worker name")
