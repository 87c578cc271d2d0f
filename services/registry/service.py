"""Registry: decides which version answers.

reads    <p>.statistics.<model>   closed windows: the clock, and the evidence
         <p>.candidates           what the trainer offers
         <p>.commands             what people ask
follows  <p>.models               its own decisions: the whole state
writes   <p>.models (compacted)   by <model>/champion, challenger, probation, online; <model>/<version>;
                                  <model>/command-<digest>
"""

from __future__ import annotations

import msgspec

from penstock.errors import Refused
from penstock.log import Send
from penstock.records import Candidate, Command, Decision, Statistic
from penstock.topics import Topics

from .lifecycle import decide

__all__ = ["Registry"]

_DECISION = msgspec.json.Decoder(Decision)
_CANDIDATE = msgspec.json.Decoder(Candidate)
_COMMAND = msgspec.json.Decoder(Command)
_STATISTIC = msgspec.json.Decoder(Statistic)


class Registry:
    """The control of this service (see penstock.control). `state` is model -> key -> decision, as the topic holds
    it."""

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._models = {model.name: model for model in topics.project.models}
        self._statistics = tuple(topics.statistics(name) for name in self._models)
        self.reads: tuple[str, ...] = (*self._statistics, topics.candidates, topics.commands)
        self.follows: tuple[str, ...] = (topics.models,)
        self.state: dict[str, dict[str, Decision]] = {name: {} for name in self._models}

    def recall(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        model, _, rest = (key or b"").decode().partition("/")
        kept = self.state.setdefault(model, {})
        if value is None:
            kept.pop(rest, None)
        else:
            kept[rest] = _DECISION.decode(value)

    def apply(self, topic: str, key: bytes | None, value: bytes | None) -> list[Send]:
        record = self._decoded(topic, value or b"")
        if isinstance(record, Command) and record.action == "retrain":
            return []  # the trainer's
        model = self._models.get(record.model)
        if model is None:
            raise Refused("unknown", f"no model {record.model!r}; the project has {', '.join(self._models)}")
        kept, sends = self.state[model.name], []
        for rest, decision in decide(kept, model, record):
            if decision is None:
                kept.pop(rest, None)
            else:
                kept[rest] = decision
            said = None if decision is None else msgspec.json.encode(decision)
            sends.append(Send(self._topics.models, f"{model.name}/{rest}".encode(), said))
        return sends

    def _decoded(self, topic: str, value: bytes) -> Statistic | Candidate | Command:
        if topic in self._statistics:
            return _STATISTIC.decode(value)
        return _CANDIDATE.decode(value) if topic == self._topics.candidates else _COMMAND.decode(value)
