"""The use case of a drafting worker: claim images, ask the teacher, store what it says.

Many calls are in flight at any time: whenever one ends the next begins. So that its request is
ready by then there are more threads than calls, and claims are refilled before they run out. A
shift ends when nothing is due, when its time is over, or when it is told to; then no further call
is made, and what was not sent is given back.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple

from core.errors import DataError, PermanentError, StateError, TransientError
from core.records import Claim, Draft, ImageRecord, ImageTopic
from db.images import images_by_id
from db.ledger import DRAFTS_RANK
from db.request_texts import keep_request_text
from db.results import keep_results
from db.work import claim, extend_claims, quarantine, release, stopped_because
from generation.brief import brief_for
from generation.desk import Desk
from teacher.failures import RateLimited, Unreachable
from teacher.gate import LONGEST_WAIT_S
from teacher.policy import ask_until_usable

LOOK_SECONDS = 1.0
"""how often a shift looks whether it is to end"""
REST_SECONDS = 5.0
"""until an image is tried again after failures that may pass"""
THREADS_PER_CALL = 1.5
"""so that a request is ready whenever a call may begin"""
LEAST_FAILURES = 8
"""in a row, until the teacher is said to fail and not the images"""


class Drafted(NamedTuple):
    """What became of the claims of a shift."""

    drafted: int = 0
    quarantined: int = 0
    given_back: int = 0


class Outcome(Enum):
    """What became of one claim."""

    DRAFTED = auto()
    UNUSABLE = auto()
    """set aside, because of the image or of what the teacher says about it"""
    EXHAUSTED = auto()
    """set aside after too many failures that might have passed"""
    FAILED = auto()
    """given back after such failures"""
    POSTPONED = auto()
    """given back because the teacher asked for a pause"""
    UNSENT = auto()
    """to be given back: the shift ended before the next call"""
    LOST = auto()
    """somebody else has it"""


QUARANTINED = (Outcome.UNUSABLE, Outcome.EXHAUSTED)
GIVEN_BACK = (Outcome.FAILED, Outcome.POSTPONED, Outcome.UNSENT)
FAILURES = (Outcome.EXHAUSTED, Outcome.FAILED)
ANSWERED = (Outcome.DRAFTED, Outcome.UNUSABLE)


def draft_due(
    desk: Desk,
    arms: Sequence[str],
    *,
    seconds: float,
    is_leaving: Callable[[], bool] = lambda: False,
) -> Drafted:
    """Draft what is due in these arms, which share a teacher, for about so many seconds at most.

    `is_leaving` is asked now and then whether to end early. A PermanentError ends the shift and is
    raised. So is one when nothing but failures come back: then it is the teacher that fails.
    """
    return _Shift(desk, arms, ends_at=time.monotonic() + seconds, is_leaving=is_leaving).work()


class _Shift:
    """One stretch of drafting: the thread that calls `work` leads, those of the pool ask."""

    def __init__(
        self, desk: Desk, arms: Sequence[str], *, ends_at: float, is_leaving: Callable[[], bool]
    ) -> None:
        self._desk = desk
        self._settings = desk.recipe.settings.drafting
        self._arms = arms
        self._ends_at = ends_at
        self._is_leaving = is_leaving
        self._closing = threading.Event()
        """once set, no further call is made"""
        self._slots = threading.Semaphore(self._settings.calls_in_flight)
        """one is held by each call in flight"""
        self._held: dict[Future[Outcome], Claim] = {}
        self._ended: queue.SimpleQueue[Future[Outcome]] = queue.SimpleQueue()
        self._unsent: list[Claim] = []
        self._outcomes: Counter[Outcome] = Counter()
        self._failed_in_a_row = 0
        self._trouble: TransientError | None = None
        self._failure: Exception | None = None
        self._is_dry = False
        """nothing more was due"""
        self._looked_at = self._extended_at = time.monotonic()

    def work(self) -> Drafted:
        num_threads = math.ceil(THREADS_PER_CALL * self._settings.calls_in_flight)
        pool = ThreadPoolExecutor(num_threads, thread_name_prefix="draft")
        try:
            self._lead(pool)
        finally:
            self._closing.set()
            pool.shutdown()
            self._give_back_unsent()
        if self._failure is None and self._is_out_of_reach():
            self._failure = self._teacher_fails(self._outcomes[Outcome.FAILED])
        if self._failure is not None:
            raise self._failure
        count = self._outcomes
        return Drafted(
            drafted=count[Outcome.DRAFTED],
            quarantined=sum(count[outcome] for outcome in QUARANTINED),
            given_back=sum(count[outcome] for outcome in GIVEN_BACK),
        )

    def _lead(self, pool: ThreadPoolExecutor) -> None:
        """Hand out claims and take note of what becomes of them, until none is held."""
        self._refill(pool)
        while self._held:
            with suppress(queue.Empty):
                self._take_note(self._ended.get(timeout=LOOK_SECONDS))
            self._look()
            self._keep_claims()
            self._refill(pool)

    def _refill(self, pool: ThreadPoolExecutor) -> None:
        """Claim more before the last unsent claim is taken up."""
        low_mark = 2 * self._settings.calls_in_flight
        if self._is_dry or self._closing.is_set() or len(self._held) >= low_mark:
            return
        claims = self._claim(self._settings.claim_size)
        self._is_dry = not claims
        with self._desk.database.read() as session:
            images = images_by_id(session, [item.image_id for item in claims])
        for item in claims:
            call = pool.submit(self._draft, item, images[item.image_id])
            self._held[call] = item
            call.add_done_callback(self._ended.put)

    def _claim(self, limit: int) -> list[Claim]:
        desk = self._desk
        if any(desk.seats[arm].gate.closed_for > LONGEST_WAIT_S for arm in self._arms):
            return []
        with desk.database.write() as session:
            return claim(
                session,
                desk.campaign_id,
                arms=self._arms,
                worker=desk.worker,
                limit=limit,
                seconds=self._settings.claim_seconds,
                now=datetime.now(UTC),
            )

    def _take_note(self, call: Future[Outcome]) -> None:
        """What became of a claim; an error that concerns more than one image ends the shift."""
        item = self._held.pop(call)
        try:
            outcome = call.result()
        except Exception as error:  # noqa: BLE001 - raised once the calls in flight have ended
            self._failure = self._failure or error
            self._closing.set()
            outcome = Outcome.UNSENT
        self._outcomes[outcome] += 1
        if outcome is Outcome.UNSENT:
            self._unsent.append(item)
        if outcome in ANSWERED:
            self._failed_in_a_row = 0
        self._failed_in_a_row += outcome in FAILURES
        if self._failed_in_a_row >= max(LEAST_FAILURES, self._settings.calls_in_flight):
            self._failure = self._failure or self._teacher_fails(self._failed_in_a_row)
            self._closing.set()

    def _teacher_fails(self, num_images: int) -> PermanentError:
        return PermanentError(f"none of {num_images} images could be drafted: {self._trouble}")

    def _is_out_of_reach(self) -> bool:
        """Whether nobody answered at all: no reason to try each image again and again."""
        answered = any(self._outcomes[outcome] for outcome in ANSWERED)
        return not answered and isinstance(self._trouble, Unreachable)

    def _look(self) -> None:
        """See whether the shift is to end; the database is asked now and then."""
        desk, now = self._desk, time.monotonic()
        if desk.stop.is_set() or now > self._ends_at or self._is_leaving():
            self._closing.set()
        if now < self._looked_at + LOOK_SECONDS:
            return
        self._looked_at = now
        with desk.database.read() as session:
            if stopped_because(session, desk.campaign_id) is not None:
                self._closing.set()

    def _keep_claims(self) -> None:
        """Hold on to the claims, however long their calls take."""
        seconds, now = self._settings.claim_seconds, time.monotonic()
        if now < self._extended_at + seconds / 3:
            return
        self._extended_at = now
        ids = [item.work_id for item in self._held.values()]
        with self._desk.database.write() as session:
            extend_claims(session, self._desk.worker, ids, seconds=seconds, now=datetime.now(UTC))

    def _give_back_unsent(self) -> None:
        ids = [item.work_id for item in (*self._unsent, *self._held.values())]
        if ids:
            with self._desk.database.write() as session:
                release(session, self._desk.worker, ids, untried=True)

    def _draft(self, item: Claim, image: ImageRecord) -> Outcome:
        """In a thread of the pool: one claim from its request to its end in the database.

        What is raised concerns more than this image.
        """
        try:
            done = self._ask(item, image)
        except StateError:
            return Outcome.UNSENT
        except (DataError, TransientError) as error:
            return self._end_without_draft(item, error)
        try:
            self._desk.database.write_together(keep_results, (item, done), rank=DRAFTS_RANK)
        except StateError:
            return Outcome.LOST
        return Outcome.DRAFTED

    def _end_without_draft(self, item: Claim, error: DataError | TransientError) -> Outcome:
        if isinstance(error, DataError):
            return self._set_aside(item, str(error), Outcome.UNUSABLE)
        if isinstance(error, RateLimited):
            seconds = error.retry_after or REST_SECONDS
            return self._postpone(item, seconds, Outcome.POSTPONED)
        self._trouble = error
        if item.tries < self._settings.max_tries:
            return self._postpone(item, REST_SECONDS, Outcome.FAILED)
        reason = f"failed {item.tries} times, the last time: {error}"
        return self._set_aside(item, reason, Outcome.EXHAUSTED)

    def _ask(self, item: Claim, image: ImageRecord) -> Draft | ImageTopic:
        if item.tries > self._settings.max_claims:
            raise DataError(
                f"claimed {item.tries - 1} times and never finished: it may end workers"
            )
        desk, seat = self._desk, self._desk.seats[item.arm]
        brief = brief_for(desk.database, desk.recipe, seat.arm, image)
        rendered = brief.render(desk.store.read(image.path))
        keep_request_text(desk.database, rendered.text)
        said, reply = ask_until_usable(
            seat.teacher,
            rendered.request,
            ledger=seat.ledger,
            image_id=item.image_id,
            arm=item.arm,
            price=seat.price,
            gate=seat.gate,
            slot=self._slots,
            max_tries=self._settings.max_tries,
            max_reasks=self._settings.max_reasks,
            parse=brief.read,
            stop=self._closing,
        )
        return brief.result(said, reply, rendered, work=item)

    def _set_aside(self, item: Claim, reason: str, outcome: Outcome) -> Outcome:
        with self._desk.database.write() as session, suppress(StateError):
            quarantine(session, item.work_id, reason)
        return outcome

    def _postpone(self, item: Claim, seconds: float, outcome: Outcome) -> Outcome:
        """Give a claim back for later; a pause that the teacher asked for is no try."""
        due_at = datetime.now(UTC) + timedelta(seconds=seconds)
        with self._desk.database.write() as session:
            release(
                session,
                self._desk.worker,
                [item.work_id],
                due_at=due_at,
                untried=outcome is Outcome.POSTPONED,
            )
        return outcome
