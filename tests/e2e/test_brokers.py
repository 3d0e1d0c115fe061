"""The same drafting tasks by real Celery workers over a real Redis and a real RabbitMQ."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.brokers import rabbitmq_server, redis_server
from tests.e2e.project import ROOT, Project, make_project, shard_bytes


@contextmanager
def celery_worker(project: Project) -> Iterator[None]:
    """One worker process as `make worker` starts it."""
    command = project.command("workers", "--concurrency", 2)
    with (project.home.parent / "worker.log").open("w") as log:
        worker = subprocess.Popen(
            command, cwd=ROOT, env=project.variables(), stdout=log, stderr=log
        )
        try:
            yield
        finally:
            worker.terminate()
            worker.wait(60)


def broker(kind: str, folder: Path) -> AbstractContextManager[str]:
    return redis_server(folder) if kind == "redis" else rabbitmq_server()


@pytest.mark.full
@pytest.mark.parametrize("kind", ["redis", "rabbitmq"])
def test_workers_on_a_broker_give_the_same_shards(kind: str, tmp_path: Path) -> None:
    alone = make_project(tmp_path / "alone", crops=64)
    assert alone.build_instruct().code == 0
    with broker(kind, tmp_path) as address:
        project = make_project(tmp_path / kind, crops=64, CELERY_BROKER_URL=address)
        prepare = project.run("db", "upgrade")
        assert prepare.code == 0, prepare
        with celery_worker(project):
            done = project.build_instruct()
        assert done.code == 0, done
    assert shard_bytes(project.shards) == shard_bytes(alone.shards)
    assert "generation.draft" in (project.home.parent / "worker.log").read_text(encoding="utf-8")


@pytest.mark.full
def test_without_a_worker_the_command_says_so(tmp_path: Path) -> None:
    with redis_server(tmp_path) as address:
        project = make_project(tmp_path / "lonely", crops=64, CELERY_BROKER_URL=address)
        done = project.build_instruct()
    assert done.code == 2, done
    assert "no worker answers" in done.err
    assert "make worker" in done.err


def test_a_worker_without_a_broker_says_what_is_missing(tmp_path: Path) -> None:
    done = make_project(tmp_path).run("workers")
    assert done.code == 2, done
    assert "CELERY_BROKER_URL is not set" in done.err
