"""`python -m workers`: a Celery worker on the configured broker, until Ctrl-C."""

from __future__ import annotations

import os
import threading
from typing import Annotated

import typer
from celery.signals import worker_process_init

from core.command_line import one_line_errors
from core.errors import ConfigError
from core.settings import load_settings
from generation.janitor import start_janitor
from generation.tasks import ALL_TEACHERS, queue_of
from workers.app import make_app

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
@one_line_errors()
def main(
    concurrency: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
    queues: Annotated[
        str | None,
        typer.Option(
            help="Serve only these teachers, separated by commas: `rehearsal`, or host and port as "
            "in their address (api.openai.com). Default: all teachers."
        ),
    ] = None,
) -> None:
    """Work on whatever the broker named by CELERY_BROKER_URL hands out.

    Each teacher has a queue of its own. Each process keeps many calls in flight, as the recipe
    says. SIGTERM or Ctrl-C: the calls in flight are finished, all else is given back.
    """
    settings = load_settings()
    if settings.celery_broker_url is None:
        raise ConfigError(
            "CELERY_BROKER_URL is not set: name a Redis or RabbitMQ server there; without one, "
            "`make build-instruct` does the work by itself"
        )
    worker_process_init.connect(_start_janitor)
    make_app(settings).worker_main(
        ["worker", "--loglevel", "INFO", "--concurrency", str(concurrency), *_serving(queues)]
    )


def _serving(queues: str | None) -> list[str]:
    """Celery's options for a worker of these teachers; those for all are told which there are."""
    quiet = ["--without-gossip", "--without-mingle"]
    if queues is None:
        return [*quiet, "--hostname", f"{ALL_TEACHERS}{os.getpid()}@%h"]
    names = [name.strip() for name in queues.split(",") if name.strip()]
    if not names:
        raise ConfigError("--queues names no teacher")
    chosen = ",".join(map(queue_of, names))
    return [*quiet, "--hostname", f"some-{os.getpid()}@%h", "--queues", chosen]


def _start_janitor(**_: object) -> None:
    """In each process of the pool, after the fork; it ends with the process."""
    start_janitor(load_settings(), threading.Event())


if __name__ == "__main__":
    app()
