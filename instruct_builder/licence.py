"""The licence of a shard set: the strictest among its parts'. No legal advice, an ordering."""

from __future__ import annotations

import re
from collections.abc import Sequence

from instruct_builder.manifest import LicenceFact, PartFact, SourceFact, TeacherFact

# from the freest to the strictest; what names none of these counts as stricter still
_LADDER = (
    r"cc0|public domain|no known (?:copyright )?restrictions|unlicense",
    r"mit|bsd|apache|isc",
    r"cc[- ]by",
    r"cc[- ]by[- ]sa|gpl|odbl",
    r"cc[- ]by[- ]nd",
    r"cc[- ]by[- ]nc",
    r"cc[- ]by[- ]nc[- ]sa",
    r"cc[- ]by[- ]nc[- ]nd",
)
_UNKNOWN = len(_LADDER)
_RUNGS = tuple(
    re.compile(rf"(?<![a-z])(?:{names})(?![a-z]|[- ](?:nc|nd|sa)\b)", re.IGNORECASE)
    for names in _LADDER
)


def derive_licence(sources: Sequence[SourceFact], teachers: Sequence[TeacherFact]) -> LicenceFact:
    """The terms of the strictest source or teacher, and why they hold for the whole set."""
    named: list[tuple[str, PartFact]] = [(f"source {one.name}", one) for one in sources]
    named += [(f"teacher {one.name}", one) for one in teachers]
    parts = [(strictness(one.licence), name, one) for name, one in named]
    rank, name, part = max(parts, key=lambda ranked: ranked[:2])
    among = f"{_count(sources, 'source')} and {_count(teachers, 'teacher')}"
    because = f"it is the strictest among {among}"
    conditions = tuple(f"{owner}: {one.terms}" for _, owner, one in parts if one.terms)
    if rank == _UNKNOWN:
        return LicenceFact(
            statement=f"unknown: nobody said under which terms {name} may be used",
            because=f"{name} has the licence {part.licence!r}; {because}",
            conditions=conditions,
        )
    return LicenceFact(
        statement=part.licence,
        because=f"the licence of {name}; {because}",
        conditions=conditions,
    )


def _count(parts: Sequence[object], what: str) -> str:
    return f"{len(parts)} {what}{'s' if len(parts) != 1 else ''}"


def strictness(licence: str) -> int:
    """The highest rung that a licence statement names; a statement may name several licences."""
    return max((rung for rung, name in enumerate(_RUNGS) if name.search(licence)), default=_UNKNOWN)
