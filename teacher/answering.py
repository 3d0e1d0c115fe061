"""How the rehearsal teacher answers questions that ask for words, or for a probability.

Both come from what it measured. The words are a verdict and the evidence for it, whatever was
asked. The probability is (f + 1) / (f + r + 2), f and r being its findings for fake and for real.
"""

from __future__ import annotations

import json

from core.records import Authenticity, Reasoning
from teacher.request import reply_keys

ANSWER, VERDICT = ("answer",), ("verdict", "p_fake")


def is_answering(reply_schema: str) -> bool:
    """Whether a request asks for one of both: its reply has these keys and no other."""
    return reply_keys(reply_schema) in (ANSWER, VERDICT)


def answer(reasoning: Reasoning, reply_schema: str) -> str:
    """The reply, as JSON."""
    fake = sum(each.points_to is Authenticity.FAKE for each in reasoning.findings)
    p_fake = (fake + 1) / (len(reasoning.findings) + 2)
    verdict = Authenticity.FAKE if p_fake > 0.5 else Authenticity.REAL
    if reply_keys(reply_schema) == VERDICT:
        return json.dumps({"verdict": verdict.value, "p_fake": round(p_fake, 4)})
    evidence = [each.evidence for each in reasoning.findings if each.points_to is verdict]
    return json.dumps({"answer": " ".join([f"This is a {verdict} image.", *evidence])})
