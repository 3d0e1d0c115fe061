"""The crew: many processes, the order of the jobs, and files that end a process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.errors import ConfigError
from imaging import crew as crew_module
from imaging.crew import CHUNK_BYTES, Crew
from imaging.decode import Limits
from imaging.intake import Intake, Job, Refusal, take_in
from imaging.store import ImageStore
from tests.odd_files import jpeg

JOBS = [Job(jpeg(seed), f"{seed}.jpg") for seed in range(70)]

FOREIGN_CREW = """
import sys, time
from pathlib import Path
from imaging.crew import Crew
from imaging.decode import Limits
from imaging.store import ImageStore
with Crew(ImageStore(Path(sys.argv[1])), Limits(), size=2) as crew:
    print(*(hand.process_id for hand in crew._hands), flush=True)
    time.sleep(60)
"""
LOADED = """
import sys
import imaging.crew
print(sorted({"sqlalchemy", "torch", "pandas", "celery", "openai"} & set(sys.modules)))
"""


def process_ids(crew: Crew) -> list[int]:
    """Of the processes as they are now; one that was ended is replaced by another."""
    return [hand.process_id for hand in crew._hands]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("held", [1, CHUNK_BYTES])
def test_results_come_in_order_and_are_those_of_one_process(
    store: ImageStore, tmp_path: Path, held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew_module, "CHUNK_BYTES", held)
    jobs = [*JOBS, Job(b"", "empty.jpg"), Job(str(tmp_path / "missing.jpg"), "missing.jpg")]
    with Crew(store, Limits(), size=3) as crew:
        found = list(crew.take_in(jobs))
    alone = ImageStore(tmp_path / "alone")
    assert found == [take_in(job, alone, Limits()) for job in jobs]
    assert found[-2:] == [Refusal("empty file"), Refusal("no such file", is_lasting=False)]


def test_a_file_that_ends_its_process_is_refused_and_the_rest_goes_on(store: ImageStore) -> None:
    with Crew(store, Limits(), size=1) as crew:
        (process_id,) = process_ids(crew)
        os.kill(process_id, signal.SIGKILL)
        first, *others = crew.take_in(JOBS[:5])
        assert process_ids(crew) != [process_id]
    assert first == Refusal("the decoder crashed on it", is_lasting=False)
    assert all(isinstance(outcome, Intake) for outcome in others)


def test_a_process_that_hangs_is_ended(store: ImageStore) -> None:
    with Crew(store, Limits(seconds=1), size=1) as crew:
        (process_id,) = process_ids(crew)
        os.kill(process_id, signal.SIGSTOP)
        first, second = crew.take_in(JOBS[:2])
    assert first == Refusal("too slow: not decoded within 2 s", is_lasting=False)
    assert isinstance(second, Intake)
    assert not is_alive(process_id)


def test_an_error_of_the_store_ends_the_crew(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Crew(ImageStore(tmp_path / "file"), Limits(), size=2) as crew:
        processes = process_ids(crew)
        with pytest.raises(ConfigError, match="cannot write"):
            list(crew.take_in(JOBS))
    assert not any(is_alive(process_id) for process_id in processes)


def test_no_process_outlives_a_killed_program(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", FOREIGN_CREW, tmp_path], stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    processes = [int(word) for word in program.stdout.readline().split()]
    program.kill()
    program.communicate()
    deadline = time.monotonic() + 20
    while any(map(is_alive, processes)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes) == 2
    assert not any(map(is_alive, processes))


def test_the_processes_load_no_database_and_no_framework() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
