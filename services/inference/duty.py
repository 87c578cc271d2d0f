"""Who is on duty for one model, with scorers in hand: the roster, less what cannot be loaded."""

from __future__ import annotations

import msgspec

from penstock.errors import Unreachable
from penstock.model import Model
from penstock.records import Decision

from .meters import Meters
from .roster import ALIASES, Roster
from .scoring import Serving
from .sessions import RETRY_SECONDS, Member, Sessions

__all__ = ["Duty"]

_decode = msgspec.json.Decoder(Decision).decode
_encode = msgspec.json.Encoder().encode


class Duty:
    """Follows one model's roster.

    A version that cannot be loaded never takes over: the champion or online learner before it goes on, and a challenger
    that cannot be loaded answers nobody."""

    def __init__(self, model: Model, sessions: Sessions, meters: Meters) -> None:
        self.model, self._sessions, self._meters = model, sessions, meters
        self.roster = Roster()
        self.serving = Serving()
        self.served: Decision | None = None
        """The decision behind `serving.champion`; kept with the shard's state, so that a restart falls back on it."""
        self._retry: float | None = None
        self._told: dict[str, str] = {}

    def follow(self, roster: Roster, now: float) -> None:
        """Take over a changed roster at once; `now` is the wall clock in seconds."""
        self.roster = roster
        self._retry = None
        before = self.serving
        champion = self._load(roster.champion, now)
        if champion is not None:
            self.served = roster.champion
        elif roster.champion is None:
            self.served = None
        else:
            champion = before.champion or self._load(self.served, now) or self._load(roster.probation, now)
        online, weight = self._load(roster.online, now), roster.online_weight
        if online is None and roster.online is not None:
            online, weight = before.online, before.online_weight
        challenger = self._load(roster.challenger, now)
        self.serving = Serving(
            champion, challenger, roster.share if challenger else 0.0, self._load(roster.probation, now), online, weight
        )
        self._load(roster.waiting, now)
        self._say()

    def kept(self) -> bytes | None:
        """The champion in fact serving, when the roster names another: what a restart must know beside the roster."""
        if self.served is None or self.served == self.roster.champion:
            return None
        return _encode(self.served)

    def restore(self, kept: bytes | None, roster: Roster, now: float) -> None:
        """Go on as `kept` and the roster say."""
        self.served = _decode(kept) if kept else None
        self.follow(roster, now)

    def retry(self, now: float) -> None:
        """Look again for files that could not be read, when it is time."""
        if self._retry is not None and now >= self._retry:
            self.follow(self.roster, now)

    def _load(self, decision: Decision | None, now: float) -> Member | None:
        if decision is None:
            return None
        try:
            return self._sessions.member(decision, self.model.inputs)
        except Unreachable:
            self._retry = now + RETRY_SECONDS
            return None

    def _say(self) -> None:
        """Log and count who is on duty, when that changed."""
        duties: dict[str, str] = {}
        for name in ALIASES:
            member: Member | None = getattr(self.serving, name)
            if member is not None:
                duties[name] = member.version
        if duties != self._told:
            for name, version in self._told.items():
                self._meters.serving.remove(self.model.name, name, version)
            for name, version in duties.items():
                self._meters.serving.labels(self.model.name, name, version).set(1)
            self._told = duties
            self._sessions.announce(self.model.name, duties)
