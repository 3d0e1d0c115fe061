"""The Celery application: `celery -A workers.app worker`, or an in-process worker without a server.

The database says what is to do; a message only says which campaign to work on. So a broker that
loses everything loses nothing: the next command or worker enqueues again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from celery import Celery

from core.settings import Settings, load_settings

IN_PROCESS = "memory://"


def make_app(settings: Settings) -> Celery:
    """The application for the configured broker; without one, for a worker inside this process."""
    broker = settings.celery_broker_url
    app = Celery(
        "fakescope",
        broker=broker.get_secret_value() if broker else IN_PROCESS,
        include=["generation.tasks", "instruct_builder.tasks"],
    )
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        worker_prefetch_multiplier=1,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        broker_transport_options=_transport_options(app.conf.broker_url),
        task_default_queue="fakescope",
    )
    return app


def _transport_options(address: str) -> dict[str, float]:
    """Redis gives an unacknowledged message back after an hour at the latest: blocks end sooner."""
    if address.startswith("redis"):
        return {
            "visibility_timeout": 3600,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
    return {"polling_interval": 0.02} if address == IN_PROCESS else {}


@contextmanager
def in_process_worker(app: Celery, queues: Sequence[str]) -> Iterator[None]:
    """Run a worker in threads of this process until the block ends, one for each queue."""
    from celery.contrib.testing.worker import start_worker

    app.finalize()
    app.loader.import_default_modules()
    with start_worker(
        app,
        pool="threads",
        concurrency=len(queues),
        queues=queues,
        perform_ping_check=False,
        loglevel="CRITICAL",
        shutdown_timeout=60,
    ):
        try:
            yield
        finally:
            app.control.shutdown()  # a message ends its wait for messages, which takes seconds


app = make_app(load_settings())
