"""The Celery task of a build on a cluster: one shard, made from the staging folder of the build.

All workers see that folder under the same path: a shared file system. A message that comes twice
or late does no harm: a shard that is there is not made again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from celery import shared_task

from core.errors import TransientError
from instruct_builder.making import make_shard
from instruct_builder.staging import Staging

QUEUE = "fakescope"
"""the one that workers for every teacher listen to"""
LOOK_SECONDS = 0.2
AGAIN_SECONDS = 60.0
"""without a new shard, after which messages are sent again: Redis keeps those of a worker that
vanished for an hour"""
PATIENCE_SECONDS = 600.0
"""without a new shard, after which the build gives up"""

log = logging.getLogger("fakescope.instruct_builder")


@shared_task(name="instruct_builder.make_shard")  # type: ignore[untyped-decorator]
def make_shard_task(folder: str, number: int) -> None:
    """Make one shard; a build that has ended meanwhile, or gave way to another, is no failure."""
    staging = Staging(Path(folder))
    if not staging.is_complete or number >= len(staging.ranges):
        log.warning("shard %d of a build that has ended: %s", number, folder)
        return
    make_shard(folder, number)


def hand_out(staging: Staging, tell: Callable[[], None]) -> None:
    """Send a message for each missing shard, and wait until all are there.

    TransientError when none has come for a long time: no worker listens, or it does not see the
    folder.
    """
    _send(staging)
    left = staging.missing()
    since = sent = time.monotonic()
    while left:
        time.sleep(LOOK_SECONDS)
        now = staging.missing()
        if len(now) < len(left):
            since = sent = time.monotonic()
            tell()
        left = now
        if time.monotonic() - sent > AGAIN_SECONDS:
            _send(staging)
            sent = time.monotonic()
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise TransientError(
                f"no worker has made a shard for {PATIENCE_SECONDS:.0f} s: start `make worker` "
                f"where {staging.path} is seen under the same path, then build again"
            )


def _send(staging: Staging) -> None:
    """Send a message for each shard that is missing now."""
    for number in staging.missing():
        make_shard_task.apply_async((str(staging.path.resolve()), number), queue=QUEUE)
