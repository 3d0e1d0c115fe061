"""From images that are due to batches at their teacher, or to drafts where a reply is stored."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BufferedRandom
from typing import NamedTuple

from core.errors import DataError, PermanentError, StateError
from core.ids import content_id
from core.records import (
    AttemptOutcome,
    Batch,
    BatchState,
    Claim,
    Draft,
    ImageRecord,
    ImageTopic,
    TeacherRequest,
)
from db.batches import (
    NewLine,
    add_lines,
    awaited_requests,
    close_batch,
    drop_batch,
    end_lines,
    full_arms,
    move_batch,
    new_batch,
    open_lines,
    take_over_claims,
)
from db.images import images_by_id
from db.request_texts import keep_request_text
from db.results import keep_results
from db.work import claim, extend_claims, quarantine, release
from generation.batch_desk import HOLD_SECONDS, BatchDesk, BatchSeat, Standing
from generation.brief import brief_for
from teacher.batch import RemoteBatch, input_line
from teacher.failures import FailedCall, Unacceptable
from teacher.policy import reask_of
from teacher.prices import cost
from teacher.request import body_of, request_hash, worst_case_tokens

LINE_OVERHEAD = len(input_line(content_id("attempt"), b""))
LINES_AT_ONCE = 500
"""in one transaction"""


class Question(NamedTuple):
    """What must be asked next about a claimed image."""

    claim: Claim
    line: NewLine
    body: bytes

    @property
    def num_bytes(self) -> int:
        return LINE_OVERHEAD + len(self.body)


@dataclass(kw_only=True)
class InputFile:
    """The file of a batch in the making; it vanishes with its process."""

    batch: Batch
    file: BufferedRandom
    num_lines: int = 0
    num_bytes: int = 0
    work_ids: list[str] = field(default_factory=list)

    def add(self, attempt_id: str, question: Question) -> None:
        line = input_line(attempt_id, question.body)
        self.file.write(line)
        self.num_lines += 1
        self.num_bytes += len(line)
        self.work_ids.append(question.claim.work_id)

    def num_that_fit(self, questions: Sequence[Question], *, lines: int, num_bytes: int) -> int:
        """How many of these, from the first on, the file can still hold."""
        count, room = 0, num_bytes - self.num_bytes
        for question in questions[: lines - self.num_lines]:
            room -= question.num_bytes
            if room < 0:
                break
            count += 1
        return count


@dataclass(kw_only=True)
class Sending:
    """One pass over everything that is due."""

    desk: BatchDesk
    sent: list[Batch] = field(default_factory=list)
    drafted: int = 0
    """from replies that were stored already"""
    refusal: PermanentError | None = None
    """why the ceiling kept images out; they stay due"""
    _files: dict[str, InputFile] = field(default_factory=dict)
    """by arm"""
    _extended: float = field(default_factory=time.monotonic)
    """when the claims were last extended"""

    def run(self) -> None:
        """Read what is stored, send what is not; in the end nothing is claimed any more."""
        try:
            while claims := self._claim():
                self._place(claims)
            for file in list(self._files.values()):
                self._send(file)
        finally:
            for file in self._files.values():
                file.file.close()
            with self.desk.database.write() as session:
                release(session, self.desk.worker, untried=True)

    def _claim(self) -> list[Claim]:
        desk, settings = self.desk, self.desk.recipe.settings.drafting
        now = datetime.now(UTC)
        with desk.database.write() as session:
            full = full_arms(session, desk.campaign_id)
            if time.monotonic() - self._extended > settings.claim_seconds / 3:
                waiting = [name for file in self._files.values() for name in file.work_ids]
                extend_claims(
                    session, desk.worker, waiting, seconds=settings.claim_seconds, now=now
                )
                self._extended = time.monotonic()
            return claim(
                session,
                desk.campaign_id,
                arms=[arm for arm in desk.seats if arm not in full],
                worker=desk.worker,
                limit=settings.claim_size,
                seconds=settings.claim_seconds,
                now=now,
            )

    def _place(self, claims: Sequence[Claim]) -> None:
        with self.desk.database.read() as session:
            images = images_by_id(session, [item.image_id for item in claims])
        done: list[tuple[Claim, Draft | ImageTopic]] = []
        questions: dict[str, list[Question]] = defaultdict(list)
        for item in claims:
            try:
                step = next_step(self.desk, item, images[item.image_id])
            except DataError as error:
                self._set_aside(item, str(error))
                continue
            if isinstance(step, Question):
                questions[item.arm].append(step)
            else:
                done.append((item, step))
        with self.desk.database.write() as session:
            self.drafted += keep_results(session, done).count(None)
        for arm, asked in questions.items():
            self._put(self.desk.seats[arm], self._unasked(arm, asked))

    def _unasked(self, arm: str, questions: Sequence[Question]) -> list[Question]:
        """Each request once, without those that wait for an answer: their images stay due."""
        first: dict[str, Question] = {}
        for question in questions:
            first.setdefault(question.line.request_hash, question)
        with self.desk.database.read() as session:
            awaited = awaited_requests(session, self.desk.campaign_id, arm, list(first))
        return [question for name, question in first.items() if name not in awaited]

    def _put(self, seat: BatchSeat, questions: Sequence[Question]) -> None:
        """Add questions to the file of an arm; a full file is sent, and the next one begun."""
        limits = self.desk.recipe.settings.drafting.batch
        while questions:
            file = self._file_of(seat)
            count = file.num_that_fit(questions, lines=limits.lines, num_bytes=limits.bytes)
            if count:
                self._write(file, questions[:count])
            elif file.num_lines:
                self._send(file)
            else:
                count = 1
                reason = f"its request is larger than a batch may be ({limits.bytes} bytes)"
                self._set_aside(questions[0].claim, reason)
            questions = questions[count:]

    def _write(self, file: InputFile, questions: Sequence[Question]) -> None:
        lines = [question.line for question in questions]
        with self.desk.database.write() as session:
            ledger = self.desk.seat_of(file.batch).ledger
            results = add_lines(session, file.batch, lines, ledger=ledger)
        for question, result in zip(questions, results, strict=True):
            if isinstance(result, str):
                file.add(result, question)
            elif isinstance(result, PermanentError):
                self.refusal = result

    def _file_of(self, seat: BatchSeat) -> InputFile:
        desk, arm = self.desk, seat.arm.name
        if arm not in self._files:
            with desk.database.write() as session:
                batch = new_batch(
                    session,
                    desk.campaign_id,
                    arm,
                    worker=desk.worker,
                    seconds=HOLD_SECONDS,
                    now=datetime.now(UTC),
                )
            file = tempfile.TemporaryFile(dir=desk.scratch)  # noqa: SIM115  closed when sent
            self._files[arm] = InputFile(batch=batch, file=file)
        return self._files[arm]

    def _send(self, file: InputFile) -> None:
        del self._files[file.batch.arm]
        with file.file:
            if not file.num_lines:
                with self.desk.database.write() as session:
                    drop_batch(session, file.batch)
                return
            try:
                self.sent.append(send(self.desk, file))
            except StateError as error:
                self.desk.tell(str(error))

    def _set_aside(self, item: Claim, reason: str) -> None:
        with self.desk.database.write() as session, suppress(StateError):
            quarantine(session, item.work_id, reason)


def next_step(desk: BatchDesk, item: Claim, image: ImageRecord) -> Draft | ImageTopic | Question:
    """A result where a usable reply is stored, else what is to be asked next.

    DataError when the image cannot be asked about, or was asked about often enough.
    """
    if item.tries > desk.recipe.settings.drafting.max_claims:
        raise DataError(f"claimed {item.tries - 1} times and never finished: it may end its worker")
    seat = desk.seats[item.arm]
    brief = brief_for(desk.database, desk.recipe, seat.arm, image)
    rendered = brief.render(desk.store.read(image.path))
    keep_request_text(desk.database, rendered.text)
    request = rendered.request
    reasks_left = desk.recipe.settings.drafting.max_reasks
    while (reply := seat.ledger.stored_reply(request_hash(request))) is not None:
        try:
            said = brief.read(reply)
        except DataError as error:
            if not reasks_left:
                raise
            reasks_left -= 1
            request = reask_of(request, str(error))
        else:
            return brief.result(said, reply, rendered, work=item)
    return _question(seat, item, request)


def _question(seat: BatchSeat, item: Claim, request: TeacherRequest) -> Question:
    line = NewLine(
        request_hash=request_hash(request),
        work_id=item.work_id,
        image_id=item.image_id,
        model=request.model,
        reserved_usd=cost(worst_case_tokens(request, seat.price.image), seat.price),
    )
    return Question(claim=item, line=line, body=body_of(request))


def send(desk: BatchDesk, file: InputFile) -> Batch:
    """Upload a file and have it run. What fails before anything was run is undone."""
    batch = file.batch
    try:
        batch = _upload(desk, file)
    except (FailedCall, StateError) as error:
        give_up(desk, batch, f"its file could not be sent: {error}")
        if isinstance(error, Unacceptable):
            raise PermanentError(f"{batch.batch_id}: {error}") from None
        raise
    return create(desk, batch)


def create(desk: BatchDesk, batch: Batch, *, is_resumed: bool = False) -> Batch:
    """Have an uploaded file run: once, also when the answer to the first try was lost."""
    teacher = desk.seat_of(batch).teacher
    assert batch.input_file_id is not None
    remote = teacher.find_batch(batch.batch_id) if is_resumed else None
    try:
        remote = remote or teacher.create_batch(batch.input_file_id, batch_id=batch.batch_id)
    except Unacceptable as error:
        give_up(desk, batch, f"it was refused: {error}")
        raise PermanentError(f"{batch.batch_id}: {error}") from None
    batch = note(desk, batch, remote)
    desk.seen[batch.batch_id] = Standing(batch.state, 0, batch.num_lines)
    size = f"{batch.num_lines:,} lines, {batch.num_bytes / 1e6:.1f} MB"
    desk.tell(f"{batch.batch_id}: {size}, arm {batch.arm}, submitted as {batch.remote_id}")
    return batch


def note(desk: BatchDesk, batch: Batch, remote: RemoteBatch) -> Batch:
    """Write down what the teacher says about a batch."""
    now = datetime.now(UTC)
    with desk.database.write() as session:
        return move_batch(
            session,
            batch,
            worker=desk.worker,
            state=remote.state,
            remote_id=remote.remote_id,
            output_file_id=remote.output_file_id,
            error_file_id=remote.error_file_id,
            polled_at=now,
            ended_at=now if remote.state.is_ended else None,
        )


def give_up(
    desk: BatchDesk,
    batch: Batch,
    reason: str,
    outcome: AttemptOutcome = AttemptOutcome.NOT_RUN,
) -> Batch:
    """End a batch without an answer: its images are due again.

    Its lines are refunded, for nothing was run, unless `outcome` says that nobody knows.
    """
    end_open_lines(desk, batch, outcome, reason)
    with desk.database.write() as session:
        failed = {"state": BatchState.FAILED, "reason": reason, "ended_at": datetime.now(UTC)}
        batch = move_batch(session, batch, worker=desk.worker, **failed)
        return close_batch(session, batch, worker=desk.worker, now=datetime.now(UTC))


def end_open_lines(desk: BatchDesk, batch: Batch, outcome: AttemptOutcome, reason: str) -> int:
    """Close the attempts that brought no answer; returns how many."""
    total = 0
    while True:
        with desk.database.write() as session:
            lines = open_lines(session, batch.batch_id, limit=LINES_AT_ONCE)
            end_lines(session, lines, outcome, reason)
        total += len(lines)
        if len(lines) < LINES_AT_ONCE:
            return total


def _upload(desk: BatchDesk, file: InputFile) -> Batch:
    now = datetime.now(UTC)
    with desk.database.write() as session:
        extend_claims(session, desk.worker, file.work_ids, seconds=round(HOLD_SECONDS), now=now)
    file.file.seek(0)
    sha256 = hashlib.file_digest(file.file, "sha256").hexdigest()
    file.file.seek(0)
    name = f"{file.batch.batch_id}.jsonl"
    teacher = desk.seat_of(file.batch).teacher
    input_file_id = teacher.upload(file.file, name)
    try:
        with desk.database.write() as session:
            take_over_claims(session, file.batch, worker=desk.worker)
            return move_batch(
                session,
                file.batch,
                worker=desk.worker,
                state=BatchState.UPLOADED,
                num_lines=file.num_lines,
                num_bytes=file.num_bytes,
                input_sha256=sha256,
                input_file_id=input_file_id,
            )
    except StateError:
        teacher.delete_file(input_file_id)
        raise
