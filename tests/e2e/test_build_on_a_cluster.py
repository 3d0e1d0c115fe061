"""Celery workers over a real Redis and a real RabbitMQ make the shards that one process makes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.builds import build_command, project_of_chains
from tests.e2e.project import shard_bytes
from tests.e2e.test_brokers import broker, celery_worker

ROWS = 2_000


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
