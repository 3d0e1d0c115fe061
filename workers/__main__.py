"""`python -m workers`: a Celery worker on the configured broker, until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer

from core.command_line import one_line_errors
from core.errors import ConfigError
from core.settings import load_settings
from workers.app import make_app

app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command()
@one_line_errors()
def main(
    concurrency: Annotated[int, typer.Option(min=1, help="Worker processes.")] = 1,
) -> None:
    """Work on whatever the broker named by CELERY_BROKER_URL hands out."""
    settings = load_settings()
    if settings.celery_broker_url is None:
        raise ConfigError(
            "CELERY_BROKER_URL is not set: name a Redis or RabbitMQ server there; without one, "
            "`make build-instruct` does the work by itself"
        )
    quiet = ["--without-gossip", "--without-mingle"]
    make_app(settings).worker_main(
        ["worker", "--loglevel", "INFO", "--concurrency", str(concurrency), *quiet]
    )


if __name__ == "__main__":
    app()
