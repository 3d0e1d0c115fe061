"""Rehearsal teachers that differ: each answers under a model name of its own, by stated rules."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from core.errors import ConfigError
from core.ids import unit_interval
from core.recipe import Strict, is_simulated
from teacher.findings import Rules


class Persona(Strict):
    """In what one rehearsal teacher differs from the plain one."""

    overlooks: tuple[str, ...] = ()
    """ids of rules that it does not apply"""
    least_strength: float = Field(0.0, ge=0, le=1)
    """of the evidence that it reports"""
    glaring_from: float = Field(1.0, ge=0, le=1)
    """strength from which on it calls a finding glaring"""
    refuses: float = Field(0.0, ge=0, le=1)
    """share of the images about which it says nothing, drawn by their hashes"""

    def turns_down(self, key: str) -> bool:
        """Whether it refuses to look at an image; `key` is the image's hash."""
        return unit_interval("refuses", self.refuses, key) < self.refuses

    def rules_of(self, rules: Rules) -> Rules:
        kept = tuple(rule for rule in rules.rules if rule.id not in self.overlooks)
        return rules.model_copy(update={"rules": kept})


PLAIN = Persona()


def check_personas(personas: Mapping[str, Persona], rules: Rules, *, where: str) -> None:
    """ConfigError for a name that would pass for a real model, and for rules that are not there."""
    known = {rule.id for rule in rules.rules}
    for name, persona in personas.items():
        if not is_simulated(name):
            raise ConfigError(f"{where}: {name}: its name must begin with `rehearsal-`")
        if unknown := sorted(set(persona.overlooks) - known):
            raise ConfigError(f"{where}: {name} overlooks {', '.join(unknown)}, no rules of here")
