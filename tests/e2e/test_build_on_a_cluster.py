"""Celery workers over a real Redis and a real RabbitMQ make the shards that one process makes."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from instruct_builder.staging import FOLDER as STAGING
from tests.e2e.builds import build_command, project_of_chains
from tests.e2e.project import ROOT, shard_bytes
from tests.e2e.test_brokers import broker, celery_worker

ROWS = 2_000
START_S, BUILD_S = 120.0, 400.0


@pytest.mark.full
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_workers_make_the_same_bytes_as_one_process(kind: str, tmp_path: Path) -> None:
    project = project_of_chains(tmp_path / kind, 60, rows_per_shard=200)
    alone = project.run("instruct_builder", *build_command(project, tmp_path / "alone", rows=ROWS))
    assert alone.code == 0, alone
    with broker(kind, tmp_path) as address:
        project.environment["CELERY_BROKER_URL"] = address
        with celery_worker(project):
            command = build_command(project, tmp_path / "cluster", rows=ROWS)
            done = project.run("instruct_builder", *command, "--cluster")
    assert done.code == 0, done
    assert shard_bytes(tmp_path / "cluster") == shard_bytes(tmp_path / "alone")
    log = (project.home.parent / "worker.log").read_text(encoding="utf-8")
    assert log.count("instruct_builder.make_shard") >= 9, log


@pytest.mark.full
def test_a_worker_that_vanishes_leaves_no_half_shard_and_others_go_on(tmp_path: Path) -> None:
    """Killed with `kill -9` at its first shard; Redis would keep its message for an hour."""
    project = project_of_chains(tmp_path / "redis", 60, rows_per_shard=100)
    alone, out = tmp_path / "alone", tmp_path / "cluster"
    done = project.run("instruct_builder", *build_command(project, alone, rows=ROWS))
    assert done.code == 0, done
    with broker("redis", tmp_path) as address:
        project.environment["CELERY_BROKER_URL"] = address
        options = {"cwd": ROOT, "env": project.variables(), "start_new_session": True}
        first = subprocess.Popen(
            project.command("workers", "--concurrency", 1), stderr=subprocess.DEVNULL, **options
        )
        command = [*build_command(project, out, rows=ROWS), "--cluster"]
        build = subprocess.Popen(
            project.command("instruct_builder", *command), stderr=subprocess.PIPE, **options
        )
        _wait_for_a_shard(build, out / STAGING)
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
        assert [path.name for path in out.iterdir()] == [STAGING]
        with celery_worker(project):
            _, complaints = build.communicate(timeout=BUILD_S)
    assert build.returncode == 0, complaints
    assert shard_bytes(out) == shard_bytes(alone)


def _wait_for_a_shard(build: subprocess.Popen[bytes], staging: Path) -> None:
    deadline = time.monotonic() + START_S
    while not [*staging.glob("shard-*.parquet*")]:
        assert build.poll() is None, build.communicate()
        assert time.monotonic() < deadline, "no shard was begun"
        time.sleep(0.005)
