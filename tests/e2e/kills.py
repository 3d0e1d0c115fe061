"""Kill the main job, run it again, and compare with a run that nobody disturbed."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.project import Project, make_project, shard_bytes

CALLS_IN_FLIGHT = 16
TABLES = (
    "images",
    "imported_files",
    "drafts",
    "reasonings",
    "findings",
    "region_corners",
    "chains",
)


def content_of(project: Project) -> dict[str, list[tuple[object, ...]]]:
    """The rows that carry content; attempts may differ by calls whose process died."""
    with sqlite3.connect(project.home / "fakescope.db") as database:
        rows = {}
        for table in TABLES:
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            kept = [n for n in names if n not in ("attempt_id", "created_at")]
            rows[table] = sorted(
                database.execute(f"SELECT {', '.join(kept)} FROM {table}").fetchall(), key=repr
            )
    return rows


def stored_then_asked_again(project: Project) -> list[str]:
    """Requests that were sent although their reply already lay in the database before."""
    with sqlite3.connect(project.home / "fakescope.db") as database:
        outcomes = Counter(
            request_hash
            for request_hash, outcome in database.execute(
                "SELECT request_hash, outcome FROM attempts"
            )
            if outcome == "replied"
        )
    return [request_hash for request_hash, times in outcomes.items() if times > 1]


def undisturbed_project(folder: Path, *, crops: int) -> Project:
    project = make_project(folder, crops=crops)
    done = project.build_instruct()
    assert done.code == 0, done
    return project


def run_and_kill(project: Project, after: float) -> bool:
    """Start the main job and kill it after so many seconds; returns whether it was running."""
    process = project.start("main_job", "--recipe", project.recipe)
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        process.kill()
    process.communicate(timeout=30)
    return process.returncode == -signal.SIGKILL


def assert_ends_as_undisturbed(
    undisturbed: Project, folder: Path, moments: Sequence[float], *, crops: int
) -> None:
    """Kill at each moment, then run to the end: same rows and bytes, nothing stored asked twice."""
    project = make_project(folder, crops=crops)
    kills = sum(run_and_kill(project, after) for after in moments)
    done = project.build_instruct()
    assert done.code == 0, done
    assert kills >= 2, "the job was hardly ever killed"
    assert shard_bytes(project.shards) == shard_bytes(undisturbed.shards)
    assert content_of(project) == content_of(undisturbed)
    assert stored_then_asked_again(project) == []
    asked = Counter(request["request_hash"] for request in project.teacher_requests())
    assert sum(asked.values()) - len(asked) <= kills * CALLS_IN_FLIGHT
