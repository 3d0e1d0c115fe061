"""Failures that the rehearsal teacher plays on demand, the same ones for the same requests."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import Field, model_validator

from core.ids import unit_interval
from core.recipe import Strict


class Fault(StrEnum):
    """One way to fail."""

    RATE_LIMITED = "rate_limited"
    RATE_LIMITED_BARE = "rate_limited_bare"
    """without a word on how long to wait"""
    SERVER_ERROR = "server_error"
    HANG = "hang"
    REFUSAL = "refusal"
    TRUNCATED = "truncated"
    JUNK = "junk"
    WRONG_VERDICT = "wrong_verdict"
    TURNED_FACT = "turned_fact"


class BatchFault(StrEnum):
    """One way in which a whole batch fails."""

    FAILED = "failed"
    """the validation refuses it"""
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    SPOILT = "spoilt"
    """the output file also holds junk, unknown and repeated lines"""


class Faults(Strict):
    """How often which failure is played; rates are shares of the requests, 0..1 together."""

    latency_s: float = Field(0.0, ge=0)
    """added to every reply"""
    rate_429: float = Field(0.0, ge=0)
    retry_after: float = Field(0.1, ge=0)
    """seconds, sent along with each 429"""
    rate_429_bare: float = Field(0.0, ge=0)
    """429 that says nothing of when to come back"""
    rate_500: float = Field(0.0, ge=0)
    rate_hang: float = Field(0.0, ge=0)
    """no reply, the connection stays open"""
    rate_refusal: float = Field(0.0, ge=0)
    rate_truncated: float = Field(0.0, ge=0)
    rate_junk: float = Field(0.0, ge=0)
    """content that is no JSON"""
    rate_wrong_verdict: float = Field(0.0, ge=0)
    rate_turned_fact: float = Field(0.0, ge=0)
    """rewordings that say something else than their originals; changes no draft"""
    seed: int = 0
    batch_seconds: float = Field(0.0, ge=0)
    """that a batch waits in each of its states"""
    batch_fault: BatchFault | None = None
    num_faulty_batches: int = Field(1, ge=0)
    """so many of the first batches have that fault"""
    batch_share: float = Field(0.5, ge=0, le=1)
    """share of the lines that are answered before a batch expires or is cancelled"""

    @model_validator(mode="after")
    def _rates_are_shares(self) -> Self:
        if sum(self._rates().values()) > 1 + 1e-9:
            raise ValueError("the rates add up to more than 1")
        return self

    def _rates(self) -> dict[Fault, float]:
        return {
            Fault.RATE_LIMITED: self.rate_429,
            Fault.RATE_LIMITED_BARE: self.rate_429_bare,
            Fault.SERVER_ERROR: self.rate_500,
            Fault.HANG: self.rate_hang,
            Fault.REFUSAL: self.rate_refusal,
            Fault.TRUNCATED: self.rate_truncated,
            Fault.JUNK: self.rate_junk,
            Fault.WRONG_VERDICT: self.rate_wrong_verdict,
            Fault.TURNED_FACT: self.rate_turned_fact,
        }

    def draw(self, request_hash: str, times_seen: int) -> Fault | None:
        """The failure of this request when it was seen so often before; depends on nothing else."""
        place = unit_interval("fault", self.seed, request_hash, times_seen)
        for fault, rate in self._rates().items():
            if place < rate:
                return fault
            place -= rate
        return None


NO_FAULTS = Faults()
