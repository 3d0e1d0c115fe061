"""What the adjudicator is asked and what comes of the answer; nothing is read or sent.

The adjudicator works on a *proposal*: a draft that holds every trace that the teacher or an expert
named, in the words that most experts left. It is reviewed like any draft, trace by trace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from string import ascii_uppercase

from annotation.answers import Result
from annotation.interface import CONFIDENCE, REJECT, SIDES, trace_name
from annotation.mapping import prediction_of, traces_of
from core.errors import DataError
from core.ids import unit_interval
from core.records import (
    Correction,
    Draft,
    ImageRecord,
    TraceFinding,
    TraceOutcome,
)
from core.taxonomy import Taxonomy

LEAVES, REJECTS, ADDS, LACKS = "leaves it as it is", "rejects it", "adds it", "does not name it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One trace of a proposal."""

    finding: TraceFinding
    """in the words and with the region that most experts left"""
    drafted: int | None
    """its place in the teacher's draft; None: experts have added it"""
    decided: TraceOutcome | None
    """what all experts did, where that is one thing; None: the adjudicator has to say"""
    said: tuple[str, ...]
    """what each expert made of it, in words; the experts are A, B, ... in this order"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """What the adjudicator reviews."""

    draft: Draft
    """the teacher's"""
    experts: frozenset[str]
    """whose answers are to be settled: none of them may"""
    candidates: tuple[Candidate, ...]
    """those of the draft in their order, then the added ones"""
    conclusion: str

    def as_draft(self) -> Draft:
        """The proposal in the place of the draft."""
        findings = tuple(candidate.finding for candidate in self.candidates)
        reasoning = replace(self.draft.reasoning, findings=findings, conclusion=self.conclusion)
        return replace(self.draft, reasoning=reasoning)


# From answers to a proposal


def propose(draft: Draft, corrections: Sequence[Correction]) -> Proposal:
    """Put together what experts left of a draft; they become letters, in an order of its own."""
    said = sorted(corrections, key=lambda item: unit_interval(draft.draft_id, item.expert))
    conclusions = Counter(correction.reasoning.conclusion for correction in said)
    return Proposal(
        draft=draft,
        experts=frozenset(correction.expert for correction in said),
        candidates=(*_drafted_candidates(draft, said), *_added_candidates(said)),
        conclusion=conclusions.most_common(1)[0][0],
    )


def _drafted_candidates(draft: Draft, said: Sequence[Correction]) -> Iterator[Candidate]:
    for place, drafted in enumerate(draft.reasoning.findings):
        left = [correction.drafted().get(place) for correction in said]
        versions = Counter(finding for finding in left if finding is not None)
        yield Candidate(
            finding=versions.most_common(1)[0][0] if versions else drafted,
            drafted=place,
            decided=_decision(left),
            said=tuple(_words_on_drafted(drafted, finding) for finding in left),
        )


def _added_candidates(said: Sequence[Correction]) -> Iterator[Candidate]:
    added = [correction.added() for correction in said]
    for finding in dict.fromkeys(finding for findings in added for finding in findings):
        yield Candidate(
            finding=finding,
            drafted=None,
            decided=_decision([finding if finding in findings else None for findings in added]),
            said=tuple(_words_on_added(finding, findings) for findings in added),
        )


def _decision(left: Sequence[TraceFinding | None]) -> TraceOutcome | None:
    if len(set(left)) > 1:
        return None
    return TraceOutcome.REJECTED if left[0] is None else TraceOutcome.ACCEPTED


def _words_on_drafted(drafted: TraceFinding, left: TraceFinding | None) -> str:
    if left is None:
        return REJECTS
    return LEAVES if left.evidence == drafted.evidence else left.evidence


def _words_on_added(finding: TraceFinding, added: Sequence[TraceFinding]) -> str:
    if finding in added:
        return ADDS
    return " / ".join(f.evidence for f in added if f.category == finding.category) or LACKS


# From a proposal to a task


def traces_of_proposal(proposal: Proposal, taxonomy: Taxonomy) -> list[dict[str, str]]:
    """Heading and words of each trace, as the form shows them side by side."""
    drafted = proposal.draft.reasoning.findings
    shown = traces_of(proposal.as_draft(), taxonomy)
    return [
        {
            **trace,
            "draft": LACKS if candidate.drafted is None else drafted[candidate.drafted].evidence,
            **_sides(candidate.said),
        }
        for trace, candidate in zip(shown, proposal.candidates, strict=True)
    ]


def prediction_of_proposal(proposal: Proposal, image: ImageRecord) -> list[Result]:
    """What the form is filled with: all wordings, and the answers that all experts share."""
    decided = {
        trace_name("verdict", place): candidate.decided
        for place, candidate in enumerate(proposal.candidates)
    }
    results = []
    for result in prediction_of(proposal.as_draft(), image):
        name = result["from_name"]
        if name == CONFIDENCE or (name in decided and decided[name] is None):
            continue
        is_rejected = decided.get(name) is TraceOutcome.REJECTED
        results.append({**result, "value": {"choices": [REJECT]}} if is_rejected else result)
    return results


def _sides(said: Sequence[str]) -> dict[str, str]:
    """The columns of the form; the last one takes all experts that are left."""
    experts = list(zip(ascii_uppercase, said, strict=False))
    columns = [*([expert] for expert in experts[: SIDES - 1]), experts[SIDES - 1 :]]
    shown: dict[str, str] = {}
    for number, column in enumerate(columns, start=1):
        several = len(column) > 1
        words = [f"{letter}: {text}" if several else text for letter, text in column]
        shown[f"side_{number}_by"] = f"expert {', '.join(letter for letter, _ in column)}"
        shown[f"side_{number}"] = "\n".join(words)
    return shown


# From the answer to a ruling


def ruling_of(answer: Correction, proposal: Proposal) -> Correction:
    """What the adjudicator's answer to a proposal says of the teacher's draft.

    `answer` is the correction of the proposal in the place of a draft. DataError when its author
    is one of those between whom it settles.
    """
    if answer.expert in proposal.experts:
        raise DataError(f"{answer.expert} gave one of the answers: somebody else has to settle it")
    left = answer.drafted()
    outcomes = []
    for place, candidate in enumerate(proposal.candidates):
        if candidate.drafted is not None:
            drafted = proposal.draft.reasoning.findings[candidate.drafted]
            outcomes.append(_outcome(drafted, left.get(place)))
    added = len(answer.reasoning.findings) - sum(o is not TraceOutcome.REJECTED for o in outcomes)
    return replace(
        answer, outcomes=(*outcomes, *[TraceOutcome.ADDED] * added), is_adjudication=True
    )


def _outcome(drafted: TraceFinding, left: TraceFinding | None) -> TraceOutcome:
    if left is None:
        return TraceOutcome.REJECTED
    is_same = left.evidence == drafted.evidence
    return TraceOutcome.ACCEPTED if is_same else TraceOutcome.EDITED
