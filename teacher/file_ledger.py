"""A ledger in a file, for calls that belong to a folder and not to a campaign."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.errors import ConfigError
from core.records import AttemptOutcome, TeacherReply, Usage
from teacher.ledger import MemoryLedger


class FileLedger:
    """`Ledger` over a JSON lines file, for the threads of one process.

    Every event is on the disk when the method returns; opening the file again plays them back.
    Half a line, left by a killed process, is cut off: what it told had not returned to anybody.
    """

    def __init__(self, path: Path, *, ceiling_usd: float | None = None) -> None:
        self._path = path
        self._memory = MemoryLedger(campaign_id=str(path.parent), ceiling_usd=ceiling_usd)
        self._lock = threading.Lock()
        for event in self._read():
            self._play(event)

    @property
    def committed_usd(self) -> float:
        """Spent or set aside."""
        return self._memory.committed_usd

    @property
    def calls(self) -> int:
        """Attempts that brought a reply."""
        return len(self._memory.replies)

    def stored_reply(self, request_hash: str) -> TeacherReply | None:
        return self._memory.stored_reply(request_hash)

    def open_attempt(
        self, *, request_hash: str, image_id: str, arm: str, model: str, reserved_usd: float
    ) -> str:
        with self._lock:
            values = {
                "request_hash": request_hash,
                "image_id": image_id,
                "arm": arm,
                "model": model,
                "reserved_usd": reserved_usd,
            }
            attempt_id = self._memory.open_attempt(
                request_hash=request_hash,
                image_id=image_id,
                arm=arm,
                model=model,
                reserved_usd=reserved_usd,
            )
            self._write({"opened": values})
        return attempt_id

    def store_reply(self, attempt_id: str, reply: TeacherReply, cost_usd: float) -> TeacherReply:
        with self._lock:
            stored = self._memory.store_reply(attempt_id, reply, cost_usd)
            values = {"attempt_id": attempt_id, "cost_usd": cost_usd, "reply": asdict(reply)}
            self._write({"replied": values})
        return stored

    def fail_attempt(self, attempt_id: str, outcome: AttemptOutcome, reason: str) -> None:
        with self._lock:
            self._memory.fail_attempt(attempt_id, outcome, reason)
            values = {"attempt_id": attempt_id, "outcome": outcome.value, "reason": reason}
            self._write({"failed": values})

    def _play(self, event: Mapping[str, Any]) -> None:
        ceiling, self._memory.ceiling_usd = self._memory.ceiling_usd, None
        if values := event.get("opened"):
            self._memory.open_attempt(**values)
        elif values := event.get("replied"):
            reply = values["reply"]
            stored = TeacherReply(**{**reply, "usage": Usage(**reply["usage"])})
            self._memory.store_reply(values["attempt_id"], stored, values["cost_usd"])
        elif values := event.get("failed"):
            outcome = AttemptOutcome(values["outcome"])
            self._memory.fail_attempt(values["attempt_id"], outcome, values["reason"])
        self._memory.ceiling_usd = ceiling

    def _read(self) -> list[Mapping[str, Any]]:
        if not self._path.is_file():
            return []
        data = self._path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            with self._path.open("r+b") as file:
                file.truncate(len(whole))
        try:
            return [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise ConfigError(f"{self._path}: is no ledger: {error}; name another folder") from None

    def _write(self, event: Mapping[str, Any]) -> None:
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event, ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = error.strerror or str(error)
            raise ConfigError(f"{self._path}: cannot be written: {reason}") from None
