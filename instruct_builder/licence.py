"""The licence of a shard set: the strictest of its sources'. No legal advice, an ordering."""

from __future__ import annotations

import re
from collections.abc import Sequence

from core.records import Source
from instruct_builder.manifest import LicenceFact

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


def derive_licence(sources: Sequence[Source]) -> LicenceFact:
    """The terms of the strictest source, and why they hold for the whole set."""
    ranked = [(strictness(source.licence), source.name, source.licence) for source in sources]
    rank, name, licence = max(ranked)
    because = (
        f"it is the strictest among {len(ranked)} sources" if ranked[1:] else "the only source"
    )
    if rank == _UNKNOWN:
        return LicenceFact(
            statement=f"unknown: nobody said under which terms source {name} may be used",
            because=f"source {name} has the licence {licence!r}; {because}",
        )
    return LicenceFact(statement=licence, because=f"the licence of source {name}; {because}")


def strictness(licence: str) -> int:
    """The highest rung that a licence statement names; a statement may name several licences."""
    return max((rung for rung, name in enumerate(_RUNGS) if name.search(licence)), default=_UNKNOWN)
