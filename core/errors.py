"""The five errors of the platform; the class alone decides what happens next.

FakeScopeError
 ├─ ConfigError     wrong input or configuration: stop with exit code 2, say what to change
 ├─ DataError       this record is bad: set it aside with the reason, go on with the rest
 ├─ TransientError  try again later, a bounded number of times
 ├─ PermanentError  no retry can help (401, quota, money ceiling): stop the campaign
 └─ StateError      somebody else did it already: end quietly
"""

from __future__ import annotations


class FakeScopeError(Exception):
    """Anything the platform itself reports; shown as one line, without a traceback."""

    exit_code = 1


class ConfigError(FakeScopeError):
    """Wrong input or configuration; the message names the thing and the remedy."""

    exit_code = 2


class DataError(FakeScopeError):
    """One record cannot be used; the message names the record and the reason."""


class TransientError(FakeScopeError):
    """A failure that may pass; `retry_after` is the wait in seconds that was asked for."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(FakeScopeError):
    """A failure that no retry can mend; the campaign stops."""


class StateError(FakeScopeError):
    """The work was already done, or taken, by somebody else."""
