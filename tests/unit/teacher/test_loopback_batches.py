from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.errors import ConfigError
from core.recipe import DEFAULT_RECIPE
from core.records import BatchState
from teacher import loopback_batches
from teacher.batch import BatchTeacher, RemoteBatch, Result, input_line, read_result
from teacher.failures import NotRun, RateLimited, Refused, ServerFailed, Unacceptable
from teacher.faults import NO_FAULTS, Faults
from teacher.loopback import serve
from teacher.loopback_batches import BatchLimits
from teacher.rehearsal import Rehearsal, load_rehearsal
from teacher.request import body_of
from tests.unit.teacher.test_rehearsal import PHOTOGRAPH, about

ORDER = [
    BatchState.VALIDATING,
    BatchState.IN_PROGRESS,
    BatchState.FINALIZING,
    BatchState.COMPLETED,
]


@pytest.fixture(scope="module")
def rehearsal() -> Rehearsal:
    return load_rehearsal(DEFAULT_RECIPE)


@contextmanager
def opened(
    rehearsal: Rehearsal, *, faults: Faults = NO_FAULTS, **options: Any
) -> Iterator[BatchTeacher]:
    with serve(rehearsal, faults=faults, **options) as url, BatchTeacher(url) as teacher:
        yield teacher


def request(number: int) -> Any:
    return about(PHOTOGRAPH, told="real", temperature=number / 1000)


def input_file(count: int) -> bytes:
    return b"".join(input_line(f"attempt-{n}", body_of(request(n))) for n in range(count))


def submit(teacher: BatchTeacher, content: bytes) -> RemoteBatch:
    file_id = teacher.upload(io.BytesIO(content), "input.jsonl")
    return teacher.create_batch(file_id, batch_id="batch-ours")


def wait(teacher: BatchTeacher, batch: RemoteBatch) -> tuple[RemoteBatch, list[BatchState]]:
    """The batch once it has ended, and the states that it was seen in."""
    seen = [batch.state]
    while not batch.state.is_ended:
        batch = teacher.batch(batch.remote_id)
        if batch.state is not seen[-1]:
            seen.append(batch.state)
        time.sleep(0.005)
    return batch, seen


def results(teacher: BatchTeacher, batch: RemoteBatch) -> dict[str, Result]:
    files = [name for name in (batch.output_file_id, batch.error_file_id) if name]
    read = [read_result(line) for name in files for line in teacher.lines(name)]
    found = {result.attempt_id: result for result in read}
    assert len(found) == len(read)
    return found


def run(teacher: BatchTeacher, content: bytes) -> tuple[RemoteBatch, dict[str, Result]]:
    batch, _ = wait(teacher, submit(teacher, content))
    return batch, results(teacher, batch)


def names(count: int) -> set[str]:
    return {f"attempt-{number}" for number in range(count)}


def test_a_batch_passes_through_its_states_in_order(rehearsal: Rehearsal) -> None:
    with opened(rehearsal, faults=Faults(batch_seconds=0.1)) as teacher:
        _, seen = wait(teacher, submit(teacher, input_file(2)))
    assert seen[0] is BatchState.VALIDATING
    assert seen[-1] is BatchState.COMPLETED
    assert seen == [state for state in ORDER if state in seen]


def test_lines_are_answered_as_single_calls_are(rehearsal: Rehearsal) -> None:
    with opened(rehearsal) as teacher:
        batch, found = run(teacher, input_file(5))
        assert set(found) == names(5)
        assert batch.num_done == 5
        for number in range(5):
            online = teacher.send(request(number))
            reply = found[f"attempt-{number}"].reply
            assert reply is not None
            assert json.loads(reply.raw) == json.loads(online.raw)


def test_output_stands_in_another_order_than_input(rehearsal: Rehearsal) -> None:
    with opened(rehearsal) as teacher:
        _, found = run(teacher, input_file(24))
    assert set(found) == names(24)
    assert list(found) != [f"attempt-{number}" for number in range(24)]


@pytest.mark.parametrize("end", ["expired", "cancelled"])
def test_a_batch_that_ends_early_names_what_was_not_run(rehearsal: Rehearsal, end: str) -> None:
    faults = Faults.model_validate({"batch_fault": end, "batch_share": 0.25})
    with opened(rehearsal, faults=faults) as teacher:
        batch, found = run(teacher, input_file(8))
        assert batch.state == end
        assert Counter(result.reply is not None for result in found.values()) == {
            True: 2,
            False: 6,
        }
        assert all(isinstance(r.failure, NotRun) for r in found.values() if r.reply is None)
        second, found = run(teacher, input_file(8))
        assert second.state is BatchState.COMPLETED, "only the first batch has the fault"


def test_failures_of_lines_come_in_the_error_file(rehearsal: Rehearsal) -> None:
    with opened(rehearsal, faults=Faults(rate_429=0.5, rate_500=0.5)) as teacher:
        batch, found = run(teacher, input_file(12))
    assert batch.output_file_id is None
    assert {type(result.failure) for result in found.values()} == {RateLimited, ServerFailed}


def test_a_line_that_hangs_has_no_answer(rehearsal: Rehearsal) -> None:
    with opened(rehearsal, faults=Faults(rate_hang=1)) as teacher:
        batch, found = run(teacher, input_file(3))
    assert batch.state is BatchState.COMPLETED
    assert found == {}


def test_a_spoilt_output_file_holds_the_good_lines_too(rehearsal: Rehearsal) -> None:
    faults = Faults.model_validate({"batch_fault": "spoilt"})
    with opened(rehearsal, faults=faults) as teacher:
        batch, _ = wait(teacher, submit(teacher, input_file(3)))
        assert batch.output_file_id is not None
        lines = list(teacher.lines(batch.output_file_id))
    assert b"no JSON" in lines
    assert len(lines) == len(set(lines)) + 1, "one line comes twice"
    assert all(any(f'"{name}"'.encode() in line for line in lines) for name in names(3))


def test_cancelling_ends_a_batch_early(rehearsal: Rehearsal) -> None:
    with opened(rehearsal, faults=Faults(batch_seconds=3600)) as teacher:
        batch = submit(teacher, input_file(4))
        assert teacher.cancel_batch(batch.remote_id).state is BatchState.CANCELLING
        batch, seen = wait(teacher, batch)
        assert seen[-1] is BatchState.CANCELLED
        assert all(isinstance(r.failure, NotRun) for r in results(teacher, batch).values())
        with pytest.raises(ServerFailed, match="409"):
            teacher.cancel_batch(batch.remote_id)


def replaced(number: int, **changes: Any) -> bytes:
    line = json.loads(input_line(f"attempt-{number}", body_of(request(number))))
    return json.dumps({**line, **changes}).encode() + b"\n"


@pytest.mark.parametrize(
    ("lines", "named", "word"),
    [
        ([replaced(0), b"no JSON\n"], 2, "invalid_json_line"),
        ([replaced(0), b"[1]\n"], 2, "invalid_json_line"),
        ([replaced(0), b"[" * 100_000 + b"\n"], 2, "invalid_json_line"),
        ([replaced(0), replaced(1, url="/v1/embeddings")], 2, "invalid_url"),
        ([replaced(0), replaced(1, method="GET")], 2, "invalid_url"),
        ([replaced(0), replaced(1), replaced(0)], 3, "duplicate_custom_id"),
        ([replaced(0), replaced(1, custom_id=7)], 2, "duplicate_custom_id"),
        ([replaced(0), replaced(1, body={"model": "other"})], 2, "mismatched_model"),
        ([replaced(n) for n in range(5)], None, "too_many_lines"),
        ([b"\n"], None, "empty_file"),
    ],
)
def test_the_validation_names_the_lines_at_fault(
    rehearsal: Rehearsal, lines: Sequence[bytes], named: int | None, word: str
) -> None:
    with opened(rehearsal, batch_limits=BatchLimits(lines=4)) as teacher:
        batch, found = run(teacher, b"".join(lines))
    assert batch.state is BatchState.FAILED
    assert [(line, reason.partition(":")[0]) for line, reason in batch.errors] == [(named, word)]
    assert found == {}


def test_a_body_that_is_no_request_fails_alone(rehearsal: Rehearsal) -> None:
    with opened(rehearsal) as teacher:
        _, found = run(teacher, replaced(0) + replaced(1, body={"model": request(0).model}))
    assert found["attempt-0"].reply is not None
    assert isinstance(found["attempt-1"].failure, Unacceptable)


def test_limits_hold_at_the_upload(rehearsal: Rehearsal) -> None:
    with opened(rehearsal, batch_limits=BatchLimits(bytes=1000)) as teacher:
        with pytest.raises(Unacceptable, match="at most 1000"):
            teacher.upload(io.BytesIO(b"x" * 1001), "input.jsonl")
        with pytest.raises(Unacceptable, match="content-length"):
            teacher.upload(io.BytesIO(b"x" * 200_000), "input.jsonl")
        assert teacher.upload(io.BytesIO(b"x" * 1000), "input.jsonl")


def test_what_is_not_there_is_said_to_be_so(rehearsal: Rehearsal) -> None:
    with opened(rehearsal) as teacher:
        with pytest.raises(Unacceptable, match="no input file"):
            teacher.create_batch("file-none", batch_id="batch-ours")
        for call in (teacher.batch, teacher.cancel_batch, lambda name: list(teacher.lines(name))):
            with pytest.raises(Refused) as caught:
                call("nothing")
            assert caught.value.status == 404
        teacher.delete_file("nothing")


def test_a_deleted_file_is_gone(rehearsal: Rehearsal, tmp_path: Path) -> None:
    with opened(rehearsal, batches=tmp_path) as teacher:
        file_id = teacher.upload(io.BytesIO(b"{}\n"), "../../input.jsonl")
        assert list(teacher.lines(file_id)) == [b"{}"]
        teacher.delete_file(file_id)
        with pytest.raises(Refused):
            list(teacher.lines(file_id))
    assert list((tmp_path / "files").iterdir()) == []


def test_batches_are_listed_page_by_page(
    rehearsal: Rehearsal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("teacher.batch.PAGE", 2)
    with opened(rehearsal) as teacher:
        file_id = teacher.upload(io.BytesIO(input_file(1)), "input.jsonl")
        made = [teacher.create_batch(file_id, batch_id=f"batch-{n}") for n in range(5)]
        found = [teacher.find_batch(f"batch-{number}") for number in range(5)]
        assert [batch and batch.remote_id for batch in found] == [b.remote_id for b in made]
        assert teacher.find_batch("batch-5") is None


def test_a_server_goes_on_where_the_last_one_ended(rehearsal: Rehearsal, tmp_path: Path) -> None:
    log, folder, count = tmp_path / "log", tmp_path / "batches", 40
    slow = Faults(latency_s=0.2)
    with opened(rehearsal, faults=slow, log=log, batches=folder) as teacher:
        batch = submit(teacher, input_file(count))
        while not list(folder.glob("*-output.jsonl")):
            time.sleep(0.005)
    with opened(rehearsal, log=log, batches=folder) as teacher:
        batch, _ = wait(teacher, batch)
        assert set(results(teacher, batch)) == names(count)
    asked = [json.loads(line)["request_hash"] for line in log.read_text().splitlines()]
    assert len(set(asked)) == count
    assert len(asked) <= count + loopback_batches.LINES_AT_ONCE


def test_two_servers_do_not_share_a_folder(
    rehearsal: Rehearsal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loopback_batches, "LOCK_SECONDS", 0.0)
    with (
        opened(rehearsal, batches=tmp_path),
        pytest.raises(ConfigError, match="another rehearsal teacher"),
        opened(rehearsal, batches=tmp_path),
    ):
        pass
