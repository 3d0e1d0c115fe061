"""From the files that a batch left behind to stored replies; drafts are read from those later.

Storing is idempotent: an attempt ends once, so after a crash the files are simply read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import islice

from core.errors import DataError, PermanentError, StateError
from core.records import AttemptOutcome, Batch, BatchState, Usage
from db.batches import (
    BatchLine,
    close_batch,
    failures_in_passing,
    full_arms,
    lines_by_attempt,
    lines_by_number,
    move_batch,
)
from db.ledger import End, end_attempts
from db.work import quarantine
from generation.batch_desk import BatchDesk
from generation.batch_sending import end_open_lines
from teacher.batch import RemoteBatch, Result, read_result
from teacher.failures import FailedCall, Refused, Unacceptable
from teacher.prices import cost

LINES_AT_ONCE = 100
"""in one transaction"""


@dataclass(kw_only=True)
class Ingest:
    """The results of one batch that has ended."""

    desk: BatchDesk
    batch: Batch
    refusal: str | None = None
    """what every further request would meet too"""
    _odd: Counter[str] = field(default_factory=Counter)
    """lines of no use, by what is wrong with them"""
    _seen: set[str] = field(default_factory=set)
    _is_lost: bool = False
    """a file that the teacher named is not there"""

    def run(self) -> Batch:
        """Store what was answered, give the rest back; PermanentError after that, if need be."""
        for file_id in (self.batch.output_file_id, self.batch.error_file_id):
            if file_id is not None:
                self._read_file(file_id)
        is_unknown = self.batch.state is BatchState.COMPLETED or self._is_lost
        outcome = AttemptOutcome.UNKNOWN if is_unknown else AttemptOutcome.NOT_RUN
        reason = f"the batch was {self.batch.state}, and holds no answer to this"
        missing = end_open_lines(self.desk, self.batch, outcome, reason)
        self._odd["without an answer"] += missing if is_unknown else 0
        with self.desk.database.write() as session:
            now = datetime.now(UTC)
            self.batch = close_batch(session, self.batch, worker=self.desk.worker, now=now)
        for what, count in sorted(self._odd.items()):
            if count:
                self.desk.tell(f"{self.batch.batch_id}: {count} lines {what}")
        if self.refusal is not None:
            raise PermanentError(f"{self.batch.batch_id}: {self.refusal}")
        return self.batch

    def _read_file(self, file_id: str) -> None:
        try:
            results = self._results(file_id)
            while some := list(islice(results, LINES_AT_ONCE)):
                self._store(some)
        except Refused as error:
            if error.status != 404:
                raise
            self._is_lost = True
            self.desk.tell(f"{self.batch.batch_id}: its results {file_id} are gone: {error}")

    def _results(self, file_id: str) -> Iterator[Result]:
        for line in self.desk.seat_of(self.batch).teacher.lines(file_id):
            if not line.strip():
                continue
            try:
                result = read_result(line)
            except DataError as error:
                self._odd[f"of no use: {error}"] += 1
                continue
            if result.attempt_id in self._seen:
                self._odd["that repeat another one"] += 1
                continue
            self._seen.add(result.attempt_id)
            yield result

    def _store(self, results: Sequence[Result]) -> None:
        with self.desk.database.write() as session:
            ids = [result.attempt_id for result in results]
            lines = lines_by_attempt(session, self.batch.batch_id, ids)
            known = [result for result in results if result.attempt_id in lines]
            self._odd["that answer no request of this batch"] += len(results) - len(known)
            ends = [self._end_of(result, lines[result.attempt_id]) for result in known]
            for result, stored in zip(known, end_attempts(session, ends), strict=True):
                if result.failure is None or stored is not None:
                    continue
                line = lines[result.attempt_id]
                failures = failures_in_passing(session, self.batch, line)
                reason = self._reason_to_set_aside(result.failure, failures)
                if reason is not None:
                    with suppress(StateError):
                        quarantine(session, line.work_id, reason)

    def _end_of(self, result: Result, line: BatchLine) -> End:
        if result.reply is None:
            assert result.failure is not None
            return End.with_failure(line.attempt_id, result.failure.outcome, str(result.failure))
        reply = replace(result.reply, request_hash=line.request_hash)
        price = self.desk.seat_of(self.batch).price
        is_counted = reply.usage != Usage()
        usd = cost(reply.usage, price) if is_counted else line.reserved_usd
        return End.with_reply(line.attempt_id, reply, usd)

    def _reason_to_set_aside(self, failure: FailedCall, failures: int) -> str | None:
        """The rules of single calls; None leaves the image due."""
        if isinstance(failure, Refused):
            self.refusal = str(failure)
            return None
        if isinstance(failure, Unacceptable):
            return str(failure)
        if failures >= self.desk.recipe.settings.drafting.max_tries:
            return f"failed {failures} times, the last time: {failure}"
        return None


def set_aside_refused(desk: BatchDesk, batch: Batch, remote: RemoteBatch) -> Batch:
    """A batch whose validation failed: nothing was run, and the lines that it names are at fault.

    PermanentError when it names none: then the whole file is. A full queue is nobody's fault, while
    other batches of the arm wait in it.
    """
    reasons = {line: reason for line, reason in remote.errors if line is not None}
    with desk.database.write() as session:
        named = lines_by_number(session, batch.batch_id, sorted(reasons))
        rejected = AttemptOutcome.REJECTED
        end_attempts(
            session,
            [End.with_failure(line.attempt_id, rejected, reasons[line.number]) for line in named],
        )
        for line in named:
            with suppress(StateError):
                quarantine(session, line.work_id, reasons[line.number])
    said = "; ".join(reason for _, reason in remote.errors[:3]) or "no reason was given"
    end_open_lines(desk, batch, AttemptOutcome.NOT_RUN, f"the batch was refused: {said}")
    with desk.database.write() as session:
        batch = move_batch(session, batch, worker=desk.worker, reason=said)
        batch = close_batch(session, batch, worker=desk.worker, now=datetime.now(UTC))
        is_full = batch.arm in full_arms(session, desk.campaign_id)
    if named:
        desk.tell(f"{batch.batch_id}: refused for {len(named)} of its lines, which are set aside")
    elif is_full:
        desk.tell(f"{batch.batch_id}: the teacher's queue is full; sent again when it is empty")
    else:
        raise PermanentError(f"{batch.batch_id} was refused as a whole: {said}")
    return batch
