"""Which version a reference to a model means, by the decisions heard so far.

late              as the gateway answers: the champion, mixed with the online learner where there is one
late@champion     one alias alone: champion, challenger, probation, online, first
late@full-1200    one version
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import msgspec

from penstock.artefact import Artefacts
from penstock.canaries import Canary, ask
from penstock.errors import PenstockError, Refused
from penstock.label import Label
from penstock.mistake import nearest
from penstock.model import Model
from penstock.project import Project
from penstock.records import Decision

from .answers import Serving
from .around import NOTHING, Functions, Plan
from .roster import ALIASES, Rosters
from .scorers import Member, opened

__all__ = ["Charge", "Versions"]


class Versions:
    """What a reference to a model means, by the decisions heard so far. Pure but for opening artefacts."""

    def __init__(self, reference: str, project: Project, artefacts: Artefacts) -> None:
        name, _, self.which = reference.partition("@")
        self.model: Model = project.model(name)
        self.artefacts, self._rosters = artefacts, Rosters()
        self._decisions: dict[str, Decision] = {}
        self._members: Mapping[str, Member] = {}
        self.functions = Functions(Plan.of(self.model))

    def hear(self, key: bytes | None, value: bytes | None) -> bool:
        """Take one record of the models topic; whether it may change what the reference means."""
        model, _, name = (key or b"").decode("utf-8", "replace").rpartition("/")
        if model != self.model.name:
            return False
        try:
            self._rosters.hear(key, value)
            if value is not None:
                self._decisions[name] = msgspec.json.decode(value, type=Decision)
        except (Refused, msgspec.MsgspecError):
            return False  # as inference does: what is no decision changes nothing
        return name == self.which or (not self.which and name in ALIASES)

    def decision(self) -> Decision:
        """The version or alias meant. PenstockError says which there are."""
        roster, which = self._rosters.of(self.model.name), self.which or "champion"
        found = getattr(roster, which) if which in ALIASES else self._decisions.get(which)
        if found is None or (which not in ALIASES and found.version != which):
            aliases = [name for name in ALIASES if getattr(roster, name) is not None]
            there = [*aliases, *sorted(n for n, d in self._decisions.items() if n not in ALIASES and n == d.version)]
            said = f"model {self.model.name} has no {'alias' if which in ALIASES else 'version'} {which}"
            fix = nearest(which, there) if there else "the first version comes when enough labels have: penstock status"
            raise PenstockError(said, fix)
        return found

    def charge(self) -> Charge:
        """Who is meant: the version or alias, and for a model alone whom it is mixed with."""
        decision, roster = self.decision(), self._rosters.of(self.model.name)
        mixed = roster.online if not self.which and roster.online is not None else None
        weight = roster.online_weight if mixed is not None else None
        label, canaries, plan = self.model.label, self.model.canaries, Plan.of(self.model)
        return Charge(self.model.name, self.model.inputs, decision, mixed, weight, label, canaries, plan)

    def serving(self) -> Serving:
        """Who answers; opens what is not open yet. PenstockError as of `opened`: then whoever answered before goes on."""
        serving = self.charge().opened(self.artefacts, self._members, self.functions)
        self._members = serving.members
        return serving


@dataclass(frozen=True)
class Charge:
    """Who is to answer for a model, as the registry said it; can be sent to another process."""

    model: str
    inputs: tuple[str, ...]
    lead: Decision
    online: Decision | None = None
    online_weight: float | None = None
    label: Label | None = None
    """Of the model."""
    canaries: tuple[Canary, ...] = ()
    """Which each of them must know."""
    plan: Plan = NOTHING
    """Of its functions."""

    def opened(
        self,
        artefacts: Artefacts,
        known: Mapping[str, Member] = MappingProxyType({}),
        functions: Functions | None = None,
    ) -> Serving:
        """Ready to score; members that are `known` by version are not opened again, nor are open `functions`, but each is asked
        its canaries anew."""
        around = functions or Functions(self.plan)

        def member(decision: Decision) -> Member:
            candidate = decision.candidate
            if candidate is None:
                raise PenstockError(f"the decision on {decision.version} carries no candidate", "register it again")
            found = known.get(decision.version)
            if found is None or found.digest != candidate.artefact.sha256:
                scorer = opened(artefacts, candidate, around)
                found = Member.of(decision.version, candidate, scorer, self.inputs, self.label)
            ask(self.canaries, self.inputs, found.score, found.classes)
            return found

        lead = member(self.lead)
        if self.online is None:
            return Serving(champion=lead)
        return Serving(champion=lead, online=member(self.online), online_weight=self.online_weight)
