"""Who answers: the registry's decisions, folded into a roster per model. Pure.

The compacted models topic keys decisions by `model/version`, and again by alias:

    model/champion      answers
    model/challenger    in shadow: is scored too; as canary: answers its share of the entities
    model/probation     the champion before, scored on, so that a way back has evidence
    model/online        the newest snapshot of the online learner, with the weights of the mixture
    model/first         the version first in charge; scored on where the model says `keep_first`; answers where all others fail

An alias record is the whole decision, candidate included, so that following the aliases is enough to serve; a tombstone
removes the alias. Records by version say only what may soon be needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import msgspec

from penstock.errors import Refused
from penstock.records import Decision

__all__ = ["ALIASES", "BUCKETS", "Roster", "Rosters", "bucket"]

ALIASES = ("champion", "challenger", "probation", "online", "first")
BUCKETS = 10_000
_ENDED = frozenset({"retired", "rejected", "rolled_back"})

_decode = msgspec.json.Decoder(Decision).decode
_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=1 << 16)
def bucket(model: str, entity: str) -> int:
    """The bucket of an entity, 0 to 9,999: blake2b of "model:entity" (UTF-8), 8 bytes big-endian, modulo 10,000.

    Published, so that anyone can recompute who was asked what. A canary of share s answers the buckets below
    s x 10,000: widening it keeps everyone who was in. The model is the salt: two models split independently.

    >>> bucket("late", "JFK"), bucket("late", "EWR"), bucket("fraud", "JFK"), bucket("late", "")
    (5487, 942, 1637, 6930)
    """
    digest = hashlib.blake2b(f"{model}:{entity}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) % BUCKETS


@dataclass(frozen=True)
class Roster:
    """Who is on duty for one model. `waiting` is the newest version that was registered and has no duty yet."""

    champion: Decision | None = None
    challenger: Decision | None = None
    probation: Decision | None = None
    online: Decision | None = None
    first: Decision | None = None
    waiting: Decision | None = None
    earlier: Decision | None = None
    """The version that the champion took over from, unless that one was rolled back: a way on when the champion cannot answer."""

    @property
    def share(self) -> float:
        """The share of entities that the challenger answers; 0 while it is in shadow."""
        return self.challenger.share if self.challenger is not None and self.challenger.kind == "canary" else 0.0

    @property
    def online_weight(self) -> float | None:
        """How much the online learner counts beside a batch version, 0 to 1; None when its snapshot does not say."""
        weights = self.online.candidate.weights if self.online is not None and self.online.candidate is not None else {}
        batch, online = weights.get("batch", 0.0), weights.get("online", 0.0)
        return online / (batch + online) if batch >= 0 and online >= 0 and batch + online > 0 else None


@dataclass
class Rosters:
    """The rosters of all models, as of the last record heard. `aliases` is what has to be kept to restore them: the aliases, and
    the versions that were retired as champions."""

    aliases: dict[bytes, bytes] = field(default_factory=dict)
    _of: dict[str, Roster] = field(default_factory=dict)
    _retired: dict[str, dict[str, Decision]] = field(default_factory=dict)
    """By model and version, as far as the champion may have taken over from them."""

    def of(self, model: str) -> Roster:
        return self._of.get(model, Roster())

    def hear(self, key: bytes | None, value: bytes | None) -> str:
        """Take one record of the models topic; the model whose roster changed, or "" when none did.

        Refused (decode, schema) when it is no decision; nothing has changed then.
        """
        model, _, name = (key or b"").decode("utf-8", "replace").rpartition("/")
        if not model or key is None:
            raise Refused("schema", f"the key {key!r} is not model/version or model/alias")
        decision = self._decision(model, value) if value is not None else None
        before = self.of(model)
        after = self._alias(before, name, decision) if name in ALIASES else self._version(before, name, decision)
        if name in ALIASES:
            if decision is None:
                self.aliases.pop(key, None)
            else:
                self.aliases[key] = _encode(decision)
        after = replace(after, earlier=self._earlier(model, name, decision, after.champion))
        self._of[model] = after
        return model if after != before else ""

    def _earlier(self, model: str, name: str, decision: Decision | None, champion: Decision | None) -> Decision | None:
        retired = self._retired.setdefault(model, {})
        if name not in ALIASES:
            self._forget(model, name)
            if decision is not None and decision.version == name and decision.kind == "retired":
                retired[name] = decision
                self.aliases[f"{model}/{name}".encode()] = _encode(decision)
        if champion is None:  # read from the beginning, a compacted topic tells of it last
            return None
        for other in retired.keys() - {champion.version, champion.expected}:
            self._forget(model, other)
        return retired.get(champion.expected)

    def _forget(self, model: str, version: str) -> None:
        self._retired[model].pop(version, None)
        self.aliases.pop(f"{model}/{version}".encode(), None)

    @classmethod
    def restored(cls, aliases: Mapping[bytes, bytes]) -> Rosters:
        """The rosters that had these `aliases`."""
        found = cls()
        for key, value in aliases.items():
            found.hear(key, value)
        return found

    @staticmethod
    def _alias(roster: Roster, alias: str, decision: Decision | None) -> Roster:
        waiting = roster.waiting
        if decision is not None and waiting is not None and waiting.version == decision.version:
            waiting = None
        changed: dict[str, Decision | None] = {alias: decision, "waiting": waiting}
        return replace(roster, **changed)

    @staticmethod
    def _version(roster: Roster, version: str, decision: Decision | None) -> Roster:
        waiting = roster.waiting
        if decision is not None and decision.version != version:
            return roster  # what became of a command
        if decision is None or decision.kind in _ENDED:
            return replace(roster, waiting=None) if waiting is not None and waiting.version == version else roster
        return replace(roster, waiting=decision) if decision.kind == "registered" else roster

    @staticmethod
    def _decision(model: str, value: bytes) -> Decision:
        try:
            decision = _decode(value)
        except msgspec.ValidationError as error:
            raise Refused("schema", f"a decision about {model}: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("decode", f"a decision about {model}: {error}") from None
        if decision.model != model:
            raise Refused("schema", f"the key says {model}, the decision {decision.model}")
        return decision
